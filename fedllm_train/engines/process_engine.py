"""Clients trained side by side: several processes, each with one resident model and trainer of its own.

A process is spawned, makes a host of clients (`clients/host.py`) from the run's spec, and then makes one visit after
another. The server hands out a task when a process is free, so no message waits in memory; replies come in any order.
What clients keep lies on the disk that all hosts of the machine share.

The adapters are those of one process, to the bit, where a process computes as that one would: on GPUs of one kind, or
on CPUs with as many torch threads each (a matrix product may be rounded differently on another number of threads).
Each process takes the GPU of its number, several sharing one where there are fewer; on CPUs it takes the threads that
the run would take in one process, or its share of the cores where those do not suffice for all.
"""

import gc
import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fedllm_data.errors import ConfigError, FedLLMError, WorkerError
from fedllm_train.engines.engine import Reply, Task, WaitingTasks

if TYPE_CHECKING:
    from fedllm_data.clients import ClientDataset
    from fedllm_train.clients.run_spec import RunSpec

__all__ = ["ProcessEngine", "check_processes", "host_processes", "threads_of_a_process"]

Visit = Callable[[Task], Reply]
_PATIENCE_SECONDS = 10.0


@dataclass
class _Seat:
    """One process, its end of the line, and the client it is busy with."""

    number: int
    process: Any
    line: Connection
    client_id: str | None = None


class ProcessEngine:
    """Runs clients on several processes; a context manager, since processes must end.

    >>> ProcessEngine(print, {}, num_processes=2)  # doctest: +ELLIPSIS
    <fedllm_train.engines.process_engine.ProcessEngine object at ...>
    """

    def __init__(self, build: Callable[..., Visit], settings: dict[str, Any], *, num_processes: int) -> None:
        """Prepare; nothing is started yet.

        Args:
            build: a module-level function; called in each process with `settings`, it returns what visits a client.
            settings: everything that `build` needs, picklable.
            num_processes: number of processes.
        """
        self._build, self._settings, self._num_processes = build, settings, num_processes
        self._seats: list[_Seat] = []
        self._waiting = WaitingTasks()
        self._ready: deque[_Seat] = deque()

    def __enter__(self) -> Self:
        """Start the processes and wait until each has its model.

        Raises:
            ConfigError: if something in the settings cannot be sent to another process.
            WorkerError: if a process ends or fails while it starts.
        """
        context = multiprocessing.get_context("spawn")
        num_devices = _num_devices()
        try:
            for number in range(self._num_processes):
                here, there = context.Pipe()
                device = str(number % num_devices) if num_devices else None
                arguments = (there, self._build, self._settings)
                process = context.Process(target=_work, args=arguments, name=f"clients-{number}", daemon=True)
                self._seats.append(_Seat(number, process, here))
                with _visible_device(device):
                    process.start()
                there.close()
            for seat in self._seats:
                self._receive(seat)
        except BaseException as error:
            self.close()
            if isinstance(error, TypeError | AttributeError) or type(error).__name__ == "PicklingError":
                raise ConfigError(
                    f"num_processes is {self._num_processes}, but a setting cannot be sent to another process "
                    f"({error}); name models and tokenizers instead of passing them, or use one process"
                ) from error
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """End the processes."""
        self.close()

    def submit(self, tasks: Iterable[Task]) -> None:
        """Take tasks; each is drawn when a process is free for it."""
        self._waiting.add(tasks)

    def take(self) -> Reply | None:
        """Return the next reply, in order of arrival; None when nothing is under way.

        Raises:
            WorkerError: if a process dies or fails. The run can be resumed from its last checkpoint.
        """
        for seat in self._seats:
            if seat.client_id is None:
                self._hand_out(seat)
        if not self._ready:
            busy = [seat for seat in self._seats if seat.client_id is not None]
            if not busy:
                return None
            ready = wait([seat.line for seat in busy])
            self._ready.extend(seat for seat in busy if seat.line in ready)
        # One reply is read at a time: the others wait with their processes, and no message is drawn for those yet.
        seat = self._ready.popleft()
        reply: Reply = self._receive(seat)
        seat.client_id = None
        # The next task goes out before the caller folds this reply in, so that no process idles meanwhile.
        self._hand_out(seat)
        return reply

    def _hand_out(self, seat: _Seat) -> None:
        """Give a free process the next task, if there is one."""
        if (task := self._waiting.draw()) is not None:
            seat.client_id = task.client_id
            self._send(seat, task)

    def close(self) -> None:
        """End the processes, those that are busy too."""
        for seat in self._seats:
            seat.line.close()
            if seat.client_id is not None:
                seat.process.kill()
        for seat in self._seats:
            if seat.process.pid is not None:
                seat.process.join(_PATIENCE_SECONDS)
                if seat.process.is_alive():
                    seat.process.kill()
                    seat.process.join()
        self._seats = []

    def _send(self, seat: _Seat, task: Task) -> None:
        try:
            seat.line.send(task)
        except OSError as error:
            raise self._death(seat) from error

    def _receive(self, seat: _Seat) -> Any:
        """Return what a process sent; raise what it raised."""
        try:
            outcome = seat.line.recv()
        except (EOFError, OSError) as error:
            raise self._death(seat) from error
        if isinstance(outcome, FedLLMError):
            raise outcome
        if isinstance(outcome, _Failure):
            raise WorkerError(
                f"process {seat.number} failed {_during(seat)}: {outcome.reason}; its traceback is above, and the run "
                "goes on with --resume once the cause is gone"
            )
        return outcome

    def _death(self, seat: _Seat) -> WorkerError:
        seat.process.join(_PATIENCE_SECONDS)
        code = seat.process.exitcode
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        remedy = (
            "go on with --resume, with fewer processes if the machine ran out of memory"
            if seat.client_id is not None
            else "what it wrote is above; a script that trains must do so under `if __name__ == '__main__':`"
        )
        return WorkerError(
            f"process {seat.number} of {self._num_processes} ended with {how} {_during(seat)}; {remedy}"
        )


def check_processes(num_processes: int, cohort_size: int, *, model_is_named: bool) -> None:
    """Refuse several processes if they are not available or would have nothing to do.

    Raises:
        ConfigError: with the reason.

    >>> check_processes(3, 2, model_is_named=True)
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: num_processes is 3 but 2 clients take part in a round; choose at most 2
    """
    if num_processes == 1:
        return
    if num_processes > cohort_size:
        raise ConfigError(
            f"num_processes is {num_processes} but {cohort_size} clients take part in a round; choose at most "
            f"{cohort_size}"
        )
    if not model_is_named:
        raise ConfigError(
            f"num_processes is {num_processes} and the model was given in memory; save it and give its folder "
            "or Hub id, since every process loads a model of its own"
        )


def host_processes(spec: "RunSpec", clients: "ClientDataset", folder: Path, *, num_processes: int) -> ProcessEngine:
    """Return the engine whose processes each make a host of all clients.

    Args:
        spec: the run's spec.
        clients: all clients; every process can visit any of them.
        folder: the hosts' folder, on the disk that all of them share.
        num_processes: number of processes.
    """
    import torch

    num_threads = threads_of_a_process(torch.get_num_threads(), _num_cores(), num_processes)
    settings = {"spec": spec, "clients": clients, "folder": folder, "num_threads": num_threads}
    return ProcessEngine(_visit_of_host, settings, num_processes=num_processes)


def threads_of_a_process(num_threads: int, num_cores: int, num_processes: int) -> int:
    """Return how many threads each of several processes takes: as many as one alone, if there are enough cores.

    >>> threads_of_a_process(1, 16, 4), threads_of_a_process(4, 16, 4), threads_of_a_process(16, 16, 4)
    (1, 4, 4)
    """
    return max(1, min(num_threads, num_cores // num_processes))


def _visit_of_host(spec: "RunSpec", clients: "ClientDataset", folder: Path, *, num_threads: int) -> Visit:
    """Return what visits a client in a process of its own."""
    import torch

    from fedllm_train.clients.host import ClientHost  # brings TRL, which the server's process may do without

    torch.set_num_threads(num_threads)
    host = ClientHost.load(spec, clients, folder)
    gc.collect()
    gc.freeze()
    return host.visit


@dataclass(frozen=True)
class _Failure:
    """An error that is not the project's own."""

    reason: str


def _during(seat: _Seat) -> str:
    return "while it started" if seat.client_id is None else f"while it trained client {seat.client_id!r}"


def _num_cores() -> int:
    """Cores that this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _num_devices() -> int:
    import torch  # a process that trains nothing need not import it

    return torch.cuda.device_count()


@contextmanager
def _visible_device(device: str | None) -> Iterator[None]:
    """Let a process that is started meanwhile see one GPU alone."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = before.split(",")[int(device)] if before else device
    try:
        yield
    finally:
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
        elif device is not None:
            del os.environ["CUDA_VISIBLE_DEVICES"]


def _work(line: Connection, build: Callable[..., Visit], settings: dict[str, Any]) -> None:
    """The life of a process: build once, then train what is asked for until the line is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the server's process closes the line
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        visit = build(**settings)
        line.send(None)
        while True:
            line.send(visit(line.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except FedLLMError as error:
        line.send(error)
    except Exception as error:
        import traceback

        traceback.print_exc()
        line.send(_Failure(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"))


def _end_with_parent() -> None:
    """Leave at once when the server's process is gone, however it ended: a run may be resumed the moment after."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
