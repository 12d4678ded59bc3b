"""`env` of every command: what a bug report needs, without names of people, folders or secrets, and without torch."""

import getpass
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from fedllm_data.command_line.environment import environment_lines, environment_record

COMMANDS = ("fedllm_data", "fedllm_train", "fedllm_eval")


@pytest.mark.parametrize("package", COMMANDS)
def test_each_command_tells_versions_without_importing_what_they_are_of(package):
    code = (
        f"import sys\nfrom {package}.cli import main\nassert main(['env', '--json']) == 0\n"
        "print([name for name in ('torch', 'transformers', 'datasets') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["package"] == {"name": "fedllm-commons", "version": version("fedllm-commons")}
    assert told["packages"]["numpy"] == version("numpy")
    assert told["python"].endswith(platform.python_version())
    assert told["gpu"] is None
    assert done.stderr == "[]\n"


def test_no_secret_and_no_place_is_told(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    monkeypatch.setenv("HF_HOME", "/home/somebody/cache")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    record = environment_record()
    shown = json.dumps(record) + "\n".join(environment_lines(record))
    assert "verysecret" not in shown
    assert "somebody" not in shown
    assert str(Path.home()) == "/" or str(Path.home()) not in shown
    assert platform.node() not in shown
    assert getpass.getuser() in ("root",) or getpass.getuser() not in shown
    assert record["variables"]["HF_TOKEN"] == record["variables"]["HF_HOME"] == "set"
    assert record["variables"]["OMP_NUM_THREADS"] == "3"


def test_an_extra_names_what_it_lacks(monkeypatch):
    from importlib import metadata

    from fedllm_data.command_line import environment

    def without(name):
        if name == "phonenumbers":
            raise metadata.PackageNotFoundError(name)
        return metadata.version(name)

    monkeypatch.setattr(environment, "version", without)
    record = environment_record()
    assert record["extras"]["scrub"] == ["phonenumbers"]
    assert "  scrub                     lacks phonenumbers" in environment_lines(record)


def test_the_gpu_is_asked_for_on_request_alone():
    torch = pytest.importorskip("torch")
    record = environment_record(gpu=True)
    assert len(record["gpu"]["devices"]) == torch.cuda.device_count()
    assert environment_lines(record)[-1].startswith("gpu         ")


def test_lines_say_what_is_not_there(monkeypatch):
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    lines = environment_lines(environment_record())
    assert f"{'  MKL_NUM_THREADS':<28}not set" in lines
    assert os.linesep not in "".join(lines)
