"""What looks on while a run goes: the contract. An observer sees replies and steps and changes nothing.

What observers say of a step stands together in its record, a line of `rounds.jsonl`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedllm_train.adapters.arithmetic import Parts
from fedllm_train.engines.engine import Reply

__all__ = ["Callback", "Observer", "Record", "Step"]

Record = dict[str, Any]
"""One server step, JSON-ready."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A server step that was made, or was not for want of updates."""

    index: int
    before: Parts
    """The server's state that it began from."""
    after: Parts
    is_made: bool
    """Whether there were enough updates; else `after` is `before`."""
    monitor: Mapping[str, Any] = field(default_factory=dict)
    """What early stopping and the keeping of the best adapter remember."""


class Observer:
    """One that looks on; a kind that is not interested in something leaves the method out."""

    def saw(self, reply: Reply, problem: str | None) -> None:
        """Look at a reply; `problem` says why it could not be used, if it could not."""

    def stepped(self, step: Step) -> Record:
        """Look at a server step, and return what the record says of it."""
        return {}

    def recorded(self, record: Record) -> None:
        """Look at a step's whole record, once it is on disk."""


class Callback(Observer):
    """Calls a function with each record that is on disk: a tracker, a progress bar, a caller's own."""

    def __init__(self, function: Callable[[Record], None]) -> None:
        """Take the function."""
        self._function = function

    def recorded(self, record: Record) -> None:
        """Call it."""
        self._function(record)
