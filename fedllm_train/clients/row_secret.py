"""What a client's private steps draw from, and how many it has made: both on the client's own disk, for one run.

A client's folder in `client_memory/` gets `row_secret`, 256 bits from the system, readable by its owner alone, and
`row_steps.jsonl`, a line for every fit that was begun. A fit's draws are named by a digest of all that it depends on:
the run, the task, what was received and remembered, where it starts. So a visit that is made again after a stop draws
the same and costs nothing, while a server that asks for the same step with anything else gets other noise, and the
client counts more steps. Once they would be more than the run's epsilon was accounted for, it makes none.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import FedLLMError, ResumeError
from fedllm_data.in_place import write_file
from fedllm_train.adapters.arithmetic import Adapter, Parts, adapter_sha256
from fedllm_train.clients.client_memory import client_folder_name
from fedllm_train.privacy.secret import client_secret, secret_normals, secret_seed, secret_uniforms

__all__ = ["FitDraws", "RowSecret", "StepsSpent", "fit_key", "parts_digest"]

_STEPS_FILE = "row_steps.jsonl"


class StepsSpent(FedLLMError):
    """A client has made all the private steps that its run's epsilon was accounted for."""


class FitDraws:
    """Coins and noise of one fit."""

    def __init__(self, secret: bytes, key: str) -> None:
        """Take the client's secret and the fit's name."""
        self._secret, self._key = secret, key

    @property
    def seed(self) -> int:
        """A seed for dropout, of 31 bits of the secret, as torch and NumPy take it."""
        return secret_seed(self._secret, f"row dropout {self._key}") % 2**31

    def coins(self, step: int, num_rows: int) -> npt.NDArray[np.float64]:
        """Return uniform numbers in [0, 1), one a row."""
        return secret_uniforms(self._secret, f"row coins {self._key}", round_index=step, size=num_rows)

    def normals(self, step: int, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return independent standard normal numbers."""
        return secret_normals(self._secret, f"row noise {self._key}", round_index=step, name=name, shape=shape)


class RowSecret:
    """The secret of one client in one run, and its count of steps."""

    def __init__(self, folder: Path, client_id: str) -> None:
        """Read or draw the secret.

        Args:
            folder: `client_memory/<run>` of the client's host.
            client_id: the client.

        Raises:
            ResumeError: if the client made private steps and its secret, or its count, was lost or damaged.
        """
        own = folder / client_folder_name(client_id)
        own.mkdir(parents=True, exist_ok=True)
        self._file, self._client_id = own / _STEPS_FILE, client_id
        self._spent = self._read()
        self._secret = client_secret(own, is_begun=bool(self._spent))

    def draws(self, key: str, *, num_steps: int, most_steps: int) -> FitDraws:
        """Return the draws of a fit, once its steps are counted on disk.

        Args:
            key: the fit's name, from `fit_key`.
            num_steps: steps of the fit.
            most_steps: of the client in the whole run.

        Raises:
            StepsSpent: if there would be too many.
        """
        if key not in self._spent:
            made = sum(self._spent.values())
            if made + num_steps > most_steps:
                raise StepsSpent(
                    f"it has made {made} private steps, and {num_steps} more would be beyond the {most_steps} that "
                    "the run's epsilon was accounted for"
                )
            self._spent[key] = num_steps
            write_file(self._file, "".join(f"{json.dumps([k, n])}\n" for k, n in self._spent.items()), mode=0o600)
        return FitDraws(self._secret, key)

    def _read(self) -> dict[str, int]:
        if not self._file.exists():
            return {}
        try:
            lines = [json.loads(line) for line in self._file.read_text(encoding="ascii").splitlines()]
            return {str(key): int(steps) for key, steps in lines}
        except (OSError, ValueError, TypeError) as error:
            raise ResumeError(
                f"{self._file}, which counts the private steps of client {self._client_id!r}, was damaged on disk; "
                "start afresh in another output_dir"
            ) from error


def fit_key(**facts: Any) -> str:
    """Return the name of a fit: a digest of everything that its course depends on, beside the client's rows.

    >>> fit_key(step=1) == fit_key(step=1), fit_key(step=1) == fit_key(step=2)
    (True, False)
    """
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def parts_digest(parts: Parts | Mapping[str, Adapter]) -> dict[str, str]:
    """Return the digests of adapters, by part."""
    return {name: adapter_sha256(dict(part)) for name, part in parts.items()}
