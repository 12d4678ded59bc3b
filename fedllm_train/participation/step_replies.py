"""The replies that make one server step, gathered as they arrive and seen in the order of the client ids.

Sums do not depend on the order of arrival then (design rule 3); messages wait on disk. Imports no torch.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from fedllm_train.engines.engine import Reply, Task
from fedllm_train.engines.shelf import NOTHING, Shelf
from fedllm_train.engines.simulated import SimulatedEngine

__all__ = ["StepReplies", "give_up_stale"]


class StepReplies:
    """Replies in the order in which they came, their messages put down."""

    def __init__(self, spool: Path | None = None) -> None:
        """Begin with none; `spool` is an existing folder for their messages, None keeps them in memory."""
        self._shelf = Shelf(spool, name="step")
        self._held: list[tuple[Reply, int]] = []

    def add(self, reply: Reply) -> None:
        """Take a reply."""
        number = NOTHING if reply.message is None else self._shelf.put(reply.message)
        self._held.append((replace(reply, message=None), number))

    def add_all(self, replies: Iterable[Reply]) -> None:
        """Take several."""
        for reply in replies:
            self.add(reply)

    def in_client_order(self) -> Iterator[Reply]:
        """Yield all, sorted by client id; a client's own by the step they were asked for."""
        for reply, number in sorted(self._held, key=lambda item: (item[0].client_id, item[0].step)):
            yield reply if number == NOTHING else replace(reply, message=self._shelf.pick_up(number))
        self._held = []


def give_up_stale(engine: SimulatedEngine, step: int, max_staleness: int | None) -> list[Reply]:
    """Give up the clients whose updates would be too old for this step or any later one.

    Args:
        engine: what they are under way in.
        step: the step.
        max_staleness: how many steps old an update may be; None for any.
    """
    if max_staleness is None:
        return []

    def is_too_old(task: Task) -> bool:
        return step - task.step > max_staleness

    return engine.stop(f"its update would be over {max_staleness} steps old (max_staleness)", which=is_too_old)
