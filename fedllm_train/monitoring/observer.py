"""The contract of what watches a run: an observer sees replies and steps and changes nothing.

What all observers report about a step makes its record, a line of `rounds.jsonl`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedllm_train.adapters.arithmetic import Parts
from fedllm_train.engines.engine import Reply, Task
from fedllm_train.messages.packed_message import PackedMessage

__all__ = ["Callback", "Observer", "Record", "Step"]

Record = dict[str, Any]
"""One server step, JSON-ready."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A server step that was made, or was not because there were too few updates."""

    index: int
    before: Parts
    """The server's state that it began from."""
    after: Parts
    is_made: bool
    """Whether there were enough updates; else `after` is `before`."""
    monitor: Mapping[str, Any] = field(default_factory=dict)
    """What early stopping and the keeping of the best adapter remember."""


class Observer:
    """Watches a run; a subclass defines only the methods it needs."""

    def sent(self, task: Task, packed: PackedMessage) -> None:
        """Look at a task of a step; `packed` is its message with what is known of it."""

    def saw(self, reply: Reply, problem: str | None) -> None:
        """Look at a reply; `problem` says why it could not be used, or is None."""

    def stepped(self, step: Step) -> Record:
        """Look at a server step, and return what the record says about it."""
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
