"""The subcommand `deploy` of `fedllm-train`: server and sites of a training between organisations, over Flower.

The parser imports no torch.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedllm_data.command_line.dry_run import DryRun
from fedllm_data.command_line.one_line_parser import add_command

__all__ = ["add_deploy_command"]

_KILL_ORDER = ("superlink", "supernode")
_WAIT_SECONDS = 180.0
_CONNECT_SECONDS = 60.0
_CONNECTED = b"SuperNode ID:"
"""What Flower's SuperNode (of the pinned version) writes when the server has let it in."""


def add_deploy_command(commands: Any) -> None:
    """Add `deploy` to the subcommands of `fedllm-train`."""
    deploy = add_command(
        commands,
        "deploy",
        does="set up a training between organisations: keys, kits, and Flower as the line between them",
        writes=True,
        shown=(
            (
                "A deployment with a kit for each site",
                "fedllm-train deploy init d --server localhost:8443 --sites a,b",
            ),
            ("Flower's own environment", "fedllm-train deploy env flwr-env"),
            ("At the server", "fedllm-train deploy server d --env flwr-env"),
            ("At a site", "fedllm-train deploy site d/kits/a --env flwr-env --socket a.sock"),
        ),
    )
    deploy.add_argument(
        "action",
        choices=tuple(_ACTIONS),
        help="init FOLDER; env PATH; server FOLDER; site KIT; status FOLDER; stop FOLDER_OR_KIT",
    )
    deploy.add_argument("place", type=Path, metavar="PLACE", help="the deployment's folder, a site's kit, or a path")
    deploy.add_argument("--server", metavar="HOST:PORT", help="with init: by which the sites reach the server")
    deploy.add_argument("--listen", metavar="HOST:PORT", help="with init: where Flower listens, on this machine alone")
    deploy.add_argument("--sites", metavar="NAME,NAME", help="with init: the sites; more can be added later")
    deploy.add_argument(
        "--env", type=Path, metavar="PATH", help="Flower's environment (FEDLLM_FLWR_VENV, else flwr-env)"
    )
    deploy.add_argument("--socket", type=Path, metavar="PATH", help="with site: the worker's unix socket")
    deploy.add_argument("--foreground", action="store_true", help="with server and site: stay, as systemd wants it")
    deploy.add_argument("--json", action="store_true", help="with status: machine-readable")
    deploy.set_defaults(command=_deploy)


def _deploy(arguments: argparse.Namespace) -> None:
    from fedllm_data.errors import ConfigError

    act, looks_at = _ACTIONS[arguments.action]
    for name in sorted({name for _, names in _ACTIONS.values() for name in names}):
        if getattr(arguments, name) and name not in looks_at:
            raise ConfigError(f"--{name} is given, and deploy {arguments.action} does not look at it; leave it out")
    act(arguments)


def _init(arguments: argparse.Namespace) -> None:
    from fedllm_data.errors import ConfigError
    from fedllm_train.engines.flower.deployment import init_deployment

    for name in ("server", "sites"):
        if getattr(arguments, name) is None:
            raise ConfigError(f"--{name} is not given; write --server HOST:PORT --sites NAME,NAME")
    sites = [name.strip() for name in arguments.sites.split(",")]
    if arguments.dry_run:
        plan = DryRun(
            does=f"make a deployment with {len(sites)} sites",
            reads=["nothing"],
            writes=[f"{arguments.place}: an authority, the server's certificate, and a kit for each site"],
            settings={"server": arguments.server, "sites": ", ".join(sites)},
        )
        print(plan.text())
        return
    made = init_deployment(arguments.place, arguments.server, sites, listen=arguments.listen)
    print(f"{made.folder}: server {made.server}, Flower listens on {made.listen}")
    for site, key in sorted(made.sites.items()):
        print(f"  {site}: key {key[:16]}..., kit {made.folder / 'kits' / f'{site}.tar'}")
    if made.listen != made.server:
        print(
            f"sites reach it through a proxy that passes /v1/fleet/ alone: {made.folder / 'examples' / 'nginx.conf'}"
        )
    print("give each site its kit over a way you trust: it holds the key by which the server knows the site")


def _env(arguments: argparse.Namespace) -> None:
    from fedllm_data.errors import ConfigError, WorkerError
    from fedllm_train.engines.flower.flower_line import RELAY

    wanted = (RELAY / "requirements.txt").read_text(encoding="utf-8").split()
    if arguments.dry_run:
        plan = DryRun(
            does="make Flower's environment", reads=["a package index"], writes=[str(arguments.place)], settings={}
        )
        print(plan.text())
        return
    if (arguments.place / "bin" / "flower-superlink").is_file():
        print(f"{arguments.place} is there")
        return
    if arguments.place.exists() and any(arguments.place.iterdir()):
        raise ConfigError(f"{arguments.place} holds something and is no environment with Flower; choose another path")
    print(f"making {arguments.place} with {', '.join(wanted)} (some 250 MB)", flush=True)
    for command in (
        [sys.executable, "-m", "venv", str(arguments.place)],
        [str(arguments.place / "bin" / "python"), "-m", "pip", "install", "--quiet", *wanted],
    ):
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(command, check=False, env=variables, capture_output=True)
        if done.returncode:
            shown = " ".join(done.stderr.decode(errors="replace").split())[-400:]
            shutil.rmtree(arguments.place, ignore_errors=True)
            raise WorkerError(f"Flower could not be installed: {shown}")
    print(f"{arguments.place} is made; name it with --env, or set FEDLLM_FLWR_VENV")


def _server(arguments: argparse.Namespace) -> None:
    from fedllm_data.errors import WorkerError
    from fedllm_train.engines.flower.deployment import read_deployment
    from fedllm_train.engines.flower.processes import (
        environment_of,
        flwr_environment,
        free_port,
        remember_environment,
        start,
        stop_all,
    )

    made = read_deployment(arguments.place)
    env = flwr_environment(arguments.env, made.folder / "server")
    host, _, port = made.listen.rpartition(":")
    server = made.folder / "server"
    command = [
        str(env / "bin" / "flower-superlink"),
        *("--ssl-ca-certfile", str(made.certificate)),
        *("--ssl-certfile", str(server / "server.crt")),
        *("--ssl-keyfile", str(server / "server.key")),
        "--enable-supernode-auth",
        *("--database", str(server / "state.db")),
        "--disable-runtime-dependency-installation",
        *("--host", host, "--port", port),
        *("--health-server-address", f"127.0.0.1:{free_port()}"),
    ]
    if arguments.dry_run:
        print(DryRun(does="start Flower's server", reads=[str(made.folder)], writes=[str(server)], settings={}).text())
        return
    variables = environment_of(env, made.flwr_home)
    process = start("superlink", command, made.processes, variables=variables, log=server / "superlink.log")
    try:
        end = time.monotonic() + _WAIT_SECONDS
        while (known := _nodes(env, variables)) is None:
            if process.poll() is not None or time.monotonic() > end:
                raise WorkerError(f"Flower's server does not answer on {made.listen}; see {server / 'superlink.log'}")
            time.sleep(1.0)
        for site in sorted(made.sites):
            _register(env, variables, made, site)
        remember_environment(env, server)
    except BaseException:
        stop_all(made.processes)
        raise
    print(f"the server listens on {made.listen} for {len(made.sites)} sites: {', '.join(sorted(made.sites))}")
    print(f"{len(known)} keys were known before; fedllm-train deploy status {made.folder} shows who is there")
    _stay(arguments, process, made.processes)


def _site(arguments: argparse.Namespace) -> None:
    from fedllm_data.errors import ConfigError
    from fedllm_train.engines.flower.deployment import read_kit
    from fedllm_train.engines.flower.processes import environment_of, flwr_environment, free_port

    kit = read_kit(arguments.place)
    if arguments.socket is None:
        raise ConfigError("--socket is not given; name the socket that fedllm-train worker serves on")
    env = flwr_environment(arguments.env)
    if arguments.dry_run:
        reads = [str(kit.folder), str(arguments.socket)]
        print(
            DryRun(does=f"start the relay of {kit.site}", reads=reads, writes=[str(kit.processes)], settings={}).text()
        )
        return
    command = [
        str(env / "bin" / "flower-supernode"),
        *("--root-certificates", str(kit.folder / "ca.crt")),
        *("--superlink", kit.server),
        *("--auth-supernode-private-key", str(kit.folder / "node.key")),
        *("--node-config", f'worker="{arguments.socket.resolve()}"'),
        *("--host", "127.0.0.1", "--port", str(free_port())),
    ]
    variables = environment_of(env, kit.folder / "flwr")
    (kit.folder / "flwr").mkdir(exist_ok=True)
    process = _start_relay(kit, command, variables)
    print(f"it carries what is asked to the worker on {arguments.socket}")
    _stay(arguments, process, kit.processes)


def _start_relay(kit: Any, command: Sequence[str], variables: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start a site's relay; again where the server still takes a former one, which ended without a word, for alive."""
    from fedllm_data.errors import WorkerError
    from fedllm_train.engines.flower.processes import start

    log = kit.folder / "supernode.log"
    end, told = time.monotonic() + _WAIT_SECONDS, False
    while True:
        begun = log.stat().st_size if log.exists() else 0
        process = start("supernode", command, kit.processes, variables=variables, log=log)
        if _is_connected(process, log, begun, seconds=_CONNECT_SECONDS):
            print(f"the relay of {kit.site} is connected to {kit.server}")
            return process
        if process.poll() is None:
            print(f"the relay of {kit.site} has not reached {kit.server} yet; it goes on trying, see {log}")
            return process
        if time.monotonic() > end:
            raise WorkerError(f"the relay of {kit.site} ends at once; see the last lines of {log}")
        if not told:
            print("the relay ended at once; it is tried again, since the server may not have missed a former one yet")
            told = True
        time.sleep(5.0)


def _is_connected(process: "subprocess.Popen[bytes]", log: Path, begun: int, *, seconds: float) -> bool:
    """Wait until a relay says that the server knows it, ends, or the time is over.

    Args:
        process: the relay.
        log: what it writes to.
        begun: length of the log when it was started.
        seconds: how long to wait.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with log.open("rb") as file:
            file.seek(begun)
            if _CONNECTED in file.read():
                return process.poll() is None
        if process.poll() is not None:
            return False
        time.sleep(0.2)
    return False


def _status(arguments: argparse.Namespace) -> None:
    from fedllm_train.engines.flower.deployment import read_deployment
    from fedllm_train.engines.flower.processes import environment_of, flwr_environment, running

    made = read_deployment(arguments.place)
    env = flwr_environment(arguments.env, made.folder / "server")
    is_running = "superlink" in running(made.processes)
    nodes = _nodes(env, environment_of(env, made.flwr_home)) if is_running else None
    by_number = {str(node.get("node-id")): str(node.get("status", "unknown")) for node in nodes or []}
    numbers = _numbers(made)
    told = {site: by_number.get(numbers.get(site, ""), "not known") for site in made.sites}
    if arguments.json:
        print(json.dumps({"server": {"listen": made.listen, "is_running": is_running}, "sites": told}, indent=2))
        return
    print(f"server on {made.listen}: {'running' if is_running else 'not running'}")
    for site, status in sorted(told.items()):
        print(f"  {site}: {status}")


def _stop(arguments: argparse.Namespace) -> None:
    from fedllm_train.engines.flower.deployment import read_deployment, read_kit
    from fedllm_train.engines.flower.processes import stop_all

    is_kit = (arguments.place / "site.yaml").is_file()
    place = read_kit(arguments.place).processes if is_kit else read_deployment(arguments.place).processes
    if arguments.dry_run:
        print(DryRun(does="end Flower's programs", reads=[str(place)], writes=["nothing"], settings={}).text())
        return
    ended = stop_all(place, _KILL_ORDER)
    print(f"ended: {', '.join(ended)}" if ended else "nothing was running")


def _stay(arguments: argparse.Namespace, process: "subprocess.Popen[bytes]", notes: Path) -> None:
    """With --foreground, wait until the program ends, and end what it leaves."""
    if not arguments.foreground:
        return
    import signal

    from fedllm_data.errors import WorkerError
    from fedllm_train.engines.flower.processes import stop_all

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        code = process.wait()
        raise WorkerError(f"it ended with code {code}")
    except KeyboardInterrupt:
        print("stopping", flush=True)
    finally:
        stop_all(notes, _KILL_ORDER)


def _nodes(env: Path, variables: dict[str, str]) -> list[dict[str, Any]] | None:
    """The nodes that Flower's server knows; None where it does not answer."""
    done = _flwr(env, variables, ["supernode", "list", "deployment", "--verbose", "--format", "json"])
    try:
        found = json.loads(done.stdout)
        return list(found["nodes"]) if found.get("success", True) else None
    except (ValueError, KeyError, TypeError):
        return None


def _register(env: Path, variables: dict[str, str], made: Any, site: str) -> None:
    """Let Flower's server know a site's key, and note the number it gives it; a key that it knows is as good."""
    from fedllm_data.errors import WorkerError
    from fedllm_data.in_place import write_file

    key = made.public_key(site)
    done = _flwr(env, variables, ["supernode", "register", str(key), "deployment", "--format", "json"])
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = {}
    if found.get("success") and "node-id" in found:
        write_file(made.node_numbers, json.dumps({**_numbers(made), site: str(found["node-id"])}, indent=2) + "\n")
    elif "already in use" not in str(found.get("error-message", "")):
        said = " ".join((done.stdout + done.stderr).decode(errors="replace").split())[-300:]
        raise WorkerError(f"the key {key} could not be registered: {said}")


def _numbers(made: Any) -> dict[str, str]:
    """Site -> the number that Flower gave it."""
    return json.loads(made.node_numbers.read_text(encoding="utf-8")) if made.node_numbers.is_file() else {}


def _flwr(env: Path, variables: dict[str, str], words: Sequence[str]) -> "subprocess.CompletedProcess[bytes]":
    command = [str(env / "bin" / "flwr"), *words]
    return subprocess.run(
        command, env=variables, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=120
    )


_ACTIONS: dict[str, tuple[Callable[[argparse.Namespace], None], tuple[str, ...]]] = {
    "init": (_init, ("server", "listen", "sites")),
    "env": (_env, ()),
    "server": (_server, ("env", "foreground")),
    "site": (_site, ("env", "socket", "foreground")),
    "status": (_status, ("env", "json")),
    "stop": (_stop, ()),
}
"""Action -> what does it, and the flags that it looks at."""
