"""The secure sums of a run at its server: one attempt of each round, and what remains when it is over.

Between the rule of participation, which asks (`participation/secure_cohort.py`), and the aggregation, which reads the
sum (`aggregation/secure_sum.py`). Clients' identities are pinned at their first use and kept in the run folder
(`identities.json`), so that whoever compares them with what sites have finds a server that plays them. No torch.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from fedllm_data.errors import ResumeError
from fedllm_eval.policy.run_folder import IDENTITIES_FILE
from fedllm_train.privacy.secure_sum.fixed_point import SumSpec
from fedllm_train.privacy.secure_sum.server_side import SumFailed, SumServer
from fedllm_train.run_files.run_writing import write_json

__all__ = ["RoundSums"]


@dataclass
class RoundSums:
    """The sums of all rounds, one at a time."""

    spec: SumSpec
    run_key: str
    folder: Path
    """The run folder."""
    server: SumServer | None = field(default=None, init=False)
    """The attempt under way."""
    size: int = field(default=0, init=False)
    """Numbers of a vector of this round."""
    total: npt.NDArray[Any] | None = field(default=None, init=False)
    """The sum, once it was opened."""
    contributors: frozenset[str] = field(default=frozenset(), init=False)
    """Whose vectors are in it."""
    reason: str | None = field(default=None, init=False)
    """Why there is none."""
    exchanged_down: int = field(default=0, init=False)
    """Bytes of the exchanges beside the broadcast and the vectors."""
    exchanged_up: int = field(default=0, init=False)
    _identities: dict[str, str] = field(default_factory=dict, init=False)
    _kept: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Read the identities that were pinned before a stop.

        Raises:
            ResumeError: if they were damaged.
        """
        path = self.folder / IDENTITIES_FILE
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["run_key"] == self.run_key:  # of another start of the run, whose clients had others
                self._identities = dict(content["clients"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResumeError(
                f"{path} was damaged on disk ({type(error).__name__}), and the clients' identities are pinned in it; "
                "bring it back, or start afresh in another output_dir"
            ) from None
        self._kept = len(self._identities)

    def begin(self, step: int, size: int) -> None:
        """Begin a round with nothing.

        Args:
            step: the round's index.
            size: numbers of a vector.
        """
        self.server = SumServer(self.spec, self.run_key, step, self._identities)
        self.size, self.total, self.contributors, self.reason = size, None, frozenset(), None
        self.exchanged_down = self.exchanged_up = 0

    def pinned(self) -> None:
        """Write the identities down, where new ones came."""
        if len(self._identities) > self._kept:
            clients = dict(sorted(self._identities.items()))
            write_json(self.folder / IDENTITIES_FILE, {"run_key": self.run_key, "clients": clients})
            self._kept = len(self._identities)

    def goes_on(self, left: Sequence[str]) -> bool:
        """Return whether enough clients are left; if not, the round ends with that reason."""
        assert self.server is not None, "the round was begun"
        self.reason = self.server.problem(left)
        return self.reason is None

    def open(self) -> None:
        """Take the masks off, or say why that cannot be done; forget the attempt."""
        assert self.server is not None, "the round was begun"
        server, self.server = self.server, None
        if self.reason is not None:
            return
        try:
            self.total = server.total()
        except SumFailed as error:
            self.reason = str(error)
        else:
            self.contributors = frozenset(server.arrived)
