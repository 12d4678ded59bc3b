"""A worker behind a unix socket: one request a connection, each in a thread of its own."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from fedllm_data.errors import ConfigError
from fedllm_train.engines.remote.frames import MAX_BODY, FrameError, LineClosed, receive_frame, send_frame
from fedllm_train.engines.remote.messages import Refused
from fedllm_train.engines.remote.socket_line import MAX_SOCKET_PATH

__all__ = ["Answerer", "listening", "serve"]

READ_SECONDS = 600.0
"""A connection on which nothing comes for so long is closed."""
_MOST_CONNECTIONS = 32


class Answerer(Protocol):
    """What answers requests: a `Worker`."""

    def answer(self, header: dict[str, Any], body: bytearray) -> tuple[dict[str, Any], bytes]:
        """Answer one request."""
        ...

    def close(self) -> None:
        """End what is under way."""
        ...


@contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Listen on a unix socket that its owner and group may use; the path is free again afterwards.

    Args:
        path: of the socket; one that nobody listens on any more is replaced.

    Raises:
        ConfigError: if the path is too long, another process listens there, or it is no socket.
    """
    if len(str(path).encode()) > MAX_SOCKET_PATH:
        raise ConfigError(
            f"--socket {path} has {len(str(path).encode())} bytes, and at most {MAX_SOCKET_PATH} are allowed; choose "
            "a shorter path"
        )
    if path.exists():
        if not path.is_socket():
            raise ConfigError(f"--socket {path} exists and is no socket; choose another path")
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise ConfigError(f"--socket {path} is served by another process; stop it, or choose another path")
        path.unlink()
    if not path.parent.is_dir():
        raise ConfigError(f"--socket {path}: there is no folder {path.parent}; make it, for the worker and its relay")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        before = os.umask(0o117)
        try:
            server.bind(str(path))
        finally:
            os.umask(before)
        server.listen(64)
        try:
            yield server
        finally:
            path.unlink(missing_ok=True)


def serve(worker: Answerer, server: socket.socket, *, max_body: int = MAX_BODY) -> None:
    """Answer requests until SIGTERM or Ctrl-C; the visit under way then ends within an optimizer step.

    Args:
        worker: answers.
        server: a listening socket, from `listening`.
        max_body: longest body of a request in bytes.
    """
    is_over = threading.Event()
    places = threading.Semaphore(_MOST_CONNECTIONS)

    def end(*_: object) -> None:
        is_over.set()

    before = signal.signal(signal.SIGTERM, end) if threading.current_thread() is threading.main_thread() else None
    server.settimeout(0.5)
    try:
        while not is_over.is_set():
            try:
                line, _ = server.accept()
            except TimeoutError:
                continue
            if not places.acquire(blocking=False):
                line.close()
                continue
            threading.Thread(target=_answer, args=(worker, line, places, max_body), daemon=True).start()
    except KeyboardInterrupt:
        pass
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        worker.close()


def _answer(worker: Answerer, line: socket.socket, places: threading.Semaphore, max_body: int) -> None:
    """Answer what comes over one connection; whatever comes, nothing is raised."""
    try:
        with line:
            line.settimeout(READ_SECONDS)
            try:
                header, body = receive_frame(line, max_body=max_body)
            except LineClosed:
                return
            except FrameError as error:
                with suppress(OSError):
                    send_frame(line, Refused(reason=str(error)[:1000]).header())
                return
            send_frame(line, *worker.answer(header, body))
    except OSError:
        return  # whoever asked has left, and asks again if it still wants to know
    finally:
        places.release()
