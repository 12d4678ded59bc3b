"""What a scenario reads of its own folder: the rounds of a run, the machines' sources, the decision."""

import json
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError

__all__ = ["read_decision", "read_rounds"]


def read_rounds(run: Path) -> list[dict[str, Any]]:
    """Return the rounds of a finished run.

    Raises:
        ConfigError: if there are none.
    """
    file = run / "rounds.jsonl"
    if not file.exists():
        raise ConfigError(f"{file} is not there; run the scenario again into another --out")
    rounds = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    if not rounds:
        raise ConfigError(f"{file} is empty; run the scenario again into another --out")
    return rounds


def read_decision(out: Path) -> dict[str, Any]:
    """Return `decision.json` of a case."""
    record: dict[str, Any] = json.loads((out / "decision" / "decision.json").read_text(encoding="utf-8"))
    return record
