"""What README and guides tell a reader to type is accepted: whole commands by the real parsers, single flags by name.

Commands stand in blocks of a shell or without a language; what stands within a sentence (`fedllm-eval list`,
`--cohort-rule`) is looked up: the program, its subcommand and its flags must exist. A `...` in a sentence stands for
what is left out.
"""

import re
import shlex
from argparse import ArgumentParser
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from docs.making.command_pages import COMMAND_PAGES, help_of, subcommands_of

ROOT = Path(__file__).parents[2]
FILES = [
    *(
        ROOT / name
        for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md", "examples/README.md")
    ),
    *sorted((ROOT / "docs").glob("*.md")),
]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
OF_RUNS = ("sft", "dpo", "kto")


def whole_commands() -> list[tuple[str, str]]:
    found = []
    for name, text in TEXTS.items():
        for _, language, block in _BLOCK.findall(text):
            if language in ("", "bash", "sh", "shell"):
                lines = block.replace("\\\n", " ").splitlines()
                found += [(name, line.strip()) for line in lines if line.strip().startswith("fedllm-")]
    return list(dict.fromkeys(found))


def spoken_commands() -> list[tuple[str, str]]:
    found = []
    for name, text in TEXTS.items():
        prose = _BLOCK.sub("", text)
        found += [(name, words) for words in re.findall(r"`(fedllm-(?:data|train|eval) [^`]+)`", prose)]
    return list(dict.fromkeys(found))


class Accepted(Exception):
    """The arguments were read, and nothing is done with them."""


def accept(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the program read a command, and stop before it does anything."""
    import fedllm_data.cli
    import fedllm_eval.cli
    import fedllm_train.cli

    program, *words = shlex.split(command)
    if program == "fedllm-train" and words[0] in OF_RUNS:
        from fedllm_train.arguments import parse_run_arguments
        from fedllm_train.engines import ray_engine

        monkeypatch.setattr(ray_engine, "check_ray", lambda: None)  # an extra, which readers of the guide install
        parse_run_arguments(words[0], words[1:])
        return
    if program == "fedllm-train" and words[0] == "plan":
        from fedllm_train.flags import parse_our_flags
        from fedllm_train.planning.plan_flags import candidates, flags_of_candidate, plan_flags

        flags = plan_flags(words[1:])
        for candidate in candidates(flags):
            parse_our_flags(flags.task or "sft", flags_of_candidate(candidate, flags, "data"))
        return
    parse_args = ArgumentParser.parse_args

    def stop_after(*given):
        assert parse_args(*given)
        raise Accepted

    monkeypatch.setattr(ArgumentParser, "parse_args", stop_after)
    mains = {
        "fedllm-data": fedllm_data.cli.main,
        "fedllm-train": fedllm_train.cli.main,
        "fedllm-eval": fedllm_eval.cli.main,
    }
    with pytest.raises(Accepted):
        mains[program](words)


@pytest.mark.parametrize(("name", "command"), whole_commands())
def test_commands_are_accepted(name, command, monkeypatch):
    accept(command, monkeypatch)


def test_every_guide_to_a_command_shows_one():
    shown = {name for name, _ in whole_commands()}
    guides = ("importing", "datasets", "heterogeneity", "training", "scores", "quickstart", "privacy_and_uploads")
    guides += ("plan", "machines", "participation", "scenarios", "tradeoffs")
    assert {"README.md", "benchmarks/README.md", *(f"docs/{guide}.md" for guide in guides)} <= shown


@pytest.mark.slow
def test_the_commands_of_the_guide_to_plans_run(tmp_path, monkeypatch, capsys):
    import fedllm_data.cli
    import fedllm_train.cli

    monkeypatch.chdir(tmp_path)
    mains = {"fedllm-data": fedllm_data.cli.main, "fedllm-train": fedllm_train.cli.main}
    commands = [command for name, command in whole_commands() if name == "docs/plan.md"]
    assert len(commands) > 5
    for command in commands:
        program, *words = shlex.split(command)
        assert mains[program](words) == 0, (command, capsys.readouterr().err)
    assert (tmp_path / "costs" / "plan.html").is_file()


def test_new_commands_are_written_with_dashes():
    """TRL's own spelling keeps working; what was run and measured is shown as it was run."""
    for name, command in whole_commands():
        flags = [word for word in shlex.split(command) if word.startswith("--")]
        assert name == "benchmarks/README.md" or not any("_" in flag for flag in flags), (name, command)


@cache
def flags_of(program: str, subcommand: str | None) -> frozenset[str]:
    """The flags that a command knows, in both spellings."""
    if program == "fedllm-train" and subcommand in (*OF_RUNS, "plan"):
        from dataclasses import fields

        from trl import DPOConfig, KTOConfig, ModelConfig, SFTConfig

        of_trl = {each.name for config in (SFTConfig, DPOConfig, KTOConfig, ModelConfig) for each in fields(config)}
        known = {f"--{each.replace('_', '-')}" for each in of_trl} | {"--config", "--help-all"}
    else:
        known = set()
    words = [subcommand] if subcommand else []
    shown = set(re.findall(r"--[a-z][\w-]*", help_of(program, words)))
    switches = {
        flag.replace("--no-", "--", 1) for flag in shown
    }  # the help of a switch that is on shows how to turn it off
    return frozenset(known | {"--help"} | shown | switches)


@cache
def all_flags() -> frozenset[str]:
    """The flags of all commands; the flags of training are those of any of its tasks."""
    known = set()
    for program in COMMAND_PAGES:
        for subcommand in (None, *subcommands_of(program)):
            known |= flags_of(program, subcommand)
    return frozenset(known)


@pytest.mark.parametrize(("name", "command"), spoken_commands())
def test_spoken_commands_exist(name, command):
    program, *words = command.replace("...", "").replace("'", "").split()
    subcommand = next((word for word in words if not word.startswith("-")), None)
    if subcommand is not None and not subcommand.isupper():
        for each in subcommand.split("|"):
            assert each in subcommands_of(program), f"{name}: {command}"
    else:
        subcommand = None
    flags = [word.split("=")[0] for word in words if word.startswith("--")]
    for flag in flags:
        assert flag.replace("_", "-") in flags_of(program, subcommand), f"{name}: {command}"


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "docs/methods.md"])
def test_flags_within_sentences_exist(name):
    """A flag of another program (pip, pytest, a benchmark) stands in a sentence with that program, not alone."""
    prose = _BLOCK.sub("", TEXTS[name])
    alone = re.findall(r"`(--[a-z][\w-]*)(?:[ =][^`]*)?`", prose)
    unknown = {flag for flag in alone if flag.replace("_", "-") not in all_flags()}
    assert not unknown, f"{name} names {sorted(unknown)}"


def test_a_flag_that_does_not_exist_is_found():
    assert "--cohort-sizes" not in all_flags()
    assert {"--cohort-size", "--dry-run", "--margin", "--salt-file", "--learning-rate"} <= all_flags()


def test_the_guide_to_the_quickstart_shows_what_the_quickstart_does():
    """Every flag it shows has the value it has there."""
    from fedllm_train.flag_names import name_of
    from fedllm_train.quickstart.commands import steps

    def settings(command: str) -> dict[str, str]:
        words = shlex.split(command)
        return {name_of(flag): value for flag, value in pairwise(words) if flag.startswith("--")}

    of_steps = {
        (*shlex.split(each)[:2], settings(each).get("output_dir")): settings(each)
        for _, each in steps(Path("quickstart"))
    }
    shown = [command for name, command in whole_commands() if name == "docs/quickstart.md"]
    assert len(shown) >= 6
    for command in shown:
        key = (*shlex.split(command)[:2], settings(command).get("output_dir"))
        assert settings(command).items() <= of_steps[key].items(), command
