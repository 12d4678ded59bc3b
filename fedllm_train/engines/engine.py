"""Where clients run: the protocol between the loop in `rounds.py` and whatever trains a client.

An engine takes the tasks of a round and yields one result per task, in any order and at any time. `InProcessEngine`
runs them one after the other on the resident trainer; engines with several processes implement the same protocol.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

__all__ = ["ClientTask", "ClientUpdate", "Engine", "InProcessEngine", "LeftOut", "in_client_order"]


@dataclass(frozen=True, kw_only=True)
class ClientTask:
    """What the server asks of one client in one round."""

    round_index: int
    client_id: str
    message: bytes
    """What the server sends, encoded by `messages/codec.py`."""
    learning_rate: float
    seed: int
    personal: bool = False
    """Whether the rounds are over and the client makes the adapter it keeps; that is then what comes back."""


@dataclass(frozen=True, kw_only=True)
class ClientUpdate:
    """What a client returns: what its strategy sends back, and what it says about it."""

    client_id: str
    message: bytes
    """What is sent back, encoded by `messages/codec.py`. An adapter goes as whole values, not differences: a float32
    difference would lose the last bits, and one client's FedAvg would no longer be its training to the bit."""
    num_rows: int
    num_dropped_rows: int
    """Rows too long to hold a trained token within `max_length`; they are in nobody's loss."""
    num_steps: int
    metrics: dict[str, float]
    """Means over the local steps, under TRL's names (`train_loss`, `rewards/accuracies`, ...)."""
    seconds: float
    num_unrendered_rows: int = 0
    """Rows that the chat template cannot render; they are in nobody's loss either."""


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A client of the cohort that could not contribute, and why; it is named in the round record."""

    client_id: str
    reason: str


class Engine(Protocol):
    """Runs the tasks of a round somewhere."""

    def run(self, tasks: Iterable[ClientTask]) -> Iterator[ClientUpdate | LeftOut]:
        """Yield one result per task, in any order; tasks are drawn when they can start, since each holds a message."""
        ...


class InProcessEngine:
    """Runs clients one after the other in this process."""

    def __init__(self, train_client: Callable[[ClientTask], ClientUpdate | LeftOut]) -> None:
        """Take the function that trains one client."""
        self._train_client = train_client

    def run(self, tasks: Iterable[ClientTask]) -> Iterator[ClientUpdate | LeftOut]:
        """Yield the results in the order of the tasks."""
        for task in tasks:
            yield self._train_client(task)


def in_client_order(
    results: Iterable[ClientUpdate | LeftOut], cohort: Sequence[str], spool: Path
) -> Iterator[ClientUpdate | LeftOut]:
    """Yield results in the order of the cohort; the message of one that comes early waits on disk, not in memory.

    Args:
        results: one per client of the cohort, in order of arrival.
        cohort: client ids in the order wanted (sorted).
        spool: an existing folder for what waits; left empty.
    """
    position = {client_id: index for index, client_id in enumerate(cohort)}
    waiting: dict[int, ClientUpdate | LeftOut] = {}
    due = 0
    for result in results:
        index = position[result.client_id]
        if index != due:
            waiting[index] = _put_down(result, spool / f"{index}.message")
            continue
        yield result
        due += 1
        while due in waiting:
            yield _pick_up(waiting.pop(due), spool / f"{due}.message")
            due += 1
    assert not waiting, "an engine yields one result per task"


def _put_down(result: ClientUpdate | LeftOut, path: Path) -> ClientUpdate | LeftOut:
    if isinstance(result, LeftOut):
        return result
    path.write_bytes(result.message)
    return ClientUpdate(**{**result.__dict__, "message": b""})


def _pick_up(result: ClientUpdate | LeftOut, path: Path) -> ClientUpdate | LeftOut:
    if isinstance(result, LeftOut):
        return result
    message = path.read_bytes()
    path.unlink()
    return ClientUpdate(**{**result.__dict__, "message": message})
