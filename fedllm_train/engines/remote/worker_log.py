"""The worker's own record of what it was asked: a line of JSON a request, on the organisation's disk."""

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

from fedllm_eval.texts import json_text

__all__ = ["WorkerLog"]


class WorkerLog:
    """Appends to `requests.jsonl`, which its owner alone may read."""

    def __init__(self, folder: Path) -> None:
        """Use the worker's folder."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path, self._lock = folder / "requests.jsonl", threading.Lock()

    def write(self, kind: str, run: str | None, bytes_in: int, bytes_out: int, reason: str | None) -> None:
        """Note one request and what came of it.

        Args:
            kind: of the request.
            run: the run's key, if it names one.
            bytes_in: length of the request's body.
            bytes_out: length of the answer's body: what left the organisation beside counts and scores.
            reason: why it was refused, failed or has to wait.
        """
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "kind": kind, "run": run, "bytes_in": bytes_in, "bytes_out": bytes_out}
        with self._lock, open(self._path, "a", encoding="utf-8", opener=_private) as file:
            file.write(json_text(line if reason is None else {**line, "reason": reason}) + "\n")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
