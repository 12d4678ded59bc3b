"""Real Flower on one machine, with TLS and keys: the bits of one machine, and processes that are killed while it runs.

Runs where the variable FEDLLM_FLWR_VENV names an environment with Flower (`fedllm-train deploy env`).
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from fedllm_data.clients import load_clients
from fedllm_train.engines.flower.certificates import make_site_key
from fedllm_train.engines.flower.processes import running

ENV = os.environ.get("FEDLLM_FLWR_VENV")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ENV, reason="FEDLLM_FLWR_VENV names no environment with Flower"),
]
NAMES = ("north", "south")
WANTED = int(os.environ.get("FEDLLM_KILLS", "2"))
"""How often each kind of process is killed."""
TRAINING = (
    *("--cohort-size", "4", "--local-steps", "4", "--learning-rate", "1e-2", "--max-length", "64", "--seed", "5"),
    *("--bf16", "False", "--use-cpu", "--lora-r", "4", "--strategy", "scaffold", "--wire", "int4"),
)
PROGRAM = "import sys; from fedllm_train.cli import main; sys.exit(main(sys.argv[1:]))"


def begin(words, folder, log):
    with (folder / log).open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, words)],
            stdout=out,
            stderr=out,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def do(words, folder, log="commands.log", code=0):
    process = begin(words, folder, log)
    assert process.wait(300) == code, (folder / log).read_text()[-1500:]


def wait_until(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def flower_processes():
    """Processes of Flower on this machine: number -> command line."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(ENV) in words and ("flwr" in words or "flower" in words):
            found[int(path.parent.name)] = words
    return found


class Line:
    """A deployment with a server, and sites each with a worker and a relay."""

    def __init__(self, places, parts, folder):
        self.places, self.folder, self.workers = places, folder, {}
        do(["deploy", "init", "d", "--server", f"127.0.0.1:{free_port()}", "--sites", ",".join(NAMES)], folder)
        for name, own in zip(NAMES, parts, strict=True):
            (folder / f"{name}.yaml").write_text(yaml.safe_dump({"approve": "auto", "clients": own}))
            self.start_worker(name)
        self.start_server()
        for name in NAMES:
            self.start_relay(name)

    def start_worker(self, name):
        words = ["worker", "--data", self.places / "sft", "--model", self.places / "model", "--policy", f"{name}.yaml"]
        words += ["--socket", f"{name}.sock", "--folder", f"w-{name}"]
        self.workers[name] = begin(words, self.folder, f"{name}.log")
        wait_until((self.folder / f"{name}.sock").exists)

    def start_server(self):
        do(["deploy", "server", "d"], self.folder)

    def start_relay(self, name):
        do(["deploy", "site", f"d/kits/{name}", "--socket", f"{name}.sock"], self.folder)

    def train(self, out, *more):
        words = ["sft", "--engine", "flower", "--deployment", "d", "--model", self.places / "model", "--out", out]
        return begin([*words, *TRAINING, *more], self.folder, f"{out}.log")

    def stop(self):
        do(["deploy", "stop", "d"], self.folder)
        for name in NAMES:
            do(["deploy", "stop", f"d/kits/{name}"], self.folder)
        for worker in self.workers.values():
            worker.terminate()
            assert worker.wait(60) == 0


@pytest.fixture(scope="module")
def places(kit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flower")
    kit.make_model().save_pretrained(folder / "model")
    kit.make_tokenizer().save_pretrained(folder / "model")
    kit.build_repo(folder / "sft", sizes={f"client-{letter}": 5 for letter in "abcdefgh"})
    return folder


@pytest.fixture(scope="module")
def line(places, tmp_path_factory):
    before = set(flower_processes())
    ids = list(load_clients(str(places / "sft")))
    made = Line(places, (ids[::2], ids[1::2]), tmp_path_factory.mktemp("line"))
    yield made
    made.stop()
    wait_until(lambda: set(flower_processes()) <= before, 30)  # nothing is left behind


def expected(places, folder, rounds):
    """The adapter of the same run on one machine."""
    out = f"here{rounds}"
    if not (folder / out).exists():
        words = ["sft", "--data", places / "sft", "--model", places / "model", "--out", out, *TRAINING]
        do([*words, "--num-rounds", rounds], folder)
    return adapter(folder / out)


def adapter(run):
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


def left_out(run):
    return [each for line in (run / "rounds.jsonl").read_text().splitlines() for each in json.loads(line)["left_out"]]


def test_a_run_over_flower_gives_the_bits_of_one_machine(line, places):
    assert line.train("run", "--num-rounds", "3").wait(400) == 0
    assert adapter(line.folder / "run") == expected(places, line.folder, 3)
    assert left_out(line.folder / "run") == []


def kill_some(line, kind, rng):
    """Kill one process of a kind and start it again where its owner would; return whether one was there."""
    if kind in ("superlink", "supernode"):
        name = rng.choice(NAMES)
        notes = line.folder / "d" / ("server" if kind == "superlink" else f"kits/{name}") / "processes"
        number = running(notes).get(kind)
        if number is None:
            return False
        os.kill(number, signal.SIGKILL)
        place = "d" if kind == "superlink" else f"d/kits/{name}"
        do(["deploy", "stop", place], line.folder)  # what a killed program left behind goes, too
        line.start_server() if kind == "superlink" else line.start_relay(name)
        return True
    word = {"serverapp": "flwr-serverapp", "clientapp": "flwr-clientapp"}.get(kind)
    if kind == "worker":
        name = rng.choice(NAMES)
        line.workers[name].kill()
        line.workers[name].wait()
        line.start_worker(name)
        return True
    found = [number for number, words in flower_processes().items() if word in words]
    for number in found:
        os.kill(number, signal.SIGKILL)
    return bool(found)


@pytest.mark.parametrize("kind", ["worker", "serverapp", "clientapp", "supernode", "superlink"])
def test_killed_processes_change_no_bit(line, places, kind):
    rng, kills, runs = random.Random(kind), 0, 0
    while kills < WANTED:
        out = f"{kind}{runs}"
        runs += 1
        run = line.train(out, "--num-rounds", "6")
        wait_until(lambda out=out, run=run: (line.folder / out).is_dir() or run.poll() is not None)
        while run.poll() is None and kills < WANTED:
            time.sleep(rng.uniform(1.0, 12.0))
            kills += run.poll() is None and kill_some(line, kind, rng)
        assert run.wait(900) == 0, (line.folder / f"{out}.log").read_text()[-1500:]
        assert adapter(line.folder / out) == expected(places, line.folder, 6)
        assert left_out(line.folder / out) == []


def test_a_server_that_is_killed_resumes(line, places):
    rng, kills, runs = random.Random("server"), 0, 0
    while kills < WANTED:
        out = f"resumed{runs}"
        runs += 1
        run = line.train(out, "--num-rounds", "6")
        wait_until(lambda out=out, run=run: (line.folder / out / "config.yaml").exists() or run.poll() is not None)
        while run.poll() is None and kills < WANTED:
            time.sleep(rng.uniform(0.5, 20.0))
            if run.poll() is None:
                run.kill()
                run.wait()
                kills += 1
                run = line.train(out, "--num-rounds", "6", "--resume")
        assert run.wait(900) == 0, (line.folder / f"{out}.log").read_text()[-1500:]
        assert adapter(line.folder / out) == expected(places, line.folder, 6)
        assert left_out(line.folder / out) == []


def test_a_key_that_is_not_registered_gets_nothing(line):
    kit = line.folder / "d" / "kits" / "stranger"
    kit.mkdir()
    for name in ("ca.crt", "worker.yaml"):
        (kit / name).write_bytes((line.folder / "d" / "kits" / "north" / name).read_bytes())
    known = yaml.safe_load((line.folder / "d" / "kits" / "north" / "site.yaml").read_text())
    (kit / "site.yaml").write_text(yaml.safe_dump({**known, "site": "stranger"}))
    make_site_key(kit / "node.key", kit / "node.pub")
    do(["deploy", "site", kit, "--socket", "north.sock"], line.folder, log="stranger.log", code=2)
    assert "the relay of stranger ends at once" in (line.folder / "stranger.log").read_text()
    assert "305" in (kit / "supernode.log").read_text()
    assert running(kit / "processes") == {}


def test_a_server_with_another_certificate_is_not_believed(line, tmp_path):
    other = tmp_path / "kit"
    do(["deploy", "init", tmp_path / "other", "--server", "127.0.0.1:8443", "--sites", "north"], line.folder)
    other.mkdir()
    for name in ("node.key", "site.yaml"):
        (other / name).write_bytes((line.folder / "d" / "kits" / "north" / name).read_bytes())
    (other / "node.key").chmod(0o600)
    (other / "ca.crt").write_bytes((tmp_path / "other" / "authority" / "ca.crt").read_bytes())
    do(["deploy", "site", other, "--socket", "north.sock"], line.folder, log="other.log", code=2)
    assert "the relay of north ends at once" in (line.folder / "other.log").read_text()
    assert "certificate" in (other / "supernode.log").read_text().lower()
    assert running(other / "processes") == {}
