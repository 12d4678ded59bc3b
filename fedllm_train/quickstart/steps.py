"""The whole way in a few minutes: from nothing to a scored, federated DPO model, by the commands a user would type.

    python -m fedllm_train.quickstart --out quickstart

Builds the generated corpus, reports on it, trains a small base model on its public split, tunes it federatedly by SFT
and then by DPO, scores all three on clients' held-out rows and on clients never trained on, and writes
`summary.html`. No hub, no accelerator, no account.
"""

import argparse
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from fedllm_data.errors import ConfigError, FedLLMError
from fedllm_data.reporting.language_flag import add_language
from fedllm_data.terminal import quiet_libraries
from fedllm_train.quickstart.commands import steps

__all__ = ["main", "run_steps"]

MARKER = ".quickstart"
"""A file that says the folder is the quickstart's own and may be made again."""


def run_steps(out: Path, *, seed: int = 0) -> None:
    """Run all steps into a folder of the quickstart's own.

    Raises:
        ConfigError: if the folder holds something else, or a step fails.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MARKER).exists())):
        raise ConfigError(f"{out} exists and was not made by the quickstart; choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARKER).touch()
    programs = _programs()
    plan = steps(out, seed=seed)
    for number, (purpose, command) in enumerate(plan, start=1):
        print(f"\n[{number}/{len(plan)}] {purpose}\n$ {command}", flush=True)
        started = time.monotonic()
        program, *arguments = shlex.split(command)
        if programs[program](arguments) != 0:
            raise ConfigError(f"step {number} of the quickstart failed; the command above can be run on its own")
        print(f"({time.monotonic() - started:.0f} s)", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the quickstart and say where everything is."""
    parser = argparse.ArgumentParser(prog="python -m fedllm_train.quickstart", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("quickstart"))
    parser.add_argument("--seed", type=int, default=0)
    add_language(parser)
    arguments = parser.parse_args(argv)
    quiet_libraries()
    warnings.filterwarnings("ignore", category=FutureWarning)
    started = time.monotonic()
    try:
        run_steps(arguments.out, seed=arguments.seed)
        from fedllm_train.quickstart.summary import print_table, write_summary

        page = write_summary(arguments.out, arguments.language)
        print_table(arguments.out)
    except FedLLMError as error:
        print(f"quickstart: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"\nDone in {time.monotonic() - started:.0f} s. Open {page}; everything it shows lies beside it:")
    for name, what in (
        ("fed-synth, fed-synth-pa", "the datasets, laid out as on the Hub, each with its card"),
        ("report/report.html", "how different the clients are"),
        ("base", "the base model"),
        ("runs/sft, runs/dpo", "the federated runs: adapter, settings, one line a round, card"),
        ("scores", "scores per client"),
        ("decision/decision.html", "what was gained, for whom, at what cost, and what to do"),
    ):
        print(f"  {arguments.out}/{name:28} {what}")
    return 0


def _programs() -> dict[str, Callable[[list[str]], int]]:
    import fedllm_data.cli
    import fedllm_eval.cli
    import fedllm_train.cli

    return {
        "fedllm-data": fedllm_data.cli.main,
        "fedllm-train": fedllm_train.cli.main,
        "fedllm-eval": fedllm_eval.cli.main,
    }
