"""What the server's end of the wire remembers between two rounds; a part of every checkpoint.

Empty without packing and without error feedback at the server. With a chain of downloads (`downloads.py`) it holds the
newest decoded broadcast, the packed changes that some client could still be sent instead of it, and which clients have
which; with EF21 (`estimates.py`) the sum of what the server knows of its clients' changes. Its size does not grow with
the number of clients (design rule 5), but for EF21's list of those of its roster that it has heard. Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedllm_eval.policy.run_records import WireRecord
from fedllm_train.adapters.arithmetic import Parts

__all__ = ["WireState"]


@dataclass(frozen=True, kw_only=True)
class WireState:
    """The tensors and the numbers that the server's end goes on from."""

    tensors: Parts = field(default_factory=dict)
    """By part: `read N` the broadcast of step N as clients read it, `change N` a packed change, `estimate` EF21's."""
    chain_start: int = -1
    """The step before the oldest change; a client that has an earlier broadcast, or none since, needs the whole."""
    versions: Mapping[str, int] = field(default_factory=dict)
    """Client -> the step of the newest broadcast that it keeps, for those that could be sent changes."""
    under_way: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    """Client that has not replied -> the step it was asked for, and the version that its message follows; None if it
    was sent the whole."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """With EF21: client -> its weight in the mean, for those that were heard."""

    def as_record(self) -> WireRecord:
        """Return all but the tensors, JSON-ready.

        >>> WireState(versions={"ann": 3}).as_record()
        {'chain_start': -1, 'versions': {'ann': 3}, 'under_way': {}, 'weights': {}}
        """
        return {
            "chain_start": self.chain_start,
            "versions": dict(self.versions),
            "under_way": {client_id: list(each) for client_id, each in self.under_way.items()},
            "weights": dict(self.weights),
        }
