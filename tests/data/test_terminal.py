"""What the commands share: exit codes, one line on stderr, nothing swallowed."""

import subprocess
import sys

import pytest

from fedllm_data.command_line.one_line_parser import OneLineParser
from fedllm_data.errors import ClientNotFoundError, ConfigError
from fedllm_data.terminal import run_command


def run(work):
    return run_command("fedllm-data", work, when_interrupted="an earlier output is as it was")


def failing(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("x is 3\n  but must be 4"), 2, "fedllm-data: error: x is 3 but must be 4"),
        (ClientNotFoundError("no client 'a'"), 2, "fedllm-data: error: no client 'a'"),
        (
            FileNotFoundError(2, "No such file or directory", "rows.csv"),
            2,
            "fedllm-data: error: No such file or directory rows.csv; check path, space and rights",
        ),
        (KeyboardInterrupt(), 130, "fedllm-data: interrupted; an earlier output is as it was"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(capsys, error, code, line):
    assert run(failing(error)) == code
    assert capsys.readouterr().err == line + "\n"


def test_a_missing_extra_says_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)

    def work():
        import torch  # noqa: F401

    assert run(work) == 2
    assert "torch is not installed; pip install 'fedllm-commons[train]'" in capsys.readouterr().err


def test_a_defect_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)
    with pytest.raises(ModuleNotFoundError):
        run(failing(ModuleNotFoundError("no such module", name="fedllm_data.typo")))


def test_wrong_arguments_are_one_line(capsys):
    parser = OneLineParser(prog="fedllm-data")
    parser.add_argument("--rows", type=int)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--rows", "many"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_reader_that_leaves_is_no_error():
    """As `fedllm-train presets | head -1`, with more to say than a pipe holds."""
    code = (
        "from fedllm_data.terminal import run_command\n"
        "def work():\n"
        "    for _ in range(100_000):\n"
        "        print('a line')\n"
        "raise SystemExit(run_command('fedllm-data', work, when_interrupted='nothing was written'))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
