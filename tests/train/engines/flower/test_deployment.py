"""A deployment without Flower itself: keys and certificates, kits, what is refused, and the relay's copy of frames."""

import importlib.util
import os
import random
import socket
import ssl
import stat
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
import yaml

from fedllm_data.errors import ConfigError
from fedllm_train.cli import main
from fedllm_train.engines.flower import deploy_command, processes
from fedllm_train.engines.flower.certificates import fingerprint_of
from fedllm_train.engines.flower.deployment import init_deployment, read_deployment, read_kit
from fedllm_train.engines.flower.flower_line import RELAY, flower_line
from fedllm_train.engines.remote.frames import receive_frame, send_frame

pytest.importorskip("cryptography")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    return init_deployment(tmp_path_factory.mktemp("d") / "d", "localhost:8443", ["north", "south"])


def handshake(deployment, authority, name):
    """What a client that trusts an authority makes of the server's certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(deployment.folder / "server" / "server.crt", deployment.folder / "server" / "server.key")
    client = ssl.create_default_context(cafile=str(authority))
    here, there = socket.socketpair()

    def answer():
        try:
            server.wrap_socket(there, server_side=True).close()
        except (ssl.SSLError, OSError):
            there.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname=name) as line:
            return line.version()
    finally:
        here.close()
        thread.join()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_servers_certificate_holds_for_who_trusts_the_authority(deployment, name):
    assert handshake(deployment, deployment.certificate, name) == "TLSv1.3"


def test_it_does_not_hold_for_another_name_or_authority(deployment, tmp_path):
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(deployment, deployment.certificate, "elsewhere.example.org")
    other = init_deployment(tmp_path / "other", "localhost:8443", ["north"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(deployment, other.certificate, "localhost")


def test_a_kit_holds_what_a_site_needs_and_nothing_of_the_server(deployment):
    folder = deployment.folder / "kits" / "north"
    kit = read_kit(folder)
    assert (kit.site, kit.server) == ("north", "localhost:8443")
    with tarfile.open(deployment.folder / "kits" / "north.tar") as tar:
        names = sorted(Path(each).name for each in tar.getnames())
        modes = {Path(each.name).name: each.mode & 0o777 for each in tar.getmembers()}
    assert names == sorted(["north", *(each.name for each in folder.iterdir())])
    assert modes["node.key"] == 0o600
    for path in (
        folder / "node.key",
        deployment.folder / "authority" / "ca.key",
        deployment.folder / "kits" / "north.tar",
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (folder / "ca.crt").read_bytes() == deployment.certificate.read_bytes()
    assert fingerprint_of(deployment.public_key("north").read_bytes()) == deployment.sites["north"]
    assert deployment.sites["north"] != deployment.sites["south"]
    policy = yaml.safe_load((folder / "worker.yaml").read_text())
    from fedllm_train.engines.remote.policy import read_policy

    assert policy["approve"] == "ask"
    assert read_policy(folder / "worker.yaml").min_rows == 5


def test_a_second_init_adds_sites_and_replaces_no_key(tmp_path):
    first = init_deployment(tmp_path / "d", "fed.example.org:8443", ["north"])
    before = {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file() and path.suffix != ".yaml"}
    second = init_deployment(tmp_path / "d", "fed.example.org:8443", ["north", "west"])
    assert set(second.sites) == {"north", "west"}
    assert all(path.read_bytes() == content for path, content in before.items())
    assert read_deployment(tmp_path / "d") == second
    assert second.listen == "127.0.0.1:8444"
    assert "proxy_pass https://127.0.0.1:8444;" in (second.folder / "examples" / "nginx.conf").read_text()
    assert "return 403" in (second.folder / "examples" / "nginx.conf").read_text()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["init", "d", "--server", "x:1"], "--sites is not given"),
        (["init", "d", "--server", "nowhere", "--sites", "a"], "no HOST:PORT"),
        (["init", "d", "--server", "x:99999", "--sites", "a"], "no HOST:PORT"),
        (["init", "d", "--server", "x:1", "--sites", "a,../b"], "--sites has '../b'"),
        (["init", "d", "--server", "x:1", "--sites", "a,a"], "has 'a' twice"),
        (["init", "d", "--server", "x:1", "--sites", "a", "--listen", "0.0.0.0:8443"], "can be reached from other"),
        (["init", "d", "--server", "x:1", "--sites", "a", "--socket", "s"], "--socket is given, and deploy init"),
        (["server", "d"], "d is no deployment"),
        (["site", "d", "--socket", "s"], "d is no kit"),
        (["status", "d"], "d is no deployment"),
        (["stop", "d"], "d is no deployment"),
    ],
)
def test_bad_input_gets_one_line(words, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["deploy", *words]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["deploy", "init", str(tmp_path), "--server", "x:1", "--sites", "a"]) == 2
    assert "holds something and is no deployment" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_key_that_others_can_read_is_refused(tmp_path):
    made = init_deployment(tmp_path / "d", "x:1", ["north"])
    key = made.folder / "kits" / "north" / "node.key"
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others; chmod 600"):
        read_kit(made.folder / "kits" / "north")


def test_without_flowers_environment_one_line_says_how_to_make_it(deployment, monkeypatch, tmp_path):
    monkeypatch.delenv("FEDLLM_FLWR_VENV", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="fedllm-train deploy env flwr-env"):
        flower_line(deployment.folder)


def test_the_relay_has_the_same_frames():
    """Its environment does not have our package, so it has a copy."""
    place = importlib.util.spec_from_file_location("relay_frames", RELAY / "fedrelay" / "frames.py")
    theirs = importlib.util.module_from_spec(place)
    place.loader.exec_module(theirs)
    rng = random.Random(0)
    for _ in range(50):
        header = {"kind": rng.choice("abc"), "number": rng.randrange(10**9), "text": "ä" * rng.randrange(5)}
        body = rng.randbytes(rng.choice([0, 1, 5000, 200_000]))
        here, there = socket.socketpair()
        with here, there:
            sender = threading.Thread(target=theirs.send, args=(here, header, body))
            sender.start()
            assert receive_frame(there) == (header, body)
            sender.join()
            sender = threading.Thread(target=send_frame, args=(there, header, body))
            sender.start()
            assert theirs.receive(here) == (header, body)
            sender.join()
    here, there = socket.socketpair()
    with here:
        there.close()
        with pytest.raises(EOFError):
            theirs.receive(here)


def test_nothing_of_the_package_imports_flower():
    package = Path(__file__).parents[4] / "fedllm_train"
    for path in [*package.rglob("*.py"), *package.with_name("fedllm_data").rglob("*.py")]:
        if RELAY not in path.parents:
            lines = path.read_text(encoding="utf-8").splitlines()
            assert not [line for line in lines if line.strip().startswith(("import flwr", "from flwr"))], path
    words = (RELAY / "requirements.txt").read_text().split()
    assert words == [word for word in words if "==" in word]
    assert f'"{words[0]}"' in (RELAY / "pyproject.toml").read_text()


def test_a_program_is_ended_with_what_it_began(tmp_path):
    child = "import time; time.sleep(600)"
    program = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(600)"
    started = processes.start(
        "superlink", [sys.executable, "-c", program], tmp_path, variables=dict(os.environ), log=tmp_path / "log"
    )
    end = time.monotonic() + 20
    while len(members(started.pid)) < 2:
        assert time.monotonic() < end
    assert processes.running(tmp_path) == {"superlink": started.pid}
    with pytest.raises(ConfigError, match="superlink is running"):
        processes.start("superlink", ["true"], tmp_path, variables={}, log=tmp_path / "log")
    assert processes.stop_all(tmp_path) == ["superlink"]
    assert started.wait(10) < 0
    assert members(started.pid) == []
    assert processes.running(tmp_path) == {}
    assert processes.stop_all(tmp_path) == []


def members(group):
    done = subprocess.run(["ps", "-o", "pid=,stat=", "-g", str(group)], capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if "Z" not in line]


def test_the_environment_is_what_is_said_or_what_the_server_runs_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDLLM_FLWR_VENV", raising=False)
    for name in ("given", "variable", "remembered", "flwr-env"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / "flower-superlink").touch()
    server = tmp_path / "server"
    server.mkdir()
    assert processes.flwr_environment(None, server) == tmp_path / "flwr-env"
    processes.remember_environment(tmp_path / "remembered", server)
    assert processes.flwr_environment(None, server) == tmp_path / "remembered"
    monkeypatch.setenv("FEDLLM_FLWR_VENV", "variable")
    assert processes.flwr_environment(None, server) == tmp_path / "variable"
    assert processes.flwr_environment(Path("given"), server) == tmp_path / "given"
    with pytest.raises(ConfigError, match="nowhere is no environment with Flower"):
        processes.flwr_environment(Path("nowhere"), server)


LEFT_RUNNING = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""A command leaves its program running, as it should."""
RELAY_OF_OURS = """#!{python}
import pathlib, sys, time
place = pathlib.Path({place!r})
place.write_text(place.read_text() + "+" if place.exists() else "+")
if len(place.read_text()) < {good}:
    time.sleep({seconds})
    sys.exit("Exit Code: 305")
print("INFO :      SuperNode ID: 42", flush=True)
time.sleep(600)
"""


@pytest.fixture
def start_site(tmp_path, monkeypatch):
    """Starts a site whose relay is let in at its n-th start; the site's programs are ended afterwards."""
    init_deployment(tmp_path / "d", server="127.0.0.1:1", sites=["north"])
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "flower-superlink").touch()
    monkeypatch.setattr(deploy_command.time, "sleep", lambda seconds: None)
    kit = tmp_path / "d" / "kits" / "north"

    def start(good, seconds=0.0):
        program = tmp_path / "env" / "bin" / "flower-supernode"
        text = RELAY_OF_OURS.format(python=sys.executable, place=str(tmp_path / "starts"), good=good, seconds=seconds)
        program.write_text(text)
        program.chmod(0o755)
        return main(["deploy", "site", str(kit), "--env", str(tmp_path / "env"), "--socket", "worker.sock"])

    yield start
    processes.stop_all(kit / "processes")


@LEFT_RUNNING
def test_a_relay_that_is_not_let_in_is_started_again_until_it_is(start_site, tmp_path, capsys):
    assert start_site(good=3, seconds=0.5) == 0
    assert (tmp_path / "starts").read_text() == "+++"
    said = capsys.readouterr().out
    assert said.count("it is tried again") == 1
    assert "the relay of north is connected to 127.0.0.1:1" in said
    assert "SuperNode ID: 42" in (tmp_path / "d" / "kits" / "north" / "supernode.log").read_text()


@LEFT_RUNNING
def test_a_relay_that_was_let_in_before_is_not_believed_of_its_next_start(start_site, tmp_path, capsys):
    assert start_site(good=1) == 0
    processes.stop_all(tmp_path / "d" / "kits" / "north" / "processes")
    (tmp_path / "starts").unlink()
    assert start_site(good=2) == 0
    assert (tmp_path / "starts").read_text() == "++"
