"""The folder of a deployment: who the server is, which sites there are, and a kit for each of them.

    deployment.yaml      addresses, and each site's key by its fingerprint
    authority/           certificate and key that sign the server's; the key stays with the server's owner
    server/              the server's certificate and key, Flower's database and logs
    sites/NAME.pub       the sites' public keys
    kits/NAME, NAME.tar  what a site is given
    flwr/                Flower's own settings
    examples/            a proxy that lets sites through and nothing else, and units for systemd

Imports no torch, and `cryptography` only to make keys.
"""

import importlib.resources
import importlib.util
import ipaddress
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fedllm_data.errors import ConfigError
from fedllm_data.in_place import write_file

__all__ = ["Deployment", "Kit", "init_deployment", "read_deployment", "read_kit"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_CONNECTION = "deployment"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A deployment's folder."""

    folder: Path
    server: str
    """HOST:PORT by which sites reach the server."""
    listen: str
    """HOST:PORT on which Flower listens, on this machine alone."""
    sites: dict[str, str]
    """Site -> fingerprint of its key."""

    connection: str = _CONNECTION
    """The deployment's name in Flower's settings."""

    @property
    def flwr_home(self) -> Path:
        """Where Flower's settings are."""
        return self.folder / "flwr"

    @property
    def certificate(self) -> Path:
        """The authority's."""
        return self.folder / "authority" / "ca.crt"

    @property
    def processes(self) -> Path:
        """Where the process ids of its programs are noted."""
        return self.folder / "server" / "processes"

    @property
    def node_numbers(self) -> Path:
        """Where the numbers are noted that Flower gave the sites."""
        return self.folder / "server" / "nodes.json"

    def public_key(self, site: str) -> Path:
        """Return the file of a site's public key."""
        return self.folder / "sites" / f"{site}.pub"


@dataclass(frozen=True, kw_only=True)
class Kit:
    """What a site was given."""

    folder: Path
    site: str
    server: str
    """HOST:PORT of the server."""

    @property
    def processes(self) -> Path:
        """Where the process ids of its programs are noted."""
        return self.folder / "processes"


def init_deployment(folder: Path, server: str, sites: Sequence[str], *, listen: str | None = None) -> Deployment:
    """Make a deployment's folder, or add sites to one; no key that is there is replaced.

    Args:
        folder: of the deployment.
        server: HOST:PORT by which the sites reach the server.
        sites: names of the sites.
        listen: HOST:PORT on which Flower listens; by default `server` where that is this machine, else the next port
            on 127.0.0.1, for a proxy beside it.

    Returns:
        The deployment, with all its sites.

    Raises:
        ConfigError: naming what is wrong.
    """
    host, port = _address(server, "--server")
    if listen is None:
        listen = server if _is_loopback(host) else f"127.0.0.1:{port + 1}"
    if not _is_loopback(_address(listen, "--listen")[0]):
        raise ConfigError(
            f"--listen {listen} can be reached from other machines, and whoever reaches it can run programs at every "
            "site; listen on 127.0.0.1 and let a proxy pass /v1/fleet/ on (examples/nginx.conf)"
        )
    if not sites or (odd := next((name for name in sites if not _NAME.fullmatch(name)), None)) is not None:
        what = "names none" if not sites else f"has {odd!r}"
        raise ConfigError(f"--sites {what}; give names of letters, digits, - and _, parted by commas")
    if twice := next((name for name in sites if list(sites).count(name) > 1), None):
        raise ConfigError(f"--sites has {twice!r} twice; give each site a name of its own")
    if importlib.util.find_spec("cryptography") is None:
        raise ConfigError("making keys needs cryptography; pip install -c constraints.txt 'fedllm-commons[sites]'")
    before = read_deployment(folder) if (folder / "deployment.yaml").is_file() else None
    if before is None and folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder} holds something and is no deployment; choose a new folder")
    if before is not None and before.server != server:
        raise ConfigError(
            f"{folder} is a deployment with the server {before.server}, and --server is {server}; its sites know it "
            "by that address, so make another deployment"
        )
    return _make(folder, server, listen if before is None else before.listen, sites, before)


def _make(folder: Path, server: str, listen: str, sites: Sequence[str], before: Deployment | None) -> Deployment:
    from fedllm_train.engines.flower.certificates import (
        fingerprint_of,
        make_authority,
        make_server_certificate,
        make_site_key,
    )

    for name in ("authority", "server", "sites", "kits", "flwr", "examples"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    os.chmod(folder / "authority", 0o700)
    authority = (folder / "authority" / "ca.crt", folder / "authority" / "ca.key")
    if not authority[1].exists():
        make_authority(*authority)
    own = (folder / "server" / "server.crt", folder / "server" / "server.key")
    if not own[1].exists():
        make_server_certificate(_address(server, "--server")[0], authority, *own)
    known = {} if before is None else dict(before.sites)
    for site in sites:
        public, kit = folder / "sites" / f"{site}.pub", folder / "kits" / site
        if not public.exists():
            kit.mkdir(parents=True, exist_ok=True)
            make_site_key(kit / "node.key", public)
            _fill_kit(kit, site, server, authority[0])
        known[site] = fingerprint_of(public.read_bytes())
    made = Deployment(folder=folder, server=server, listen=listen, sites=known)
    record = {"server": server, "listen": listen, "sites": known}
    write_file(folder / "deployment.yaml", yaml.safe_dump(record, sort_keys=False))
    config = f"""[superlink]
default = "{_CONNECTION}"

[superlink.{_CONNECTION}]
address = "{listen}"
root-certificates = "{made.certificate.resolve()}"
"""
    write_file(made.flwr_home / "config.toml", config)
    named = {"SERVER": server, "PORT": str(_address(server, "--server")[1]), "LISTEN": listen}
    for name, source in (("nginx.conf", "nginx.conf"), ("fedllm-server.service", "server.service")):
        write_file(folder / "examples" / name, _filled(source, {**named, "FOLDER": str(folder.resolve())}))
    return made


def _fill_kit(kit: Path, site: str, server: str, certificate: Path) -> None:
    (kit / "ca.crt").write_bytes(certificate.read_bytes())
    write_file(kit / "site.yaml", yaml.safe_dump({"site": site, "server": server}))
    write_file(kit / "worker.yaml", _filled("worker.yaml", {}))
    names = {"SITE": site, "SERVER": server}
    write_file(kit / "README.md", _filled("kit.md", names))
    write_file(kit / "fedllm-site.service", _filled("site.service", names))
    archive = kit.parent / f"{site}.tar"
    with os.fdopen(os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            tar.add(kit, arcname=site)


def read_deployment(folder: Path) -> Deployment:
    """Read a deployment's folder.

    Raises:
        ConfigError: if it is none.
    """
    content = _mapping(
        folder / "deployment.yaml", f"{folder} is no deployment; make one with fedllm-train deploy init"
    )
    try:
        sites = {str(name): str(key) for name, key in dict(content["sites"]).items()}
        return Deployment(folder=folder, server=str(content["server"]), listen=str(content["listen"]), sites=sites)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{folder / 'deployment.yaml'} lacks {error}; make the deployment again") from None


def read_kit(folder: Path) -> Kit:
    """Read a site's kit.

    Raises:
        ConfigError: if it is none.
    """
    content = _mapping(folder / "site.yaml", f"{folder} is no kit of a site; unpack the one you were given")
    for name in ("ca.crt", "node.key"):
        if not (folder / name).is_file():
            raise ConfigError(f"{folder} lacks {name}; unpack the kit again")
    if (folder / "node.key").stat().st_mode & 0o077:
        raise ConfigError(f"{folder / 'node.key'} can be read by others; chmod 600 it")
    try:
        return Kit(folder=folder, site=str(content["site"]), server=str(content["server"]))
    except KeyError as error:
        raise ConfigError(f"{folder / 'site.yaml'} lacks {error}; unpack the kit again") from None


def _mapping(path: Path, otherwise: str) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(otherwise)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is no list of keys and values")
    return content


def _address(text: str, flag: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_535 or re.search(r"[\s/]", host):
        raise ConfigError(f"{flag} {text!r} is no HOST:PORT; write for example fed.example.org:8443")
    return host, int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _filled(source: str, values: dict[str, str]) -> str:
    """A file of `examples/` with its names filled in."""
    text = (importlib.resources.files("fedllm_train.engines.flower") / "examples" / source).read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text
