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
from fedllm_data.terminal import quiet_libraries

__all__ = ["main", "steps"]

MARKER = ".quickstart"
"""A file that says the folder is the quickstart's own and may be made anew."""

CLIENT = "--learning_rate {rate} --per_device_train_batch_size 8 --max_length 128 --activation_checkpointing False"
LORA = "--lora_r 16 --lora_alpha 32"
SFT = f"--num_rounds 12 --cohort_size 10 --local_steps 5 {CLIENT.format(rate='3e-3')} {LORA}"
SCORE = "--batch-size 64 --max-length 128"
DPO = f"--num_rounds 10 --cohort_size 10 --local_steps 5 {CLIENT.format(rate='5e-4')} --beta 0.1"


def steps(out: Path, *, seed: int = 0) -> list[tuple[str, str]]:
    """Return what the quickstart does, in order: what for, and the command.

    >>> steps(Path("quickstart"))[0]
    ('Build a corpus of people who differ', 'fedllm-data build fed-synth --seed 0 --out quickstart/fed-synth')
    """
    q = shlex.quote(str(out))
    policies = (("base", f"{q}/base"), ("sft", f"{q}/runs/sft"), ("dpo", f"{q}/runs/dpo"))
    datasets = (("loss", "fed-synth"), ("preference", "fed-synth-pa"))
    return [
        ("Build a corpus of people who differ", f"fedllm-data build fed-synth --seed {seed} --out {q}/fed-synth"),
        ("Build their preferences", f"fedllm-data build fed-synth-pa --seed {seed} --out {q}/fed-synth-pa"),
        ("Measure how different they are", f"fedllm-data report {q}/fed-synth --out {q}/report"),
        (
            "Train a small base model on the public split",
            f"fedllm-train tiny --data {q}/fed-synth --out {q}/base --seed {seed}",
        ),
        (
            "Tune it on all clients, federated: SFT",
            f"fedllm-train sft --data {q}/fed-synth --model {q}/base --output_dir {q}/runs/sft --seed {seed} {SFT}",
        ),
        (
            "Align it with their preferences, federated: DPO from the SFT adapter",
            f"fedllm-train dpo --data {q}/fed-synth-pa --model {q}/base --adapter {q}/runs/sft "
            f"--output_dir {q}/runs/dpo --seed {seed} {DPO}",
        ),
        *(
            (
                f"Score {name} on every client: {kind}",
                f"fedllm-eval run {policy} --data {q}/{dataset} --out {q}/scores/{kind}/{name} {SCORE}",
            )
            for kind, dataset in datasets
            for name, policy in policies
        ),
        ("Compare, client by client: loss", f"fedllm-eval compare {q}/scores/loss/base {q}/scores/loss/sft"),
        (
            "Compare, client by client: preferences",
            f"fedllm-eval compare {q}/scores/preference/sft {q}/scores/preference/dpo",
        ),
    ]


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
    arguments = parser.parse_args(argv)
    quiet_libraries()
    warnings.filterwarnings("ignore", category=FutureWarning)
    started = time.monotonic()
    try:
        run_steps(arguments.out, seed=arguments.seed)
        from fedllm_train.quickstart.summary import print_table, write_summary

        page = write_summary(arguments.out)
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
