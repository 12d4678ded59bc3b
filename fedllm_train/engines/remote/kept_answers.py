"""What a worker found, on its disk until the server has it: a job that is asked again costs no work and moves no bit.

A file holds one result, header and body, and ends in its own digest; one that was damaged is made again.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from fedllm_train.engines.remote.messages import Result
from fedllm_train.run_files.sealed import read_sealed, write_sealed

__all__ = ["KeptAnswers"]


class KeptAnswers:
    """Results of one run by the key of their job."""

    def __init__(self, folder: Path) -> None:
        """Use a folder that belongs to one run."""
        self._folder = folder

    def keep(self, result: Result, body: bytes) -> None:
        """Put a result on the disk, whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        header = json.dumps(result.header()).encode()
        write_sealed(self._path(result.key), len(header).to_bytes(8, "big") + header + body)

    def get(self, key: str) -> tuple[Result, bytes] | None:
        """Return a result with its body; None where there is none, or it was damaged."""
        path = self._path(key)
        content = read_sealed(path) if path.exists() else None
        if content is None:
            return None
        end = 8 + int.from_bytes(content[:8], "big")
        return Result.model_validate_json(content[8:end]), content[end:]

    def has(self, key: str) -> bool:
        """Return whether a result is there; one that was damaged is found out when it is read."""
        return self._path(key).exists()

    def forget(self, keys: Iterable[str]) -> None:
        """Remove results that have arrived."""
        for key in keys:
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.answer"
