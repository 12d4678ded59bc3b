"""Every corpus whose upstream files are at hand: built, checked, and trained on by the command of its own card.

    python benchmarks/real_corpora.py --model DIR_OR_ID --source NAME=FILE_OR_DIR ... --out DIR

Builds NAME from FILE_OR_DIR with its preset and without filters, checks both, takes the training command out of the
card of the first, and runs it with the model and the folders given. Counts, reasons of rejection and the losses of the
rounds go into `results/real_corpora.json`. What is there already is kept: started again, the script goes on.
"""

import argparse
import json
import re
import shlex
import time
from pathlib import Path
from typing import Any

from machine import write_result

import fedllm_data.cli
import fedllm_train.cli
from fedllm_data.check import check_repo


def build(name: str, source: str, folder: Path, *flags: str) -> dict[str, Any]:
    """Build a corpus through the command, check it, and return the facts of its build.json."""
    if not (folder / "build.json").exists():
        words = ["build", name, "--source", source, "--out", str(folder), *flags]
        if fedllm_data.cli.main(words) != 0:
            raise SystemExit(f"fedllm-data {shlex.join(words)} failed")
    problems = check_repo(str(folder))
    if problems:
        raise SystemExit(f"{folder}: {problems[0]} (and {len(problems) - 1} more)")
    return json.loads((folder / "build.json").read_text())


def training_command(card: str, folder: Path, model: str, run: Path) -> list[str]:
    """Take the training command out of a card, with the folders and the model of this machine."""
    line = next(line for line in card.splitlines() if line.startswith("fedllm-train "))
    words = shlex.split(line)[1:]
    for flag, value in (("--data", str(folder)), ("--model", model), ("--out", str(run))):
        words[words.index(flag) + 1] = value
    return words


def counts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return what a build came to."""
    return {
        "num_clients": facts["clients"]["num_clients"],
        "num_rows": sum(split["num_rows"] for name, split in facts["splits"].items() if name != "public"),
        **{key: facts[key] for key in ("splits", "counts", "rejected_reasons", "languages", "filters")},
    }


def main() -> None:
    """Build and train what is not there yet, print a line each and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--source", action="append", required=True, metavar="NAME=FILE_OR_DIR")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--only", default="", help="a regular expression: train these alone; the result holds all")
    arguments = parser.parse_args()
    corpora: dict[str, Any] = {}
    for name, _, source in (text.partition("=") for text in arguments.source):
        folder, run = arguments.out / name, arguments.out / "runs" / name
        facts = build(name, source, folder)
        whole = build(name, source, arguments.out / f"{name}-unfiltered", "--unfiltered", "--no-report")
        words = training_command((folder / "README.md").read_text(), folder, arguments.model, run)
        if not (run / "adapter").exists() and re.search(arguments.only, name):
            print(f"$ fedllm-train {shlex.join(words)}", flush=True)
            started = time.monotonic()
            if fedllm_train.cli.main([*words, "--resume", "True"]) != 0:
                raise SystemExit(f"training on {name} failed")
            print(f"({time.monotonic() - started:.0f} s)", flush=True)
        rounds = run / "rounds.jsonl"
        records = [json.loads(line) for line in rounds.read_text().splitlines()] if rounds.exists() else []
        corpora[name] = {
            "preset": counts(facts),
            "unfiltered": counts(whole),
            "command": training_command_in_words(folder),
            "rounds": [
                {key: record[key] for key in ("round_index", "train_loss", "update_norm", "seconds")}
                for record in records
            ],
        }
        losses = ", ".join(f"{record['train_loss']:.3f}" for record in records)
        sizes = corpora[name]["preset"]
        print(f"{name}: {sizes['num_clients']} clients, {sizes['num_rows']} rows; training loss {losses}", flush=True)
    print(write_result("real_corpora", {"corpora": corpora}))


def training_command_in_words(folder: Path) -> str:
    """Return the card's command as it stands there."""
    card = (folder / "README.md").read_text()
    return next(line for line in card.splitlines() if line.startswith("fedllm-train "))


if __name__ == "__main__":
    main()
