"""`RemoteEngine`: an engine whose clients are at other organisations, over any line.

At most one request is under way to a site, with all that it is asked: a pipe that carries one message at a time need
not queue. A request waits at the site for a while and brings back what is ready; what is not ready is asked for again.
Answers are known by what was asked, so that those which come late, twice, or from another site's clients are dropped.
A site that does not answer is asked again until the deadline of its tasks; then they come back as lost or late, and
the run goes on by its own rules.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

from fedllm_data.errors import WorkerError
from fedllm_train.engines.engine import LeftOutKind, Reply, Task, WaitingTasks
from fedllm_train.engines.remote.line import Event, Line
from fedllm_train.engines.remote.messages import (
    BEGIN_FIRST,
    Begin,
    Collect,
    Done,
    Failed,
    MessageError,
    ProfileJob,
    Ready,
    Refused,
    Result,
    ScoreJob,
    Stop,
    VisitJob,
    Waiting,
    Work,
    cut_body,
    job_key,
    one_line,
    read_answer,
)
from fedllm_train.engines.remote.seats import AT_A_SITE, Asked, RemoteOptions, Seat, with_bodies
from fedllm_train.engines.remote.visit_replies import left_out, reply_of

__all__ = ["Begins", "RemoteEngine"]

logger = logging.getLogger(__name__)

Begins = Callable[[str], tuple[Begin, bytes]]
"""From the name of a site to what it is told of the run, and the starting adapter's tensors."""


class RemoteEngine:
    """Carries tasks to the workers of organisations, and their answers back; a context manager."""

    def __init__(
        self,
        line: Line,
        site_of: Mapping[str, str],
        rows: Mapping[str, int],
        begins: Begins,
        *,
        run: str,
        options: RemoteOptions,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            line: carries requests; opened and closed by whoever made it.
            site_of: client -> name of its site.
            rows: client -> rows that a trainer gets of those its site announced, which no reply may exceed.
            begins: says what a site is told of the run.
            run: the run's key.
            options: how long to wait, and for how many sites.
        """
        self._line, self._site_of, self._rows = line, site_of, rows
        self.begins = begins
        """Says what a site is told of the run."""
        self._run, self._options = run, options
        self._seats = {name: Seat(name) for name in sorted(set(site_of.values()))}
        self._waiting = WaitingTasks()
        self._ready: deque[Reply] = deque()
        self._outcomes: dict[tuple[str, str], tuple[Result | None, bytes, str | None]] = {}
        self._requests = 0
        self._began = 0.0
        self._is_finished = False
        self.bytes_on_line = 0
        """Bytes of bodies that went over the line, both ways."""

    def __enter__(self) -> Self:
        """Let every site get ready.

        Raises:
            WorkerError: naming the sites that refused, were not approved or not ready in time, where too few are left.
        """
        self._began = time.monotonic()
        wanted = min(self._options.min_sites or len(self._seats), len(self._seats))
        for seat in self._seats.values():
            seat.ready_by = self._began + self._options.join
        while new := [seat for seat in self._seats.values() if seat.state == "new"]:
            end = max(seat.ready_by for seat in new)
            if time.monotonic() >= end or self._num_ready() >= wanted:
                break
            if self._num_ready() + len(new) < wanted and all(seat.needs_approval for seat in new):
                break
            for seat in new:
                self._begin(seat)
            self._listen(min(1.0, max(0.0, end - time.monotonic())))
        if self._num_ready() < wanted:
            missing = [
                f"{seat.name} ({seat.reason or 'it was not ready in time'})"
                for seat in self._seats.values()
                if seat.state != "ready"
            ]
            self.__exit__()
            raise WorkerError(
                f"{self._num_ready()} of {len(self._seats)} sites are ready and {wanted} are needed; not ready: "
                f"{'; '.join(missing)}"
            )
        return self

    def __exit__(self, *error: object) -> None:
        """Tell every site to end what is under way, unless the run has told them that it asks nothing more."""
        if not self._is_finished:
            self._tell_all(is_finished=False)

    def finish(self) -> None:
        """Tell every site that the run asks nothing more, so that nothing needs to be kept for it."""
        self._is_finished = True
        self._tell_all(is_finished=True)

    def submit(self, tasks: Iterable[Task]) -> None:
        """Take tasks; each is drawn when its site can be asked."""
        self._waiting.add(tasks)

    def take(self) -> Reply | None:
        """Return the next reply, in order of arrival; None when nothing is under way."""
        while True:
            if self._ready:
                return self._ready.popleft()
            self._hand_out()
            busy = [seat for seat in self._seats.values() if seat.asked or seat.held]
            if not busy and not self._ready:
                return None
            for seat in busy:
                self._give_up(seat)
                self._move_up(seat)
                self._ask(seat)
            if not self._ready:
                self._listen(self._until_next())

    def results_of(
        self, jobs: Mapping[str, list[tuple[ScoreJob | ProfileJob, bytes]]]
    ) -> Iterator[tuple[str, Result | None, bytes, str | None]]:
        """Let sites do jobs that are no visits, while nothing else is under way.

        Args:
            jobs: site -> jobs with their bodies.

        Yields:
            Site, result, its body, and why there is no result.
        """
        owner = set()
        for name, asked in jobs.items():
            for job, body in asked:
                key = job_key(self._run, job, body)
                owner.add((name, key))
                self._seats[name].asked[key] = Asked(job, body, time.monotonic())
        while owner:
            for place in sorted(place for place in owner if place in self._outcomes):
                owner.discard(place)
                yield place[0], *self._outcomes.pop(place)
            for seat in [seat for seat in self._seats.values() if seat.asked]:
                self._give_up(seat)
                self._ask(seat)
            if owner and not any(place in self._outcomes for place in owner):
                self._listen(self._until_next())

    def _num_ready(self) -> int:
        return sum(seat.state == "ready" for seat in self._seats.values())

    def _hand_out(self) -> None:
        """Draw tasks while their site has room."""
        room = AT_A_SITE * len(self._seats)
        while sum(len(seat.asked) + len(seat.held) for seat in self._seats.values()) < room:
            if (task := self._waiting.draw()) is None:
                return
            job = VisitJob(**{name: getattr(task, name) for name in VisitJob.model_fields if name != "job"})
            seat = self._seats.get(self._site_of.get(task.client_id, ""))
            if seat is None:
                self._ready.append(left_out(job, "no site has this client", "lost"))
                continue
            seat.held.append((job_key(self._run, job, task.message), Asked(job, task.message, time.monotonic())))
            self._move_up(seat)

    def _move_up(self, seat: Seat) -> None:
        """Let a site have the next of the jobs that wait for it."""
        while seat.held and len(seat.asked) < AT_A_SITE:
            key, asked = seat.held.popleft()
            asked.given = time.monotonic()
            seat.asked[key] = asked

    def _give_up(self, seat: Seat) -> None:
        """Let go of jobs whose time is over."""
        now, options = time.monotonic(), self._options
        if seat.under_way is not None and now > seat.expires:
            seat.failed(self._options, "its answer did not end in time")
            seat.under_way = None
        is_gone = seat.failing_since is not None and now - seat.failing_since > options.unreachable
        if seat.state == "refused" or is_gone:
            seat.asked |= dict(seat.held)
            seat.held.clear()
        if seat.state == "refused":
            self._drop(seat, list(seat.asked), f"site {seat.name} refused: {seat.reason}", "refused")
        elif is_gone:
            reason = f"site {seat.name} could not be reached in {options.unreachable:g} s ({seat.reason})"
            self._drop(seat, list(seat.asked), reason, "lost")
        elif options.deadline is not None:
            late = [key for key, asked in seat.asked.items() if now - asked.given > options.deadline]
            kind: LeftOutKind = "lost" if seat.failing_since is not None or seat.state != "ready" else "late"
            self._drop(seat, late, f"no answer from site {seat.name} in {options.deadline:g} s", kind)

    def _drop(self, seat: Seat, keys: list[str], reason: str, kind: LeftOutKind) -> None:
        for key in keys:
            self._settle(seat, key, None, b"", reason, kind)

    def _begin(self, seat: Seat) -> None:
        begin, tensors = self.begins(seat.name)
        wait = min(self._options.poll, self._options.join)
        self._send(seat, begin.model_copy(update={"wait_seconds": wait}).header(), tensors, [], wait)

    def _ask(self, seat: Seat) -> None:
        """Send what a site is to do next, if it can be asked now."""
        if not seat.asked or seat.under_way is not None or time.monotonic() < seat.next_try:
            return
        needs_run = any(not isinstance(asked.job, ProfileJob) for asked in seat.asked.values())
        if seat.state == "new" and needs_run:
            self._begin(seat)
            return
        wait = self._options.poll
        fresh = {key: asked for key, asked in seat.asked.items() if not asked.is_there}
        if fresh:
            some, bodies, body_of = with_bodies(fresh)
            request = Work(
                run=self._run,
                jobs=[asked.job for asked in some.values()],
                lengths=[len(body) for body in bodies],
                body_of=body_of,
                wait_seconds=wait,
            )
            content = bodies[0] if len(bodies) == 1 else b"".join(bodies)
            self._send(seat, request.header(), content, list(some), wait)
        else:
            keys = list(seat.asked)
            self._send(seat, Collect(run=self._run, keys=keys, wait_seconds=wait).header(), b"", keys, wait)

    def _send(self, seat: Seat, header: dict[str, Any], body: bytes, jobs: list[str], wait: float) -> None:
        if seat.under_way is not None or time.monotonic() < seat.next_try:
            return
        self._requests += 1
        seat.under_way, seat.sent = f"{seat.name}/{self._requests}", jobs
        self.bytes_on_line += len(body)
        longest = max((len(asked.body) for asked in seat.asked.values()), default=0)
        seconds = wait + self._options.request + (len(body) + 8 * longest) / self._options.slowest
        seat.expires = time.monotonic() + seconds + self._options.grace
        self._line.send(seat.name, seat.under_way, header, body, seconds=seconds)

    def _listen(self, seconds: float) -> None:
        """Take what came over the line, at most one event."""
        event = self._line.receive(seconds)
        seat = None if event is None else self._seats.get(event.site)
        if event is None or seat is None or event.key != seat.under_way:
            return
        seat.under_way = None
        if event.problem is not None or event.header is None:
            seat.failed(self._options, one_line(event.problem or "it sent nothing"))
            return
        self.bytes_on_line += len(event.body)
        try:
            self._heard(seat, read_answer(event.header), event)
        except MessageError as error:
            seat.failed(self._options, f"its answer is no message: {error}")

    def _heard(self, seat: Seat, answer: Any, event: Event) -> None:
        if isinstance(answer, Done):
            if len(answer.lengths) != len(answer.results):
                raise MessageError("done.lengths: one is needed for each result")
            pieces = cut_body(event.body, answer.lengths)
            for key in seat.sent:
                if key in seat.asked:
                    seat.asked[key].is_there = key not in answer.unknown
            for result, piece in zip(answer.results, pieces, strict=True):
                if result.key in seat.asked:
                    self._settle(seat, result.key, result, bytes(piece), None, "refused")
            seat.answered()
        elif isinstance(answer, Ready):
            if seat.state == "new":
                seat.state, seat.reason = "ready", ""
            seat.answered()
        elif isinstance(answer, Waiting):
            seat.reason, seat.failing_since = answer.reason, None
            if answer.reason == BEGIN_FIRST:
                seat.state = "new"
                seat.has_nothing()
            else:
                if seat.waits(answer, self._options, self._began):
                    logger.warning(
                        "site %s waits for its people: fedllm-train worker approve %s (this command waits meanwhile, "
                        "and may be ended and resumed)",
                        seat.name,
                        self._run,
                    )
        elif isinstance(answer, Refused) and not seat.sent:  # of the run, not of some request in it
            seat.state, seat.reason = "refused", answer.reason
        elif isinstance(answer, Refused):
            self._drop(seat, [key for key in seat.sent if key in seat.asked], answer.reason, "refused")
        elif isinstance(answer, Failed):
            seat.failed(self._options, answer.reason)
        else:
            raise MessageError(f"{answer.kind} answers nothing that was asked")

    def _settle(
        self, seat: Seat, key: str, result: Result | None, body: bytes, problem: str | None, kind: LeftOutKind
    ) -> None:
        """Turn what came of a job into a reply."""
        asked = seat.asked.pop(key)
        if not isinstance(asked.job, VisitJob):
            reason = problem if result is None else result.reason
            self._outcomes[seat.name, key] = (result, body, reason)
            return
        if result is None:
            self._ready.append(left_out(asked.job, problem or "", kind))
            return
        self._ready.append(reply_of(asked.job, result, body, self._rows.get(asked.job.client_id, 0)))

    def _until_next(self) -> float:
        """How long nothing can happen but an answer."""
        now, waits = time.monotonic(), [1.0]
        for seat in self._seats.values():
            if seat.asked and seat.under_way is None:
                waits.append(seat.next_try - now)
            if seat.under_way is not None:
                waits.append(seat.expires - now)
            if self._options.deadline is not None:
                waits += [asked.given + self._options.deadline - now for asked in seat.asked.values()]
        return max(0.01, min(waits))

    def _tell_all(self, *, is_finished: bool) -> None:
        """Send a stop to every site, past whatever it is asked, and wait a little for their answers."""
        keys = set()
        # A pipe that carries one message at a time brings the stop when the request before it has come back.
        waits = 10.0 + (self._options.poll if any(seat.under_way for seat in self._seats.values()) else 0.0)
        for seat in self._seats.values():
            seat.asked.clear()
            seat.held.clear()
            self._requests += 1
            key = f"{seat.name}/stop/{self._requests}"
            header = Stop(run=self._run, is_finished=is_finished).header()
            self._line.send(seat.name, key, header, b"", seconds=self._options.request)
            keys.add(key)
        end = time.monotonic() + waits
        while keys and (left := end - time.monotonic()) > 0:
            event = self._line.receive(left)
            if event is not None:
                keys.discard(event.key)
        for seat in self._seats.values():
            seat.under_way = None
