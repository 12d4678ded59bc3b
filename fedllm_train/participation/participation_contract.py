"""Who takes part in a server step: the contract between the loop in `rounds.py` and a rule of participation.

`synchronous.py` waits for a whole cohort, `deadline.py` for the first of more clients, `buffered.py` for any few
updates; `turnout.py` makes the one that the settings name. A rule decides whom to ask and which of their replies make
the step, and in which order they are seen; it reads no message. Imports no torch.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from fedllm_train.engines.engine import Engine, Reply, Task

__all__ = ["Participation", "TurnTaking", "kept_back"]


class TurnTaking(Protocol):
    """Who may not come yet (`privacy/turns.py`)."""

    def resting(self, step: int) -> Collection[str]:
        """Return the clients that may not be asked in a step."""
        ...


class Participation(Protocol):
    """A rule of participation."""

    def replies(self, engine: Engine, step: int, ask: Callable[[str], Task]) -> Iterator[Reply]:
        """Ask clients, and yield the replies that make a server step.

        Args:
            engine: carries the tasks.
            step: the server step, from 0.
            ask: makes the task of a client; called when the engine can start it.
        """
        ...


def kept_back(turns: TurnTaking | None, step: int) -> set[str]:
    """Return the clients that may not be asked in a step; nobody without a rule of turns.

    >>> kept_back(None, 0)
    set()
    """
    return set() if turns is None else {*turns.resting(step)}
