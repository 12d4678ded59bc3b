"""Between the server and its clients: a question (`Task`), an answer (`Reply`), and an engine that carries both.

Both are plain data, so that any engine can carry them: this process, several, or other machines. An engine knows
nothing of methods, rounds or privacy. Tasks are drawn when they can start, since each holds a message; replies come in
any order. Imports no torch.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

__all__ = [
    "NO_STEP",
    "Engine",
    "Host",
    "InProcessEngine",
    "LeftOutKind",
    "OnClock",
    "Purpose",
    "Reply",
    "Task",
    "WaitingTasks",
    "replies_of",
]

Purpose = Literal["train", "personal", "keys", "shares", "unmask"]
"""What a client is asked for: an update for the server step; when the rounds are over, the adapter it keeps; or one of
the other exchanges of a secure sum (`privacy/secure_sum/exchanges.py`)."""

LeftOutKind = Literal["lost", "late", "closed", "refused"]
"""Why a client is left out: it dropped out; it came too late; its machine's window closed while it worked; or its
update could not be used, or it had none to give."""

NO_STEP = -1
"""Stands for "no step yet"."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A question to one client."""

    run: str
    """Key of the run; what a client keeps is kept under it."""
    step: int
    """The server step the answer is for, which is the round's index."""
    client_id: str
    purpose: Purpose = "train"
    seed: int
    """Of everything the client draws at this visit."""
    learning_rate: float
    kept_step: int = NO_STEP
    """The newest step whose memory counts: what the client kept after it belongs to an update that was refused or
    lost, and is dropped. `NO_STEP` where nothing counts."""
    oldest_step: int = NO_STEP
    """No later task of the run will name an earlier `kept_step`; what only those could need may go."""
    num_steps: int | None = None
    """Optimizer steps of the visit; None for as many as the run's rule of local work says."""
    asked: float | None = None
    """When it is asked, in seconds of the run's clock; None for now, or where there is no clock."""
    message: bytes
    """What the server sends, packed by the wire (`messages/wire.py`)."""


@dataclass(frozen=True, kw_only=True)
class OnClock:
    """When a visit was made, in seconds of the run's simulated clock (`engines/simulated.py`)."""

    arrived: float
    """When its message arrived, or when the client was lost or given up."""
    download_seconds: float
    compute_seconds: float
    upload_seconds: float


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The answer of one client."""

    step: int
    client_id: str
    message: bytes | None = None
    """What is sent back, packed by the wire; None where the client could not contribute."""
    reason: str | None = None
    """Why there is no message; None where there is one."""
    num_rows: int = 0
    """Rows trained on: the client's weight in a mean by rows."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """For the record, JSON-ready: rows left out, steps, seconds, and the means over the steps under TRL's names
    (`train_loss`, `rewards/accuracies`, ...). No server rule reads them. With a message there are `num_steps`,
    `seconds` and `train_loss` at least."""
    kind: LeftOutKind = "refused"
    """What the reason is about, where there is one."""
    clock: OnClock | None = None
    """Its times on the run's clock, if there is one."""
    download_bytes: int | None = None
    """What the client was sent; None for the whole message of its task."""
    upload_bytes: int | None = None
    """What it sent; None for the whole message, nothing where there is none."""


class Host(Protocol):
    """Where clients' rows are."""

    def visit(self, task: Task) -> Reply:
        """Do for one client what a task asks."""
        ...


class Engine(Protocol):
    """Carries tasks to the hosts of their clients, and replies back."""

    def submit(self, tasks: Iterable[Task]) -> None:
        """Take tasks; each is drawn when it can start."""
        ...

    def take(self) -> Reply | None:
        """Return the next reply, in any order, one for each task; None when nothing is under way."""
        ...


class WaitingTasks:
    """Tasks that were submitted and not drawn yet: each holds a message, so it is drawn when it can start."""

    def __init__(self) -> None:
        """Begin with none."""
        self._waiting: deque[Iterator[Task]] = deque()

    def add(self, tasks: Iterable[Task]) -> None:
        """Take tasks, to be drawn after those that wait already."""
        self._waiting.append(iter(tasks))

    def draw(self) -> Task | None:
        """Return the next task; None when all are drawn."""
        while self._waiting:
            if (task := next(self._waiting[0], None)) is not None:
                return task
            self._waiting.popleft()
        return None


class InProcessEngine:
    """Visits clients one after the other in this process, in the order of the tasks."""

    def __init__(self, host: Host) -> None:
        """Take the host of all clients."""
        self._host = host
        self._waiting = WaitingTasks()

    def submit(self, tasks: Iterable[Task]) -> None:
        """Take tasks; each is drawn when the one before it is done."""
        self._waiting.add(tasks)

    def take(self) -> Reply | None:
        """Make the next visit and return its reply; None when all are made."""
        task = self._waiting.draw()
        return None if task is None else self._host.visit(task)


def replies_of(engine: Engine) -> Iterator[Reply]:
    """Yield replies until nothing is under way."""
    while (reply := engine.take()) is not None:
        yield reply
