"""What a worker found, on its disk until the server has it: a job that is asked again costs no work and moves no bit.

A file holds one result, header and body, and ends in its own digest; one that was damaged is made again. A task says
how far back its run could go on from (`Task.oldest_step`): answers to what was asked up to there are removed.
"""

import json
from pathlib import Path

from fedllm_train.engines.remote.messages import Result
from fedllm_train.run_files.sealed import read_sealed, write_sealed

__all__ = ["KeptAnswers"]


class KeptAnswers:
    """Results of one run by the key of their job."""

    def __init__(self, folder: Path) -> None:
        """Use a folder that belongs to one run."""
        self._folder = folder
        self._given_up: dict[str, Result] = {}

    def give_up(self, result: Result) -> None:
        """Take why a job has no result, where the disk takes nothing: in memory, until the worker ends."""
        self._given_up[result.key] = result

    def keep(self, result: Result, body: bytes, *, step: int) -> None:
        """Put a result of some step on the disk, whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        header = json.dumps(result.header()).encode()
        content = len(header).to_bytes(8, "big") + header + body
        write_sealed(self._folder / f"{result.key}.{step:06d}.answer", content)

    def get(self, key: str) -> tuple[Result, bytes] | None:
        """Return a result with its body; None where there is none, or it was damaged."""
        if key in self._given_up:
            return self._given_up[key], b""
        path = self._path(key)
        content = None if path is None else read_sealed(path)
        if content is None:
            return None
        end = 8 + int.from_bytes(content[:8], "big")
        return Result.model_validate_json(content[8:end]), content[end:]

    def has(self, key: str) -> bool:
        """Return whether a result is there; one that was damaged is found out when it is read."""
        return key in self._given_up or self._path(key) is not None

    def forget_until(self, step: int) -> None:
        """Remove the results of a step and of those before it."""
        for path in self._folder.glob("*.answer"):
            if int(path.name.split(".")[1]) <= step:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path | None:
        return next(iter(self._folder.glob(f"{key}.*.answer")), None)
