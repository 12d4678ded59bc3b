"""Real processes that are killed at drawn moments: the run goes on or is resumed, and ends with the same adapter."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import yaml

from fedllm_data.clients import load_clients
from fedllm_train.engines.remote.worker_server import listening, serve

pytestmark = pytest.mark.slow
FLAGS = (
    *(
        "--num-rounds",
        "5",
        "--cohort-size",
        "4",
        "--local-steps",
        "4",
        "--learning-rate",
        "1e-2",
        "--max-length",
        "64",
    ),
    *("--bf16", "False", "--use-cpu", "--lora-r", "4", "--strategy", "scaffold", "--wire", "int4", "--seed", "5"),
)

SUMMED = ("--wire", "none", "--secure-sum", "True")
"""Later flags win."""
EITHER = pytest.mark.parametrize("flags", [(), SUMMED], ids=["updates", "secure sums"])


class Command:
    """A command in a process of its own."""

    def __init__(self, words, log, folder):
        self.words, self.log, self.folder = words, log, folder
        self.start()

    def start(self):
        program = "import sys; from fedllm_train.cli import main; sys.exit(main(sys.argv[1:]))"
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, *self.words],
                stdout=out,
                stderr=out,
                cwd=self.folder,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def sites(remote, tmp_path):
    """Three workers with clients of their own, each a process; ended when the test is over."""
    data, names = str(remote.places / "sft"), {}
    started = []
    for name, own in remote.parts_of(load_clients(data), 3).items():
        policy = tmp_path / f"{name}.yaml"
        policy.write_text(yaml.safe_dump({"approve": "auto", "clients": own}))
        words = ["worker", "--data", data, "--model", str(remote.places / "model"), "--policy", str(policy)]
        words += ["--socket", f"{name}.sock", "--folder", f"w-{name}"]
        started.append(Command(words, tmp_path / f"{name}.log", tmp_path))
        names[name] = f"{name}.sock"
    (tmp_path / "sites.yaml").write_text(yaml.safe_dump({"sites": names}))
    wait_until(lambda: all((tmp_path / path).exists() for path in names.values()))
    yield started
    for each in started:
        each.process.terminate()
        assert each.process.wait(60) == 0


def run_of(remote, tmp_path, out, *more):
    words = ["sft", "--engine", "sockets", "--deployment", "sites.yaml", "--model", str(remote.places / "model")]
    return Command([*words, "--out", out, *FLAGS, *more], tmp_path / f"{out}.log", tmp_path)


def adapter(folder):
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def whole(remote, tmp_path, flags):
    run = run_of(remote, tmp_path, "whole", *flags)
    assert run.process.wait(300) == 0
    return adapter(tmp_path / "whole")


@EITHER
def test_workers_killed_ten_times_change_no_bit(remote, tmp_path, sites, flags):
    expected, rng, kills = whole(remote, tmp_path, flags), random.Random(1), 0
    while kills < 10:
        out = f"run{kills}"
        run = run_of(remote, tmp_path, out, *flags)
        wait_until(lambda out=out: (tmp_path / out).is_dir())
        while run.process.poll() is None and kills < 10:
            time.sleep(rng.uniform(0.2, 2.0))
            victim = rng.choice(sites)
            victim.kill()
            kills += 1
            victim.start()
        assert run.process.wait(300) == 0
        assert adapter(tmp_path / out) == expected
        records = [json.loads(line) for line in (tmp_path / out / "rounds.jsonl").read_text().splitlines()]
        assert all(record["left_out"] == [] for record in records)


@EITHER
def test_a_server_killed_ten_times_resumes_to_the_same_bits(remote, tmp_path, sites, flags):
    expected, rng, kills, runs = whole(remote, tmp_path, flags), random.Random(2), 0, 0
    while kills < 10:
        out, more = f"run{runs}", flags
        runs += 1
        while True:
            run = run_of(remote, tmp_path, out, *more)
            wait_until(lambda out=out, run=run: (tmp_path / out).is_dir() or run.process.poll() is not None)
            time.sleep(rng.uniform(0.2, 6.0))
            if kills == 10 or run.process.poll() is not None:
                break
            run.kill()
            kills, more = kills + 1, (*flags, "--resume")
        assert run.process.wait(300) == 0
        assert adapter(tmp_path / out) == expected


def test_a_second_worker_on_a_socket_is_refused_and_a_dead_ones_socket_is_replaced(tmp_path):
    path = tmp_path / "w.sock"
    with listening(path):
        with pytest.raises(Exception, match="is served by another process"), listening(path):
            pass
    assert not path.exists()
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening(path) as server:
        assert server.getsockname() == str(path)
        assert path.stat().st_mode & 0o777 == 0o660
    with pytest.raises(Exception, match="at most 107 are allowed"), listening(tmp_path / ("x" * 120)):
        pass
    assert callable(serve)
