"""Where a command line lets clients be visited. Imports no torch, and no engine before it is chosen."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_data.unique_keys import read_yaml

if TYPE_CHECKING:
    from fedllm_data.clients import ClientDataset
    from fedllm_train.config import RunInput
    from fedllm_train.engines.remote.line import Line
    from fedllm_train.engines.remote.seats import RemoteOptions
    from fedllm_train.engines.remote.site_clients import SiteClients
    from fedllm_train.loaded_run import EngineMaker

__all__ = [
    "OF_SITES",
    "check_deployment",
    "check_engine",
    "engine_maker",
    "line_of",
    "options_of",
    "socket_sites",
    "training_clients",
    "whose_clients",
]

OF_SITES = ("sockets", "flower")
"""Engines whose clients are at other organisations."""
_ENGINES = ("process", "ray", *OF_SITES)


def check_engine(run: "RunInput") -> None:
    """Refuse an engine that is none, and settings that it does not look at.

    Raises:
        ConfigError: naming the setting.

    >>> from fedllm_train.config import RunInput
    >>> check_engine(RunInput(data="d", model="m", min_sites=2))
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: min_sites is 2, and the engine process has no sites; leave it out
    """
    if run.engine not in _ENGINES:
        raise ConfigError(
            f"engine {run.engine!r} is unknown; {did_you_mean(run.engine, _ENGINES)}choose from {', '.join(_ENGINES)}"
        )
    at_sites = run.engine in OF_SITES
    for name in ("deployment", "round_deadline", "min_sites"):
        if not at_sites and (value := getattr(run, name)) is not None:
            raise ConfigError(f"{name} is {value}, and the engine {run.engine} has no sites; leave it out")
    for name in ("num_actors", "ray_address"):
        if run.engine != "ray" and (value := getattr(run, name)) is not None:
            raise ConfigError(f"{name} is {value}, and the engine is {run.engine}; leave it out, or choose ray")
    for name in ("round_deadline", "min_sites", "num_actors"):
        if (value := getattr(run, name)) is not None and value <= 0:
            raise ConfigError(f"{name} is {value}; it must be positive")
    if at_sites and run.deployment is None:
        what = "a YAML file with the sockets of its sites" if run.engine == "sockets" else "the deployment's folder"
        raise ConfigError(f"engine is {run.engine}, and deployment is not given; name {what}")
    if at_sites and run.data is not None:
        raise ConfigError(f"data {run.data!r} is given, and the clients are at sites; leave it out")
    if run.data is None and not at_sites:
        raise ConfigError("the following arguments are required: --data; --help-all lists all flags")
    if run.engine == "ray":
        from fedllm_train.engines.ray_engine import check_ray

        check_ray()


def check_deployment(run: "RunInput") -> None:
    """Refuse a deployment that is not there.

    Raises:
        ConfigError: naming it.
    """
    if run.deployment is not None and not Path(run.deployment).exists():
        raise ConfigError(f"deployment {run.deployment!r} is not there; make it with fedllm-train deploy init")


def socket_sites(path: Path) -> dict[str, Path]:
    """Read the sites of a file and the unix sockets of their workers.

    Args:
        path: YAML, such as `sites: {north: north.sock, south: south.sock}`; relative paths are beside the file.

    Raises:
        ConfigError: naming the file and what is wrong.
    """
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"deployment {path} cannot be read: {' '.join(str(error).split())[:200]}") from None
    sites = content.get("sites") if isinstance(content, dict) else None
    if not isinstance(sites, dict) or not sites:
        raise ConfigError(f"deployment {path} names no sites; write sites: {{north: north.sock, south: south.sock}}")
    if others := [name for name in content if name != "sites"]:
        raise ConfigError(f"deployment {path} has {others[0]!r}, which no deployment has; it names sites alone")
    found: dict[str, Path] = {}
    for name, place in sites.items():
        for what, text in (("name", name), ("socket", place)):
            if not isinstance(text, str) or not text.strip() or not text.isprintable():
                raise ConfigError(
                    f"deployment {path}: {text!r} is no {what} of a site; write sites: {{north: north.sock}}, in "
                    "quotes if it looks like a number"
                )
        found[name] = (path.parent / place).resolve()
        if twice := [other for other in found if other != name and found[other] == found[name]]:
            raise ConfigError(f"deployment {path}: {twice[0]!r} and {name!r} have one socket; give each its own")
    return found


def line_of(engine: str, deployment: Path) -> "Line":
    """Return the line to the sites of a deployment, not yet open.

    Args:
        engine: `sockets` or `flower`.
        deployment: a YAML file for sockets, a deployment's folder for Flower.

    Raises:
        ConfigError: if the deployment is none.
    """
    if engine == "sockets":
        from fedllm_train.engines.remote.socket_line import SocketLine

        return SocketLine(socket_sites(deployment))
    from fedllm_train.engines.flower.flower_line import flower_line

    return flower_line(deployment)


def options_of(run: "RunInput") -> "RemoteOptions":
    """Return how a command line deals with sites."""
    from fedllm_train.engines.remote.seats import RemoteOptions

    return RemoteOptions(deadline=run.round_deadline, min_sites=run.min_sites)


def whose_clients(run: "RunInput") -> str:
    """Return whose rows a command line trains on, for people."""
    return f"the sites of {run.deployment}" if run.data is None else run.data


@contextmanager
def training_clients(run: "RunInput") -> Iterator["ClientDataset | SiteClients"]:
    """Yield the training clients: here, or at the sites of a deployment, whose line is open meanwhile.

    Raises:
        ConfigError: if two sites cannot train together.
        WorkerError: if too few sites answer.
    """
    if run.data is not None:
        from fedllm_data.clients import load_clients

        yield load_clients(run.data, split="train", revision=run.data_revision)
        return
    from fedllm_train.engines.remote.site_clients import clients_at_sites

    place = Path(str(run.deployment))
    with line_of(run.engine, place) as line:
        clients = clients_at_sites(line, min_sites=run.min_sites, name=f"the sites of {place.name}")
        held = ", ".join(f"{site} {len(facts.ids):,}" for site, facts in sorted(clients.facts.items()))
        print(f"fedllm-train: {len(clients):,} clients at {len(clients.facts)} sites: {held}", file=sys.stderr)
        yield clients


def engine_maker(run: "RunInput", clients: Any, folder: Path) -> "EngineMaker | None":
    """Return what makes the engine, where it is neither this process nor sites.

    Args:
        run: what the command line says.
        clients: the training clients.
        folder: the run's.
    """
    if run.engine != "ray":
        return None
    from fedllm_train.engines.ray_engine import ray_engine

    return lambda spec, host: ray_engine(spec, clients, folder, num_actors=run.num_actors, address=run.ray_address)
