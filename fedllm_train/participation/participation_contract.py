"""Who takes part in a server step: the contract between the loop in `rounds.py` and a rule of participation.

`synchronous.py` waits for a whole cohort, `deadline.py` for the first of more clients, `buffered.py` for any few
updates; `turnout.py` makes the one that the settings name. A rule decides whom to ask and which of their replies make
the step, and in which order they are seen; it reads no message. Imports no torch.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

from fedllm_train.engines.engine import Engine, Reply, Task

__all__ = ["Participation"]


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
