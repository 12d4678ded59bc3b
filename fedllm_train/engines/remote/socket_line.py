"""A line over unix sockets: several sites on one machine, each a worker of its own, without any product between.

Every request has a connection and a thread of its own, as a relay that runs beside a worker would make one.
"""

import queue
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from fedllm_data.errors import ConfigError
from fedllm_train.engines.remote.frames import FrameError, LineClosed, receive_frame, send_frame
from fedllm_train.engines.remote.line import Event, Site

__all__ = ["MAX_SOCKET_PATH", "SocketLine", "ask", "connected"]

MAX_SOCKET_PATH = 107
"""Longest path of a unix socket in bytes, on Linux."""

Connect = Callable[[], socket.socket]


def connected(path: str | Path) -> socket.socket:
    """Return a connection to a worker's socket.

    Raises:
        OSError: if nobody listens there.
    """
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.connect(str(path))
    except OSError:
        line.close()
        raise
    return line


def ask(
    line: socket.socket, header: Mapping[str, Any], body: bytes | memoryview = b""
) -> tuple[dict[str, Any], bytearray]:
    """Send one request over a connection and return the answer; the connection is closed.

    Raises:
        FrameError: if the answer is no frame.
        LineClosed: if the other end left without one.
        OSError: if the connection is gone, or its timeout has passed.
    """
    with line:
        send_frame(line, header, body)
        return receive_frame(line)


class SocketLine:
    """Sites by name, each with what makes a connection to its worker."""

    def __init__(self, sites: Mapping[str, str | Path | Connect]) -> None:
        """Take the sites; nothing is connected yet.

        Args:
            sites: name -> path of the worker's unix socket, or a function that returns a connection.

        Raises:
            ConfigError: if there is none, or a path is too long for a socket.
        """
        if not sites:
            raise ConfigError("the deployment names no site; give at least one with the socket of its worker")
        for name, path in sites.items():
            if not callable(path) and len(str(path).encode()) > MAX_SOCKET_PATH:
                raise ConfigError(
                    f"the socket of site {name!r} has a path of {len(str(path).encode())} bytes, and at most "
                    f"{MAX_SOCKET_PATH} are allowed; give a shorter one"
                )
        self._sites = dict(sites)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        """Return the line; connections are made by request."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the connections that are still open."""
        with self._lock:
            for line in self._open:
                try:
                    line.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def sites(self) -> Mapping[str, Site]:
        """Return the sites; whether one is there shows when it is asked."""
        return {name: Site(name=name) for name in self._sites}

    def send(
        self, site: str, key: str, header: Mapping[str, Any], body: bytes | memoryview, *, seconds: float
    ) -> None:
        """Send a request over a connection of its own."""
        arguments = (site, key, dict(header), body, seconds)
        threading.Thread(target=self._ask, args=arguments, name=f"ask-{site}", daemon=True).start()

    def receive(self, seconds: float) -> Event | None:
        """Return what came of some request; None where nothing came within the given seconds."""
        try:
            return self._events.get(timeout=max(seconds, 0.0)) if seconds > 0 else self._events.get_nowait()
        except queue.Empty:
            return None

    def _ask(self, site: str, key: str, header: dict[str, Any], body: bytes | memoryview, seconds: float) -> None:
        line = None
        try:
            place = self._sites[site]
            line = place() if callable(place) else connected(place)
            line.settimeout(seconds)
            with self._lock:
                self._open.add(line)
            answer, content = ask(line, header, body)
            event = Event(site=site, key=key, header=answer, body=content)
        except TimeoutError:
            event = Event(site=site, key=key, problem=f"no answer in {seconds:g} s")
        except (OSError, FrameError, LineClosed) as error:
            reason = getattr(error, "strerror", None) or str(error)
            event = Event(site=site, key=key, problem=f"the line to {site} broke: {reason}")
        finally:
            if line is not None:
                with self._lock:
                    self._open.discard(line)
        self._events.put(event)
