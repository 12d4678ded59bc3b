"""The folder of a case: which case it holds, and which of its steps are done. Imports no torch."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from fedllm_data.errors import ConfigError
from fedllm_data.in_place import write_file
from fedllm_train.scenarios.scenario_steps import steps
from fedllm_train.scenarios.template import Scenario

__all__ = ["MARKER", "check_folder", "remember_steps"]

MARKER = ".scenario"


def check_folder(scenario: Scenario, out: Path, *, seed: int) -> list[str]:
    """Return the names of the steps that are done in a folder; none in a new one.

    Args:
        scenario: the case.
        out: its folder.
        seed: of corpus and runs.

    Raises:
        ConfigError: if the folder holds something else, or another version of the case.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file; choose another --out")
    if not (out / MARKER).exists():
        if out.is_dir() and any(out.iterdir()):
            raise ConfigError(f"{out} exists and holds no scenario; choose another --out")
        return []
    try:
        record = json.loads((out / MARKER).read_text(encoding="utf-8"))
        name, case, done = record["name"], record["case"], list(record["done"])
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{out / MARKER} is damaged; choose another --out") from None
    if case != _digest(scenario, out, seed):
        raise ConfigError(
            f"{out} holds scenario {name} with another template, seed or path; choose another --out, or the same "
            "scenario, seed and path to go on"
        )
    return done


def remember_steps(scenario: Scenario, out: Path, done: Sequence[str], *, seed: int) -> None:
    """Write down which steps are done.

    Args:
        scenario: the case.
        out: its folder.
        done: names of steps.
        seed: of corpus and runs.
    """
    record = {"name": scenario.name, "case": _digest(scenario, out, seed), "done": list(done)}
    write_file(out / MARKER, (json.dumps(record, indent=2) + "\n").encode())


def _digest(scenario: Scenario, out: Path, seed: int) -> str:
    """The digest of all commands, so that a folder of other commands is known as another case."""
    return hashlib.sha256("\n".join(each.command for each in steps(scenario, out, seed=seed)).encode()).hexdigest()
