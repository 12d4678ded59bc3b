"""What the server knows of one site: the jobs it has, the request under way, how long it fails; and the options."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from fedllm_train.engines.remote.messages import ProfileJob, ScoreJob, VisitJob, Waiting

__all__ = ["AT_A_SITE", "Asked", "RemoteOptions", "Seat", "with_bodies"]

AT_A_SITE = 8
"""Jobs that a site has at once."""
_LONGEST_PAUSE = 30.0
"""Seconds before a site that could do nothing is asked again, at most."""
_MOST_BYTES = 1 << 30
"""Of bodies in one request, unless a single one is longer."""


@dataclass(frozen=True, kw_only=True)
class RemoteOptions:
    """How a server deals with sites; times are seconds that it waits."""

    min_sites: int | None = None
    """Begin when so many are ready; by default all must be."""
    scores_at_end: bool = True
    """Whether the finished adapter and the start are scored on the sites' held-out splits."""

    deadline: float | None = None
    """For the answer to a task, from when it is handed out; None as long as its site can be reached."""
    unreachable: float = 600.0
    """For a site that cannot be reached, before its tasks are lost."""
    join: float = 600.0
    """For sites to get ready before the first round."""
    approval: float = 86_400.0
    """For people at the sites to let the run begin, where their policy asks for that."""
    poll: float = 20.0
    """A request waits at the site for so long when nothing is ready."""
    request: float = 40.0
    """For the answer to one request, beyond what it waits at the site and what its body and the answer's may take."""
    slowest: float = 500_000.0
    """Bytes a second of the slowest line that is not given up."""
    grace: float = 10.0
    """Beyond all that, before a request is given up whatever the line says."""
    retry: float = 1.0
    """Before a site that could not be reached is asked again; doubled each time, up to 30."""


@dataclass
class Asked:
    """A job that was handed to a site."""

    job: VisitJob | ScoreJob | ProfileJob
    body: bytes
    given: float
    is_there: bool = False
    """Whether the site has it."""


@dataclass
class Seat:
    """What the server knows of one site."""

    name: str
    state: str = "new"
    """new, ready or refused."""
    reason: str = ""
    ready_by: float = 0.0
    """When the first round begins without it."""
    needs_approval: bool = False
    """Whether its people have not yet let the run begin."""
    asked: dict[str, Asked] = field(default_factory=dict)
    held: deque[tuple[str, Asked]] = field(default_factory=deque)
    """Jobs that wait until the site has done some of those it has."""
    under_way: str | None = None
    """Key of the request that it has not answered yet."""
    sent: list[str] = field(default_factory=list)
    """Keys of the jobs in that request; none in a `begin`."""
    expires: float = 0.0
    """When that request is given up, whatever the line says."""
    failing_since: float | None = None
    pause: float = 0.0
    next_try: float = 0.0

    def answered(self) -> None:
        """Note that the site did what it was asked."""
        self.failing_since, self.pause = None, 0.0

    def failed(self, options: RemoteOptions, reason: str) -> None:
        """Note that the site could not be asked; it is asked again a little later."""
        now = time.monotonic()
        self.reason = reason
        self.failing_since = now if self.failing_since is None else self.failing_since
        self._pause(options, now)
        self.has_nothing()  # what a dead worker had may be gone

    def has_nothing(self) -> None:
        """Note that the site has none of the jobs that it was handed."""
        for asked in self.asked.values():
            asked.is_there = False

    def waits(self, answer: Waiting, options: RemoteOptions, began: float) -> bool:
        """Note that the site cannot begin yet; people get the time that they need.

        Args:
            answer: what it said.
            options: how long to wait.
            began: when the run first asked; by the monotonic clock.

        Returns:
            Whether it is now people that the run waits for, and was not before.
        """
        now = time.monotonic()
        is_news = answer.needs_approval and not self.needs_approval
        if answer.needs_approval != self.needs_approval:
            self.needs_approval, self.pause = answer.needs_approval, 0.0
            self.ready_by = now + options.join
        self._pause(options, now)
        if answer.needs_approval and now < began + options.approval:
            self.ready_by = self.next_try + options.join
        return is_news

    def _pause(self, options: RemoteOptions, now: float) -> None:
        self.pause = min(_LONGEST_PAUSE, max(options.retry, 2 * self.pause))
        self.next_try = now + self.pause


def with_bodies(fresh: Mapping[str, Asked]) -> tuple[dict[str, Asked], list[bytes], list[int]]:
    """Return as many jobs as one request carries, the different bodies that they have, and which body each has.

    Args:
        fresh: jobs by key.

    >>> jobs = {key: Asked(None, body, 0.0) for key, body in (("a", b"x"), ("b", b"x"), ("c", b"y"))}
    >>> some, bodies, body_of = with_bodies(jobs)
    >>> list(some), bodies, body_of
    (['a', 'b', 'c'], [b'x', b'y'], [0, 0, 1])
    """
    some: dict[str, Asked] = {}
    places: dict[bytes, int] = {}
    body_of: list[int] = []
    size = 0
    for key, asked in fresh.items():
        if asked.body not in places:
            if some and size + len(asked.body) > _MOST_BYTES:
                break
            places[asked.body] = len(places)
            size += len(asked.body)
        some[key] = asked
        body_of.append(places[asked.body])
    return some, list(places), body_of
