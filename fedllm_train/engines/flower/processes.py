"""Flower's programs: started in a group of their own with a note of their process id, ended with all they began."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fedllm_data.errors import ConfigError, WorkerError
from fedllm_data.in_place import write_file

__all__ = [
    "environment_of",
    "flwr_environment",
    "free_port",
    "is_alive",
    "remember_environment",
    "running",
    "start",
    "stop_all",
]

_PATIENCE = 15.0
_REMEMBERED = "environment"


def flwr_environment(given: Path | None, server: Path | None = None) -> Path:
    """Return the environment that Flower is in.

    Args:
        given: by the caller; by default the variable FEDLLM_FLWR_VENV says it.
        server: the folder of a deployment's server, which remembers what it was last started with; else it is
            `flwr-env` in the working folder.

    Raises:
        ConfigError: if there is none.
    """
    said = given or os.environ.get("FEDLLM_FLWR_VENV")
    if not said and server is not None and (server / _REMEMBERED).is_file():
        said = (server / _REMEMBERED).read_text(encoding="utf-8")
    place = Path(said or "flwr-env")
    if not (place / "bin" / "flower-superlink").is_file():
        raise ConfigError(f"{place} is no environment with Flower; make one with fedllm-train deploy env {place}")
    return place.resolve()


def remember_environment(env: Path, server: Path) -> None:
    """Let commands about a deployment find the environment that its server runs in."""
    write_file(server / _REMEMBERED, str(env))


def environment_of(env: Path, home: Path) -> dict[str, str]:
    """Return the variables of Flower's programs: its own packages, settings of the deployment, no calls home."""
    ours = ("PYTHON", "FLWR_", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {
        **kept,
        "PATH": f"{env / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_HOME": str(home.resolve()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }


def start(
    name: str, command: Sequence[str], folder: Path, *, variables: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own.

    Args:
        name: under which its process id is noted.
        command: the program and its arguments.
        folder: of the notes.
        variables: its environment.
        log: to which its output is appended.

    Raises:
        ConfigError: if it is running already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (number := running(folder).get(name)) is not None:
        raise ConfigError(f"{name} is running (process {number}); fedllm-train deploy stop ends it")
    with log.open("ab") as out:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=dict(variables),
            start_new_session=True,
        )
    (folder / f"{name}.pid").write_text(f"{process.pid} {_birth(process.pid)}\n", encoding="utf-8")
    return process


def running(folder: Path) -> dict[str, int]:
    """Return the programs of a folder that are alive: name -> process id."""
    found = {}
    for path in sorted(folder.glob("*.pid")):
        number, _, birth = path.read_text(encoding="utf-8").strip().partition(" ")
        # A number may have been given to another process since.
        if number.isdecimal() and is_alive(int(number)) and _birth(int(number)) == birth:
            found[path.stem] = int(number)
    return found


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_alive(number: int) -> bool:
    """Return whether a process is there and has not ended."""
    try:
        text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def stop_all(folder: Path, names: Sequence[str] = ()) -> list[str]:
    """End programs with everything they started, in the order of `names`, those not named last.

    Args:
        folder: of the notes.
        names: which go first.

    Returns:
        What was ended.

    Raises:
        WorkerError: if a process does not end.
    """
    alive = running(folder)
    order = [name for name in names if name in alive] + sorted(set(alive) - set(names))
    for name in order:
        _end_group(alive[name], name)
    # Groups of programs that had ended by themselves may still have children.
    for path in folder.glob("*.pid"):
        number = path.read_text(encoding="utf-8").partition(" ")[0]
        if number.isdecimal() and path.stem not in alive and _members(int(number)):
            _end_group(int(number), path.stem)
            order.append(f"{path.stem}'s children")
        path.unlink(missing_ok=True)
    return order


def _end_group(number: int, name: str) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(number, sign)
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            if not _members(number):
                return
            time.sleep(0.1)
    raise WorkerError(f"{name} (process {number}) does not end; look at it with ps")


def _members(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z" and int(fields[2]) == group:
            found.append(int(path.parent.name))
    return found


def _birth(number: int) -> str:
    """When a process began, in the system's ticks; nothing where it is not there."""
    try:
        return Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return ""
