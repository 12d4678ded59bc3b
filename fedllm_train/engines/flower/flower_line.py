"""The line to sites over Flower: a relay that runs as a Flower app carries frames between us and the sites.

We listen on a unix socket; the relay connects to it once `flwr run` has started it, and goes when we go. Where it ends
by itself (it was killed, or Flower's server was), it is started again, and what was under way comes back as a problem.
A site is known by its key: what a node says of itself, and what Flower's programs return, is not believed.
"""

import json
import logging
import queue
import select
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from fedllm_data.errors import WorkerError
from fedllm_train.engines.flower.certificates import fingerprint_of
from fedllm_train.engines.flower.deployment import Deployment, read_deployment
from fedllm_train.engines.flower.processes import environment_of, flwr_environment
from fedllm_train.engines.remote.frames import FrameError, LineClosed, receive_frame, send_frame
from fedllm_train.engines.remote.line import Event, Site

__all__ = ["LARGEST_MESSAGE", "RELAY", "FlowerLine", "flower_line"]

logger = logging.getLogger(__name__)

RELAY = Path(__file__).parent / "relay"
"""The Flower app."""
_FIRST_SECONDS, _ASK_NODES = 180.0, 3.0
LARGEST_MESSAGE = 2**31 - 1
"""The longest body in bytes that is handed to Flower."""


def flower_line(folder: Path, env: Path | None = None) -> "FlowerLine":
    """Return the line of a deployment whose server is running.

    Args:
        folder: of the deployment.
        env: the environment that Flower is in; by default what FEDLLM_FLWR_VENV says, or what its server runs in.

    Raises:
        ConfigError: if the folder is no deployment, or there is no such environment.
    """
    made = read_deployment(folder)
    return FlowerLine(made, flwr_environment(env, made.folder / "server"))


class FlowerLine:
    """Sites behind Flower's nodes; a context manager, since the relay must end."""

    def __init__(self, deployment: Deployment, env: Path) -> None:
        """Take a deployment and Flower's environment; nothing is started yet."""
        self._deployment, self._env = deployment, env
        self._site_of = {fingerprint: site for site, fingerprint in deployment.sites.items()}
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._lock = threading.RLock()
        # Held while a frame is written; who reads never waits for it, since a relay that writes reads nothing.
        self._writing = threading.Lock()
        self._nodes: dict[str, tuple[str, bool]] = {}
        self._under_way: dict[str, str] = {}
        self._relay: socket.socket | None = None
        self._run_id: str | None = None
        self._unknown: set[str] = set()
        self._is_closed = False
        self._places = tempfile.TemporaryDirectory(prefix="fedllm-")
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> Self:
        """Start the relay and wait until it is there.

        Raises:
            WorkerError: if it does not come.
        """
        path = Path(self._places.name) / "engine.sock"
        self._server.bind(str(path))
        self._server.listen(4)
        self._server.settimeout(0.5)
        threading.Thread(target=self._keep_relay, args=(path,), name="relay", daemon=True).start()
        end = time.monotonic() + _FIRST_SECONDS
        while self._relay is None and time.monotonic() < end:
            time.sleep(0.1)
        if self._relay is None:
            self.__exit__()
            raise WorkerError(
                f"no relay came in {_FIRST_SECONDS:.0f} s from the server of {self._deployment.folder}; see whether "
                f"it is running with fedllm-train deploy status {self._deployment.folder}"
            )
        return self

    def __exit__(self, *error: object) -> None:
        """Let the relay end."""
        self._is_closed = True
        with self._lock:
            if self._relay is not None:
                with suppress(OSError):
                    self._relay.shutdown(socket.SHUT_RDWR)
                self._relay.close()
        self._server.close()
        self._places.cleanup()

    def sites(self) -> Mapping[str, Site]:
        """Return the deployment's sites, and whether each is online now."""
        with self._lock:
            named = {self._site_of[key]: is_online for _, (key, is_online) in self._nodes.items()}
        return {
            site: Site(name=site, fingerprint=key, is_online=named.get(site, False))
            for site, key in self._deployment.sites.items()
        }

    def send(
        self, site: str, key: str, header: Mapping[str, Any], body: bytes | memoryview, *, seconds: float
    ) -> None:
        """Send a request to a site's node; one that is too long comes back as a problem."""
        if len(body) > LARGEST_MESSAGE:
            problem = (
                f"the request is {len(body):,} bytes long; Flower carries {LARGEST_MESSAGE:,}: use a smaller adapter"
            )
            self._events.put(Event(site=site, key=key, problem=problem))
            return
        with self._lock:
            wanted = self._deployment.sites.get(site)
            node = next((node for node, (own, is_there) in self._nodes.items() if own == wanted and is_there), None)
            if self._relay is None or node is None:
                self._events.put(Event(site=site, key=key, problem=f"site {site} is not online"))
                return
            frame = {"op": "task", "node": node, "key": key, "seconds": seconds, "header": dict(header)}
            self._under_way[key] = site
            relay = self._relay
        try:
            with self._writing:
                send_frame(relay, frame, body)
        except OSError:
            with self._lock:
                self._lost(key, "the relay has ended")
            with suppress(OSError):  # half of a frame may have gone: nothing may follow it
                relay.shutdown(socket.SHUT_RDWR)

    def receive(self, seconds: float) -> Event | None:
        """Return what came of some request; None where nothing came within the given seconds."""
        try:
            return self._events.get(timeout=seconds) if seconds > 0 else self._events.get_nowait()
        except queue.Empty:
            return None

    def _keep_relay(self, path: Path) -> None:
        """The thread that starts the relay, listens to it, and starts it again when it has ended."""
        pause = 1.0
        while not self._is_closed:
            started = time.monotonic()
            self._run(path)
            line = self._accept(started)
            if line is None:
                time.sleep(pause)
                pause = min(30.0, 2 * pause)
                continue
            pause = 1.0
            self._listen(line)
            with self._lock:
                self._relay, self._nodes = None, {}
                for key in list(self._under_way):
                    self._lost(key, "the relay has ended")
            if not self._is_closed:
                logger.warning("the relay has ended; it is started again")

    def _run(self, path: Path) -> None:
        """Let Flower start the app; what it returns is not believed."""
        command = [str(self._env / "bin" / "flwr"), "run", str(RELAY), self._deployment.connection, "--format", "json"]
        command += ["-c", f'engine-socket="{path}"']
        try:
            done = subprocess.run(
                command,
                env=environment_of(self._env, self._deployment.flwr_home),
                capture_output=True,
                timeout=120,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            self._run_id = _run_id(done.stdout)
            if self._run_id is None:
                shown = " ".join((done.stdout + done.stderr).decode(errors="replace").split())[-300:]
                logger.warning("flwr run gave no run: %s", shown)
        except (OSError, subprocess.TimeoutExpired) as error:
            logger.warning("flwr run failed: %s", error)

    def _accept(self, started: float) -> socket.socket | None:
        """Wait for the relay to connect."""
        while not self._is_closed and time.monotonic() - started < 90:
            try:
                line, _ = self._server.accept()
            except TimeoutError:
                continue
            except OSError:
                return None
            return line
        return None

    def _listen(self, line: socket.socket) -> None:
        """Take what the relay says until it ends; ask it now and then who is there."""
        asked = 0.0
        line.settimeout(1.0)
        with line:
            while not self._is_closed:
                if time.monotonic() - asked > _ASK_NODES and self._writing.acquire(blocking=False):
                    try:
                        if select.select([], [line], [], 0)[1]:
                            asked = time.monotonic()
                            send_frame(line, {"op": "nodes"})
                    except OSError:
                        return
                    finally:
                        self._writing.release()
                try:
                    if not _is_readable(line):
                        continue
                    line.settimeout(300.0)
                    header, body = receive_frame(line)
                    self._heard(line, header, body)
                except (FrameError, LineClosed, OSError):
                    return
                except (KeyError, TypeError, ValueError) as error:  # no relay of ours says such a thing
                    logger.warning("the relay said what cannot be read (%s)", error)
                    return

    def _heard(self, line: socket.socket, header: dict[str, Any], body: bytearray) -> None:
        if header.get("op") == "nodes":
            nodes = {}
            for node in header["nodes"]:
                key = _fingerprint(node["key"])
                if key in self._site_of:
                    nodes[str(node["id"])] = (key, node["status"] == "online")
                elif key not in self._unknown:
                    self._unknown.add(key)
                    logger.warning("a node with the key %s is none of the deployment's sites and is not asked", key)
            with self._lock:
                self._nodes, self._relay = nodes, line
            return
        if header.get("op") == "hello":
            return
        with self._lock:
            site = self._under_way.pop(str(header.get("key")), None)
        if site is None:
            return
        problem = header.get("problem")
        told = header.get("header")
        self._events.put(
            Event(
                site=site,
                key=str(header["key"]),
                header=told if problem is None and isinstance(told, dict) else None,
                body=body,
                problem=None if problem is None else str(problem)[:500],
            )
        )

    def _lost(self, key: str, reason: str) -> None:
        """Say that a request is not answered any more; called with the lock held."""
        site = self._under_way.pop(key, None)
        if site is not None:
            self._events.put(Event(site=site, key=key, problem=reason))


def _is_readable(line: socket.socket) -> bool:
    return bool(select.select([line], [], [], 0.5)[0])


def _run_id(printed: bytes) -> str | None:
    """The run's number in what `flwr run --format json` prints."""
    try:
        found = json.loads(printed)
        return str(found["run-id"])
    except (ValueError, KeyError, TypeError):
        return None


def _fingerprint(key: str) -> str:
    try:
        return fingerprint_of(bytes.fromhex(key))
    except (ValueError, TypeError):
        return "unreadable"
