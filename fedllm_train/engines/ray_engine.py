"""Clients on the machines of a Ray cluster that one owner has: a host of clients per actor, one per GPU or core.

A round's message is put into Ray's store once, however many clients get it. What clients keep lies in the run folder,
which all machines must share. An actor that dies is a lost seat: its task goes to another, which starts from the same
message and memory, so that no bit changes; with no actor left the run ends and can be resumed. Needs the extra `ray`.
"""

import importlib.util
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fedllm_data.errors import ConfigError, WorkerError
from fedllm_train.engines.engine import Reply, Task, WaitingTasks
from fedllm_train.engines.process_engine import threads_of_a_process

if TYPE_CHECKING:
    from fedllm_train.clients.run_spec import RunSpec

__all__ = ["RayEngine", "check_ray", "ray_engine"]

Visit = Callable[[Task], Reply]


def check_ray() -> None:
    """Refuse the engine where Ray is not installed.

    Raises:
        ConfigError: naming the extra.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("engine ray needs Ray; pip install -c constraints.txt 'fedllm-commons[ray]'")


class RayEngine:
    """Visits clients on actors; a context manager, since they must end."""

    def __init__(
        self, build: Callable[[], Visit], *, num_actors: int | None = None, address: str | None = None
    ) -> None:
        """Prepare; nothing is started yet.

        Args:
            build: called in each actor, it returns what visits a client; what it holds must be picklable.
            num_actors: by default one for each GPU of the cluster, or each core where there is none.
            address: of a cluster to join; by default one is started on this machine and ended again.
        """
        self._build, self._num_actors, self._address = build, num_actors, address
        self._free: list[Any] = []
        self._busy: dict[Any, tuple[Any, Task]] = {}
        self._again: deque[Task] = deque()
        self._waiting = WaitingTasks()
        self._message: tuple[bytes, Any] | None = None
        self._began = False

    def __enter__(self) -> Self:
        """Join or start the cluster and make the actors.

        Raises:
            ConfigError: if Ray is not installed, or the cluster cannot be joined.
            WorkerError: if no actor can be made.
        """
        check_ray()
        import ray
        import torch

        self._began = not ray.is_initialized()
        if self._began:
            try:
                ray.init(address=self._address, log_to_driver=False, include_dashboard=False, logging_level="error")
            except (ConnectionError, ValueError, RuntimeError) as error:
                reason = " ".join(str(error).split())[:200]
                raise ConfigError(f"ray_address {self._address!r} cannot be joined ({reason})") from error
        there = ray.cluster_resources()
        num_gpus, num_cores = int(there.get("GPU", 0)), int(there.get("CPU", 1))
        number = self._num_actors or num_gpus or num_cores
        threads = threads_of_a_process(torch.get_num_threads(), num_cores, number)
        needs = {"num_gpus": num_gpus / number} if num_gpus else {"num_cpus": min(1, num_cores / number)}
        seat = ray.remote(max_restarts=0, **needs)(_Seat)
        seats = [seat.remote(self._build, threads) for _ in range(number)]
        problems = []
        for each in seats:
            try:
                ray.get(each.ready.remote())
                self._free.append(each)
            except ray.exceptions.RayError as error:
                problems.append(_cause(error))
        if not self._free:
            self.close()
            if isinstance(problems[0], ConfigError):
                raise problems[0]
            raise WorkerError(f"no actor of the Ray cluster could make a host of clients: {problems[0]}")
        return self

    def __exit__(self, *error: object) -> None:
        """End the actors."""
        self.close()

    def submit(self, tasks: Iterable[Task]) -> None:
        """Take tasks; each is drawn when an actor is free for it."""
        self._waiting.add(tasks)

    def take(self) -> Reply | None:
        """Return the next reply, in order of arrival; None when nothing is under way.

        Raises:
            WorkerError: if a visit fails, or no actor is left. The run can be resumed from its last checkpoint.
        """
        import ray

        while True:
            self._hand_out()
            if not self._busy and self._free:
                return None
            if not self._busy:
                raise WorkerError("no actor of the Ray cluster is left; go on with --resume")
            (done, *_), _ = ray.wait(list(self._busy), num_returns=1)
            actor, task = self._busy.pop(done)
            try:
                reply: Reply = ray.get(done)
            except ray.exceptions.RayActorError:
                self._again.append(task)
                if not self._free and not self._busy:
                    raise WorkerError(
                        f"the last actor of the Ray cluster died while it visited client {task.client_id!r}; go on "
                        "with --resume, with fewer actors if a machine ran out of memory"
                    ) from None
                continue
            except ray.exceptions.RayTaskError as error:
                self._free.append(actor)
                cause = _cause(error)
                if isinstance(cause, ConfigError | WorkerError):
                    raise cause from None
                raise WorkerError(
                    f"the visit of client {task.client_id!r} failed: {type(cause).__name__}: {cause}; go on with "
                    "--resume once the cause is gone"
                ) from None
            self._free.append(actor)
            self._hand_out()
            return reply

    def close(self) -> None:
        """End the actors, and the cluster if it was started here."""
        import ray

        if not ray.is_initialized():
            return
        for actor in [*self._free, *(actor for actor, _ in self._busy.values())]:
            ray.kill(actor)
        self._free, self._busy = [], {}
        if self._began:
            ray.shutdown()

    def _hand_out(self) -> None:
        """Give free actors the next tasks."""
        while self._free and (task := self._again.popleft() if self._again else self._waiting.draw()) is not None:
            actor = self._free.pop()
            self._busy[actor.visit.remote(replace(task, message=b""), self._put(task.message))] = (actor, task)

    def _put(self, message: bytes) -> Any:
        """A message in Ray's store, once for all tasks in a row that carry the same."""
        import ray

        if self._message is None or self._message[0] != message:
            self._message = (message, ray.put(message))
        return self._message[1]


class _Seat:
    """An actor: a host of clients with the threads that one process would take."""

    def __init__(self, build: Callable[[], Visit], num_threads: int) -> None:
        import torch

        torch.set_num_threads(num_threads)
        self._visit = build()

    def ready(self) -> bool:
        """Say that the host is made."""
        return True

    def visit(self, task: Task, message: bytes) -> Reply:
        """Make a visit."""
        return self._visit(replace(task, message=message))


def ray_engine(
    spec: "RunSpec", clients: Any, folder: Path, *, num_actors: int | None, address: str | None
) -> AbstractContextManager[RayEngine]:
    """Return the engine whose actors each make a host of all clients.

    Args:
        spec: the run's spec.
        clients: all clients; every machine must find their rows where this one does.
        folder: the hosts' folder, which all machines share.
        num_actors: hosts of clients; by default one for each GPU, or each core.
        address: of a cluster to join.

    Raises:
        ConfigError: if Ray is not installed, or the model was given in memory.
    """
    check_ray()
    if not isinstance(spec.policy.model, str):
        raise ConfigError("engine ray loads the model in every actor, and it was given in memory; name its folder")
    return RayEngine(partial(_visit_of_host, spec, clients, folder.resolve()), num_actors=num_actors, address=address)


def _visit_of_host(spec: "RunSpec", clients: Any, folder: Path) -> Visit:
    from fedllm_train.clients.host import ClientHost

    return ClientHost.load(spec, clients, folder).visit


def _cause(error: Any) -> Any:
    """What was raised in an actor, where Ray tells."""
    return getattr(error, "cause", None) or error
