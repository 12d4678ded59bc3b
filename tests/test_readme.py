"""What README shows works: its Python runs, and its commands are accepted by the programs they name."""

import re
import shlex
from argparse import ArgumentParser
from pathlib import Path

import pytest

from fedllm_data.build import build
from fedllm_data.sources import SOURCES

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for language, block in BLOCKS
    if not language
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("fedllm-")
]


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    from fedllm_data.clients import load_clients
    from fedllm_train.models.tiny import TOY, train_tiny

    monkeypatch.chdir(tmp_path)
    build(SOURCES["fed-synth"], Path("quickstart/fed-synth"), options={"num_clients": "12"})
    train_tiny(load_clients("quickstart/fed-synth", "public").rows.select(range(200)), "quickstart/base", config=TOY)
    blocks = [block for language, block in BLOCKS if language == "python"]
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "heldout_loss" in printed
    assert Path("runs/readme/adapter/adapter_model.safetensors").is_file()


class Accepted(Exception):
    """The arguments were read, and nothing is done with them."""


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_readme_are_accepted(command, monkeypatch):
    import fedllm_data.cli
    import fedllm_eval.cli
    import fedllm_train.cli
    from fedllm_train.arguments import parse_run_arguments

    program, *arguments = shlex.split(command)
    if program == "fedllm-train" and arguments[0] in ("sft", "dpo", "kto"):
        parse_run_arguments(arguments[0], arguments[1:])
        return
    parse_args = ArgumentParser.parse_args

    def stop_after(*given):
        assert parse_args(*given)
        raise Accepted

    monkeypatch.setattr(ArgumentParser, "parse_args", stop_after)
    programs = {
        "fedllm-data": fedllm_data.cli.main,
        "fedllm-train": fedllm_train.cli.main,
        "fedllm-eval": fedllm_eval.cli.main,
    }
    with pytest.raises(Accepted):
        programs[program](arguments)


def test_every_program_is_shown():
    assert {shlex.split(command)[0] for command in COMMANDS} == {"fedllm-data", "fedllm-train", "fedllm-eval"}
