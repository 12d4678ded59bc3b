"""Whether the quickstart shows what it says, over three seeds: SFT lowers held-out loss, DPO raises ranking accuracy.

    python benchmarks/quickstart_seeds.py [--out DIR]

Every seed makes its own corpus, base model and runs, by the quickstart's own commands. Differences are paired over
clients; intervals are 95 %, as `fedllm-eval compare` gives them. A seed that is there already is not run again.
"""

import argparse
import shutil
import time
import warnings
from pathlib import Path

from machine import write_result

from fedllm_data.errors import FedLLMError
from fedllm_eval.compare import compare_results
from fedllm_eval.comparing.comparison_verdicts import OF_RUNS
from fedllm_train.quickstart.commands import steps
from fedllm_train.quickstart.steps import run_steps

SEEDS = (0, 1, 2)
CLAIMS = (("loss", "base", "sft", "heldout_loss"), ("preference", "sft", "dpo", "ranking_accuracy"))
KEPT = ("split", "score", "num_clients", "difference", "ci_low", "ci_high", "p_value", "better_fraction", "outcome")


def main() -> None:
    """Run the seeds, print each claim with its interval, and keep the numbers."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("quickstart-seeds"))
    out = parser.parse_args().out
    seconds, results = {}, []
    for seed in SEEDS:
        folder = out / f"seed-{seed}"
        if not (folder / "scores" / "preference" / "dpo" / "results.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            started = time.monotonic()
            try:
                run_steps(folder, seed=seed)
            except FedLLMError as error:
                raise SystemExit(f"seed {seed}: {error}") from error
            seconds[seed] = round(time.monotonic() - started)
        for kind, before, after, score in CLAIMS:
            compared = compare_results([folder / "scores" / kind / name for name in (before, after)])
            for item in compared["comparisons"]:
                if item["score"] != score:
                    continue
                print(f"seed {seed}: {item['verdict']}")
                results.append({"seed": seed, "before": before, "after": after, **{key: item[key] for key in KEPT}})
    commands = [command for _, command in steps(Path("quickstart"))]
    # One seed at a time, so what is shown is shown of the run at hand; that all seeds show it is the claim.
    held = all(OF_RUNS.get(item["outcome"], item["outcome"]) == "better" for item in results)
    print("every claim holds on every seed" if held else "a claim does not hold on some seed")
    print(write_result("quickstart_seeds", {"commands": commands, "wall_seconds": seconds, "results": results}))


if __name__ == "__main__":
    main()
