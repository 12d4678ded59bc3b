"""`Worker`: an organisation's end of a line. It has the rows, decides by its own policy, and answers requests.

Work is done in one thread, one job after the other; requests come in any other, wait a while and return what is ready.
A job that is asked a second time waits for the first, or is answered from the disk: it costs no work and changes no
bit. A run that is stopped, or that nobody asked after for as long as its lease says, ends within an optimizer step,
and of the visit that was under way nothing is kept.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError, FedLLMError, HubError
from fedllm_train.clients.stopping import VisitStopped
from fedllm_train.engines.remote.kept_answers import KeptAnswers
from fedllm_train.engines.remote.messages import (
    BEGIN_FIRST,
    PROTOCOL,
    Begin,
    Collect,
    Done,
    Failed,
    Hello,
    MessageError,
    ProfileJob,
    Ready,
    Refused,
    Result,
    ScoreJob,
    Stop,
    Stopped,
    VisitJob,
    Waiting,
    Work,
    cut_body,
    job_key,
    one_line,
    read_request,
)
from fedllm_train.engines.remote.organisation import Organisation
from fedllm_train.engines.remote.policy import Policy
from fedllm_train.engines.remote.run_folders import RunFolders
from fedllm_train.engines.remote.site_facts import site_facts
from fedllm_train.engines.remote.site_run import SiteRun
from fedllm_train.engines.remote.worker_log import WorkerLog

__all__ = ["Worker"]

MAX_ANSWER = 1 << 30
"""Bytes of results that go into one answer; the next is asked for."""
_ONE_AT_A_TIME = threading.Lock()
"""Torch's random numbers and threads belong to the process: of several workers in it, one is at work."""


@dataclass
class _Active:
    """The run that the worker is on."""

    key: str
    begin: Begin | None
    tensors: bytes
    answers: KeptAnswers
    folder: Path
    state: str = "loading"
    """loading, ready, refused or failed."""
    reason: str = ""
    run: SiteRun | None = None
    queue: deque[tuple[str, Any, bytes]] = field(default_factory=deque)
    under_way: str | None = None
    """Key of the job that is being done."""
    generation: int = 0
    """Goes up with every stop; a visit of an earlier one ends."""
    asked: float = 0.0
    """When the server last asked, on this machine's clock."""
    is_finished: bool = False
    """Whether nothing more will be asked, so that its files go when the last job has ended."""


class Worker:
    """Answers what a server asks about the clients of one organisation."""

    def __init__(
        self, site: Organisation, policy: Policy, folder: Path, *, say: Callable[[str], None] = print
    ) -> None:
        """Read what the site has; no model is loaded.

        Args:
            site: rows and base model.
            policy: what a server may do here.
            folder: the worker's own, where runs keep what they keep.
            say: takes one line for whoever watches.

        Raises:
            ConfigError: if the data or the base cannot be read, or another worker uses the folder.
        """
        self.site, self.policy, self._say = site, policy, say
        self._folders, self._log = RunFolders(folder), WorkerLog(folder)
        self.facts = site_facts(site, policy)
        """What a server is told of the site."""
        self.base_digest = site.base_digest()
        """Digest of the base model's weights."""
        self._hold = self._folders.hold()
        self._changed = threading.Condition()
        self.active: _Active | None = None
        """The run that it is on; None for none."""
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    def answer(self, header: Mapping[str, Any], body: bytes | bytearray) -> tuple[dict[str, Any], bytes]:
        """Answer one request; never raises.

        Args:
            header: of the request's frame.
            body: of the request's frame.
        """
        run, kind = None, "unknown"
        try:
            request = read_request(header)
            run, kind = getattr(request, "run", None), request.kind
            answer, content = self._answer(request, body)
        except (MessageError, ConfigError) as error:
            answer, content = Refused(reason=one_line(error)), b""
        except Exception as error:
            answer, content = Failed(reason=one_line(f"{type(error).__name__}: {error}")), b""
        try:
            self._log.write(kind, run, len(body), len(content), getattr(answer, "reason", None))
        except OSError as error:  # what is not on record is not told
            answer, content = Failed(reason=f"its record of requests cannot be written: {error.strerror}"), b""
        return answer.header(), content

    def close(self) -> None:
        """End the visit that is under way within a step, and the thread."""
        with self._changed:
            self._is_closed = True
            if self.active is not None:
                self.active.generation += 1
                self.active.queue.clear()
            self._changed.notify_all()
        self._thread.join()
        self._hold.release()

    def _answer(self, request: Any, body: bytes | bytearray) -> tuple[Any, bytes]:
        if isinstance(request, Hello):
            if request.protocol != PROTOCOL:
                return Refused(reason=f"this worker speaks protocol {PROTOCOL}, the server {request.protocol}"), b""
            return self.facts, b""
        if isinstance(request, Begin):
            return self._begin(request, bytes(body)), b""
        if isinstance(request, Stop):
            return self._stop(request), b""
        if isinstance(request, Work):
            if len(request.body_of) != len(request.jobs) or max(request.body_of) >= len(request.lengths):
                raise MessageError("work.body_of: one of the bodies is needed for each job")
            pieces = [bytes(piece) for piece in cut_body(body, request.lengths)]
            return self._take(request, [pieces[number] for number in request.body_of])
        return self._collect(request)

    def _begin(self, begin: Begin, tensors: bytes) -> Any:
        if reason := self.policy.problem(begin, base=self.base_digest):
            return Refused(reason=reason)
        if self.policy.max_epsilon is not None and begin.privacy is not None and begin.privacy.unit == "example":
            from fedllm_train.engines.remote.row_claims import row_claim_problem

            if reason := row_claim_problem(begin, self.facts.splits["train"].rows):
                return Refused(reason=reason)
        if self.policy.approve == "ask" and not self._folders.is_approved(begin):
            self._folders.ask(begin)
            return Waiting(reason=f"the organisation has not approved run {begin.run} yet", needs_approval=True)
        end = time.monotonic() + begin.wait_seconds
        begin = begin.model_copy(update={"wait_seconds": 0.0})
        with self._changed:
            active = self.active
            if active is None or active.key != begin.run or active.begin != begin or active.state != "ready":
                if active is not None and active.key != begin.run and self._is_busy(active):
                    return Waiting(reason="the worker is at work for another run")
                if active is None or active.begin != begin or active.state in ("failed", "refused"):
                    active = self._switch_to(begin.run, begin, tensors)
            active.asked, active.is_finished = time.monotonic(), False
            while active.state == "loading" and not self._is_closed and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            active.asked = time.monotonic()
            if active.state == "loading":
                return Waiting(reason="the model is being loaded")
            if active.state != "ready" or active.run is None:
                return Refused(reason=active.reason) if active.state == "refused" else Failed(reason=active.reason)
            return Ready(digests=active.run.digests)

    def _switch_to(self, key: str, begin: Begin | None, tensors: bytes) -> _Active:
        """Make a run the active one; called with the lock held."""
        if self.active is not None:
            self.active.generation += 1
            self.active.queue.clear()
        folder = self._folders.of(key)
        active = _Active(key, begin, tensors, KeptAnswers(folder / "answers"), folder, asked=time.monotonic())
        active.state = "ready" if begin is None else "loading"
        self.active = active
        self._changed.notify_all()
        return active

    def _is_busy(self, active: _Active) -> bool:
        has_work = active.under_way is not None or bool(active.queue) or active.state == "loading"
        return has_work and not self._is_lapsed(active)

    def _is_lapsed(self, active: _Active) -> bool:
        lease = 300.0 if active.begin is None else active.begin.lease_seconds
        return time.monotonic() - active.asked > lease

    def _take(self, work: Work, bodies: list[bytes]) -> tuple[Any, bytes]:
        keys = [job_key(work.run, job, body) for job, body in zip(work.jobs, bodies, strict=True)]
        with self._changed:
            active = self.active
            if active is None or active.key != work.run:
                if not all(isinstance(job, ProfileJob) for job in work.jobs):
                    return Waiting(reason=BEGIN_FIRST), b""
                if active is not None and self._is_busy(active):
                    return Waiting(reason="the worker is at work for another run"), b""
                active = self._switch_to(work.run, None, b"")
            if active.state != "ready":
                return Waiting(reason=BEGIN_FIRST), b""
            for job in work.jobs:
                if isinstance(job, VisitJob):
                    active.answers.forget_until(job.oldest_step)
            known = {active.under_way, *(key for key, _, _ in active.queue)}
            for key, job, body in zip(keys, work.jobs, bodies, strict=True):
                if key not in known and not active.answers.has(key):
                    active.queue.append((key, job, body))
                    known.add(key)
            self._changed.notify_all()
            return self._ready_of(active, keys, work.wait_seconds)

    def _collect(self, collect: Collect) -> tuple[Any, bytes]:
        with self._changed:
            active = self.active
            if active is None or active.key != collect.run or active.state != "ready":
                return Waiting(reason=BEGIN_FIRST), b""
            return self._ready_of(active, collect.keys, collect.wait_seconds)

    def _ready_of(self, active: _Active, keys: list[str], wait_seconds: float) -> tuple[Done, bytes]:
        """Wait until some of the jobs are done, and return those; called with the lock held."""
        end = time.monotonic() + wait_seconds
        while True:
            active.asked = time.monotonic()
            results, bodies, size = [], [], 0
            for key in keys:
                found = active.answers.get(key) if active.answers.has(key) else None
                if found is not None and (not results or size + len(found[1]) <= MAX_ANSWER):
                    results.append(found[0])
                    bodies.append(found[1])
                    size += len(found[1])
            here = {active.under_way, *(key for key, _, _ in active.queue)}
            told = {result.key for result in results}
            waiting = [key for key in keys if key in here and key not in told]
            left = end - time.monotonic()
            if results or not waiting or left <= 0 or self._is_closed or active is not self.active:
                unknown = [key for key in keys if key not in here and not active.answers.has(key)]
                done = Done(results=results, lengths=[len(each) for each in bodies], pending=waiting, unknown=unknown)
                return done, b"".join(bodies)
            self._changed.wait(left)

    def _stop(self, stop: Stop) -> Stopped:
        with self._changed:
            active = self.active
            if active is not None and active.key == stop.run:
                active.generation += 1
                active.queue.clear()
                active.is_finished = stop.is_finished
                if stop.is_finished and active.under_way is None:
                    self._forget(active)
                self._changed.notify_all()
        return Stopped()

    def _forget(self, active: _Active) -> None:
        """Remove what a finished run kept, but for its clients' own adapters; called with the lock held."""
        if self.active is active:
            self.active = None
        try:
            self._folders.forget(active.key)
        except OSError as error:
            self._say(f"run {active.key}: what it kept cannot be removed: {error.strerror}")

    def _work(self) -> None:
        """The thread of jobs."""
        while True:
            with self._changed:
                while not self._is_closed and not self._has_job():
                    self._changed.wait()
                if self._is_closed:
                    return
                active = self.active
                assert active is not None
                is_loading = active.state == "loading"
                if not is_loading:
                    key, job, body = active.queue.popleft()
                    active.under_way = key
                generation = active.generation
            if is_loading:
                self._load(active)
                continue
            with _ONE_AT_A_TIME:
                outcome = self._do(active, key, job, body, generation)
            with self._changed:
                if outcome is not None:
                    self._keep(active, *outcome, step=getattr(job, "step", 0))
                active.under_way = None
                if active.is_finished:
                    self._forget(active)
                self._changed.notify_all()

    def _keep(self, active: _Active, result: Result, body: bytes, *, step: int) -> None:
        """Put a result on the disk; if that fails, the client is left out with the reason."""
        try:
            active.answers.keep(result, body, step=step)
        except OSError as error:
            reason = f"its site cannot write what came of the visit: {error.strerror}"
            self._say(f"run {active.key}: {reason}")
            active.answers.give_up(Result(key=result.key, reason=reason))

    def _has_job(self) -> bool:
        return self.active is not None and (self.active.state == "loading" or bool(self.active.queue))

    def _load(self, active: _Active) -> None:
        assert active.begin is not None
        run, state, reason = None, "ready", ""
        try:
            with _ONE_AT_A_TIME:
                run = SiteRun(active.begin, active.tensors, self.site, active.folder)
            self._say(f"run {active.key} has begun: {len(active.begin.clients)} clients, {run.spec.strategy}")
        except FedLLMError as error:  # asking again does not help, unless it was the Hub
            state, reason = "failed" if isinstance(error, HubError) else "refused", one_line(error)
        except Exception as error:
            state, reason = "failed", one_line(f"{type(error).__name__}: {error}")
        if reason:
            self._say(f"run {active.key} cannot begin here: {reason}")
        with self._changed:
            active.run, active.state, active.reason, active.tensors = run, state, reason, b""
            self._changed.notify_all()

    def _do(self, active: _Active, key: str, job: Any, body: bytes, generation: int) -> tuple[Result, bytes] | None:
        """Do one job; None where it was stopped."""

        def is_stopped() -> bool:
            return active.generation != generation or self._is_closed or self._is_lapsed(active)

        try:
            if isinstance(job, ProfileJob):
                from fedllm_train.engines.remote.site_profiles import site_profiles

                return site_profiles(key, job, body, self.site, self.policy)
            assert active.run is not None
            active.run.stop_when(is_stopped)
            if isinstance(job, VisitJob):
                result, content = active.run.visit(job, body)
                self._say(f"round {job.step}, client {job.client_id}: {result.reason or 'done'}")
                return result, content
            assert isinstance(job, ScoreJob)
            if not self.policy.scores:
                return Result(key=key, reason="this organisation sends no scores"), b""
            return active.run.score(job, body, min_rows=self.policy.min_rows)
        except VisitStopped:
            self._say(f"run {active.key}: a visit was stopped")
            return None
        except Exception as error:
            import traceback

            traceback.print_exc()
            return Result(key=key, reason=one_line(f"{type(error).__name__}: {error}")), b""
