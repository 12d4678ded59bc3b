"""The series of scores over releases: one JSON line a comparison, appended in one write and read back for the page."""

import fcntl
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_eval.texts import json_text

__all__ = ["append_history", "history_line", "read_history"]

FORMAT = "fedllm-eval-history/1"


def history_line(comparison: Mapping[str, Any], now: datetime | None = None) -> dict[str, Any]:
    """Return what a comparison adds to the series: every method's mean with its interval, score by score."""
    return {
        "format": FORMAT,
        "time": (now or datetime.now(UTC)).isoformat(timespec="seconds"),
        "dataset": comparison["dataset"],
        "baseline": comparison["baseline"]["label"],
        "means": comparison["means"],
        "gate": None if comparison.get("gate") is None else comparison["gate"]["verdict"],
        "passed": None if comparison.get("gate") is None else comparison["gate"]["passed"],
    }


def append_history(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line: whole or not at all, also where two processes append at once.

    Raises:
        ConfigError: if the file cannot be written, or its last line is not whole.
    """
    content = (json_text(line, allow_nan=False) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    raise ConfigError(f"the history {path} ends in half a line; remove that line, then compare again")
            try:
                os.write(file.fileno(), content)
                os.fsync(file.fileno())
            except OSError:
                os.truncate(file.fileno(), size)
                raise
    except OSError as error:
        raise ConfigError(f"the history {path} cannot be written: {error.strerror}; name another file") from error


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read the series, oldest first; a file that is not there yet is an empty series.

    Raises:
        ConfigError: if a line is not of this format.
    """
    if not path.exists():
        return []
    lines = []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the history {path} cannot be read; name the file that `compare --history` wrote"
        ) from error
    # Not splitlines(), which also cuts at U+2028 inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except json.JSONDecodeError:
            content = None
        if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content["means"], list):
            raise ConfigError(f"{path}, line {number} is no line of a history; remove it, or name another file")
        lines.append(content)
    return lines
