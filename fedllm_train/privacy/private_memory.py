"""What the server of a private run remembers from round to round beside the adapter; it is in every checkpoint.

Imports no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedllm_train.privacy.accounting import Guarantee
from fedllm_train.privacy.turns import Turns

__all__ = ["PrivateMemory", "private_memory"]


@dataclass(kw_only=True)
class PrivateMemory:
    """Changed by the aggregation of each round."""

    clip: float | None = None
    """The clip of the next round, where it adapts and has moved."""
    turns: Turns | None = None
    """Who gave an update and when, where that decides who may come."""

    def clip_of(self, guarantee: Guarantee) -> float:
        """Return the clip that is in force."""
        return guarantee.clip if self.clip is None else self.clip

    def as_record(self) -> dict[str, Any]:
        """Return it JSON-ready; empty where nothing need be remembered.

        >>> PrivateMemory().as_record(), PrivateMemory(clip=0.5).as_record()
        ({}, {'clip': 0.5})
        """
        record: dict[str, Any] = {} if self.clip is None else {"clip": self.clip}
        return record if self.turns is None else record | {"turns": self.turns.as_record()}


def private_memory(guarantee: Guarantee, record: Mapping[str, Any]) -> PrivateMemory:
    """Return what a run remembers when it begins or goes on.

    Args:
        guarantee: of the run.
        record: from `as_record`, as the checkpoint holds it; empty at the begin.
    """
    related = guarantee.related
    turns = None if related is None else Turns.from_record(related.rule, record.get("turns", {}))
    return PrivateMemory(clip=record.get("clip"), turns=turns)
