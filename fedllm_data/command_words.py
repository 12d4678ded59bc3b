"""What the subcommands of `fedllm-data` share in what they print: counts in words, and the text of a dry run."""

import argparse
from typing import Any

from fedllm_data.command_line.dry_run import DryRun, folder_to_write

__all__ = ["counted", "dry_run_text"]


def dry_run_text(
    arguments: argparse.Namespace, does: str, reads: list[str], settings: dict[str, Any], holds: str | None = None
) -> str:
    """Return what a command would do that makes something at `--out`.

    Args:
        arguments: of the command.
        does: what it does, in one sentence without its end.
        reads: what it would read.
        settings: what was decided; empty ones are left out.
        holds: what `--out` would hold; by default a client repo.

    >>> from pathlib import Path
    >>> told = dry_run_text(argparse.Namespace(out=Path("no/such"), seed=3), "measure", ["repo"], {}, "a report")
    >>> print(told)
    dry run: measure
      reads   repo
      writes  no/such: a report
      seed    3
    nothing was written
    """
    if holds is None:
        report = "" if arguments.no_report else ", with its heterogeneity report and card"
        holds = f"a client repo (data/, clients/, build.json, rejected.jsonl){report}"
    if "seed" in vars(arguments):
        settings = {**settings, "seed": arguments.seed}
    shown = {
        name: ", ".join(f"{key}={each}" for key, each in value.items()) if isinstance(value, dict) else value
        for name, value in settings.items()
        if value not in (None, {}, "")
    }
    writes = [folder_to_write(arguments.out, holds)]
    if (salt := getattr(arguments, "salt_file", None)) is not None and not salt.exists():
        writes.append(f"{salt}: a new salt, to be kept")
    plan = DryRun(does=does, reads=reads, writes=writes, settings=shown)
    return plan.text(as_json=getattr(arguments, "json", False))


def counted(count: int, noun: str) -> str:
    """Return a number and what is counted.

    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
