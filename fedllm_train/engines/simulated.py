"""A simulated clock around any engine: its replies come in the order in which they would arrive.

The engine within makes the visits, one after the other or side by side, and nothing sleeps: when a client's message
arrives, and whether it does, follows from its machine (`participation/clock.py`). So the hours of a run are the same
whatever it was simulated on, and a resumed run goes through the same hours again.

A visit is only made when its reply could be the next to arrive: until then it is known how long it takes at least.
Where a rule stops waiting (a deadline, the first few to arrive), visits that could not have been in time are not made,
unless a seat is idle. A client that is lost on the way is visited, since how far it came depends on the length of its
message; its reply says why there is no message, and how much was sent. Imports no torch.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from fedllm_train.engines.engine import Engine, OnClock, Reply, Task, replies_of
from fedllm_train.engines.shelf import NOTHING, Shelf
from fedllm_train.participation.clock import Clock, TimedVisit

__all__ = ["SimulatedEngine", "UnderWay"]

_DOING = {
    "waiting": "while it waited for its machine to be free",
    "downloading": "while it downloaded",
    "training": "while it trained",
    "uploading": "while it uploaded",
}


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """A client that was asked and has not replied."""

    client_id: str
    step: int
    """The server step it was asked for."""
    asked: float
    """When, in seconds of the run's clock."""
    num_steps: int | None = None
    """As in its task."""


@dataclass
class _Visit:
    """A visit under way."""

    task: Task
    """Without its message, which lies on the shelf."""
    timed: TimedVisit
    message: int
    """Where the task's message lies, until the visit is made; then the reply's."""
    reply: Reply | None = None
    """Without its message; None before the visit is made."""
    upload_bytes: int = 0

    def __post_init__(self) -> None:
        """Work out the earliest moment at which it can end."""
        self.at = self.timed.ending(0).at

    @property
    def order(self) -> tuple[float, str, int]:
        """What visits that end at one moment are ordered by."""
        return (self.at, self.task.client_id, self.task.step)


class SimulatedEngine:
    """Gives the replies of another engine in the order of a simulated clock."""

    def __init__(
        self, engine: Engine, clock: Clock, *, now: float = 0.0, num_seats: int = 1, spool: Path | None = None
    ) -> None:
        """Take the engine that makes the visits.

        Args:
            engine: carries tasks to clients; it must have nothing under way.
            clock: how long visits take.
            now: where the clock stands, in seconds.
            num_seats: how many visits the engine makes side by side; changes no reply.
            spool: an existing folder for messages that wait; None keeps them in memory.
        """
        self._engine, self.clock, self._num_seats = engine, clock, num_seats
        self._now = now
        self._shelf = Shelf(spool, name="clock")
        self._waiting: list[_Visit] = []
        """Not made yet."""
        self._made: list[tuple[tuple[float, str, int], _Visit]] = []
        """A heap: made, and not arrived yet."""
        self._passes_through = False

    @property
    def now(self) -> float:
        """Where the clock stands, in seconds since the run's start."""
        return self._now

    def submit(self, tasks: Iterable[Task]) -> None:
        """Ask clients, now or when their task says.

        What is no update (`Task.purpose`: it is asked for after the last round, or in a secure sum) takes
        no time on the clock: those replies are the ones that are taken next, until there are no more.
        """
        drawn = iter(tasks)
        if (first := next(drawn, None)) is None:
            return
        if first.purpose != "train":
            self._passes_through = True
            self._engine.submit(chain([first], drawn))
            return
        for task in chain([first], drawn):
            asked = self._now if task.asked is None else task.asked
            timed = self.clock.visit(
                task.client_id,
                task.step,
                asked=asked,
                download_bytes=len(task.message),
                num_steps=task.num_steps,
            )
            held = replace(task, message=b"", asked=asked)
            self._waiting.append(_Visit(task=held, timed=timed, message=self._shelf.put(task.message)))

    def take(self) -> Reply | None:
        """Return the next reply to arrive, or to be lost; None when nothing is under way. The clock moves there."""
        if self._passes_through:
            reply = self._engine.take()
            self._passes_through = reply is not None
            return reply
        return self.take_until(math.inf)

    def take_until(self, moment: float) -> Reply | None:
        """Return the next reply, if it comes by a moment; else None, and the clock stays where it was."""
        while True:
            bound = min(self._made[0][0][0] if self._made else math.inf, moment)
            if not any(each.at <= bound for each in self._waiting):
                break
            # Those that must be made come first; seats that would be empty take who is next.
            self._make(sorted(self._waiting, key=lambda each: each.order)[: self._num_seats])
        if not self._made or self._made[0][0][0] > moment:
            return None
        _, visit = heapq.heappop(self._made)
        self._now = max(self._now, visit.at)
        return self._arrived(visit)

    def wait_until(self, moment: float) -> None:
        """Move the clock to a moment that nothing under way ends before; it never goes back."""
        self._now = max(self._now, moment)

    def stop(self, reason: str, *, which: Callable[[Task], bool] = lambda task: True) -> list[Reply]:
        """Give clients under way up, now.

        Args:
            reason: why, as the end of a sentence about the client.
            which: whether to give a task's client up; by default all.

        Returns:
            A reply of each, of kind "late", in the order of client ids: what it was sent and had sent by now.
        """
        stopped = [each for each in self._waiting if which(each.task)]
        stopped += [each for _, each in self._made if which(each.task)]
        self._waiting = [each for each in self._waiting if not which(each.task)]
        self._made = [item for item in self._made if not which(item[1].task)]
        heapq.heapify(self._made)
        replies = []
        for visit in sorted(stopped, key=lambda each: (each.task.client_id, each.task.step)):
            if visit.message != NOTHING:
                self._shelf.drop(visit.message)
            replies.append(self._unfinished(visit, self._now, "late", reason))
        return replies

    def under_way(self) -> list[UnderWay]:
        """Return who was asked and has not replied, in the order of client ids."""
        tasks = [each.task for each in self._waiting] + [each.task for _, each in self._made]
        found = [
            UnderWay(
                client_id=task.client_id,
                step=task.step,
                asked=0.0 if task.asked is None else task.asked,
                num_steps=task.num_steps,
            )
            for task in tasks
        ]
        return sorted(found, key=lambda each: (each.client_id, each.step))

    def _make(self, visits: list[_Visit]) -> None:
        """Make some visits, and put their replies where they wait to arrive."""
        asked = {(each.task.client_id, each.task.step): each for each in visits}
        self._waiting = [each for each in self._waiting if (each.task.client_id, each.task.step) not in asked]
        self._engine.submit(self._tasks(visits))
        for reply in replies_of(self._engine):
            visit = asked[reply.client_id, reply.step]
            visit.message = NOTHING if reply.message is None else self._shelf.put(reply.message)
            visit.upload_bytes = 0 if reply.message is None or not self.clock.travels else len(reply.message)
            visit.reply = replace(reply, message=None)
            visit.at = visit.timed.ending(visit.upload_bytes).at
            heapq.heappush(self._made, (visit.order, visit))

    def _tasks(self, visits: list[_Visit]) -> Iterator[Task]:
        for visit in visits:
            yield replace(visit.task, message=self._shelf.pick_up(visit.message))

    def _arrived(self, visit: _Visit) -> Reply:
        """The reply of a visit at its end."""
        assert visit.reply is not None, "it was made"
        ending = visit.timed.ending(visit.upload_bytes)
        if ending.kind == "arrived":
            message = None if visit.message == NOTHING else self._shelf.pick_up(visit.message)
            seconds = ending.seconds
            on_clock = OnClock(
                arrived=ending.at,
                download_seconds=seconds.download,
                compute_seconds=seconds.compute,
                upload_seconds=seconds.upload,
            )
            return replace(visit.reply, message=message, clock=on_clock)
        if visit.message != NOTHING:
            self._shelf.drop(visit.message)
        why = "it was lost" if ending.kind == "lost" else "its machine's window closed"
        return self._unfinished(visit, ending.at, ending.kind, why)

    def _unfinished(self, visit: _Visit, at: float, kind: str, why: str) -> Reply:
        """The reply of a visit that ended before its message arrived."""
        spent = visit.timed.spent(at, visit.upload_bytes)
        seconds = visit.timed.seconds(visit.upload_bytes)
        passed = max(at - visit.timed.begins, 0.0)
        trained = max(passed - seconds.download, 0.0)
        on_clock = OnClock(
            arrived=at,
            download_seconds=min(passed, seconds.download),
            compute_seconds=min(trained, seconds.compute),
            upload_seconds=min(max(trained - seconds.compute, 0.0), seconds.upload),
        )
        measured = 0.0 if visit.reply is None else visit.reply.facts.get("seconds", 0.0)
        facts = {"num_steps": spent.num_steps, "seconds": measured if kind != "late" else 0.0}
        return Reply(
            step=visit.task.step,
            client_id=visit.task.client_id,
            reason=f"{why} {_DOING[spent.part]}",
            facts=facts,
            kind=kind,  # type: ignore[arg-type]
            clock=on_clock,
            download_bytes=spent.download_bytes,
            upload_bytes=spent.upload_bytes,
        )
