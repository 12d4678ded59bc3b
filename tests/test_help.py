"""The help of every command: 80 columns, no word or flag torn apart, what is needed first, examples that run."""

import os
import re
import shlex

import pytest

import fedllm_data.cli
import fedllm_eval.cli
import fedllm_train.cli
from fedllm_data.command_line.examples import commands_in_help

PROGRAMS = {"fedllm-data": fedllm_data.cli, "fedllm-train": fedllm_train.cli, "fedllm-eval": fedllm_eval.cli}
NAMES = {
    "fedllm-data": "list build import partition organisations check codebook profile report publish",
    "fedllm-train": "sft dpo kto plan tiny publish chat scenario reveals worker deploy sites privacy-matrix methods "
    "presets machines",
    "fedllm-eval": "run compare decide quality plant audit robustness list",
}
COMMANDS = [(program, name) for program in NAMES for name in [*NAMES[program].split(), "env", "completion"]]
WITH_EXAMPLES = [
    *(("fedllm-data", name) for name in ("build", "import")),
    *(("fedllm-train", name) for name in ("sft", "dpo", "kto", "plan")),
    ("fedllm-eval", "run"),
]


def run(program, *argv):
    try:
        return PROGRAMS[program].main(list(argv))
    except SystemExit as left:
        return left.code or 0


def shown(capsys, monkeypatch, columns, program, *argv):
    monkeypatch.setitem(os.environ, "COLUMNS", str(columns))
    assert run(program, *argv, "--help") == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_help_fits_into_80_columns_and_tears_no_word(capsys, monkeypatch, program, command):
    narrow = shown(capsys, monkeypatch, 80, program, command)
    wide = shown(capsys, monkeypatch, 200, program, command)
    assert not [line for line in narrow.splitlines() if len(line) > 80]
    # The words are those of a page so wide that nothing is wrapped; a backslash continues an example's line.
    assert set(narrow.split()) - {"\\"} == set(wide.split()) - {"\\"}
    assert max(map(len, wide.splitlines())) > 80 or len(wide.splitlines()) < 25


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_no_flag_is_shown_with_an_underscore_and_every_command_has_the_common_ones(
    capsys, monkeypatch, program, command
):
    text = shown(capsys, monkeypatch, 80, program, command)
    assert not re.findall(r"--\w+_\w*", text)
    assert all(flag in text for flag in ("--config FILE.yaml", "--version", "--help"))
    writes = command not in ("list", "check", "methods", "presets", "machines", "chat", "env", "completion")
    assert ("--dry-run" in text) is writes


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_every_command_tells_its_version(capsys, program, command):
    assert run(program, command, "--version") == 0
    assert capsys.readouterr().out.startswith(f"{program} ")


@pytest.mark.parametrize("task", ["sft", "dpo", "kto"])
def test_the_help_of_training_begins_with_what_is_needed_and_shows_each_setting_once(capsys, monkeypatch, task):
    text = shown(capsys, monkeypatch, 80, "fedllm-train", task)
    first, rest = text.split("mostly:")
    assert all(flag in first for flag in ("--data", "--model", "--out"))
    flags = re.findall(r"^  (--[\w-]+)", text, flags=re.MULTILINE)
    assert len(flags) == len(set(flags))
    assert "--cohort-rule" in rest
    # Upper case stands for a value of a kind, not for the flag's own name again.
    assert "COHORT_SIZE" not in text
    assert "{trl,plain,auto}" in text
    assert "topk-int8, topk-int4" in " ".join(text.split())  # the presets of --wire
    assert ("--beta" in flags) is (task != "sft")


@pytest.mark.parametrize("task", ["sft", "dpo", "kto"])
def test_help_all_adds_what_trl_and_peft_take_and_can_be_honoured(capsys, monkeypatch, task):
    monkeypatch.setitem(os.environ, "COLUMNS", "80")
    assert run("fedllm-train", task, "--help-all") == 0
    text = capsys.readouterr().out
    assert not re.findall(r"--\w+_\w*", text.partition("[flags of TRL and PEFT]")[0])
    flags = re.findall(r"^  (--[\w-]+)", text.partition("[flags of TRL and PEFT]")[2], flags=re.MULTILINE)
    assert {"--learning-rate", "--lora-r", "--weight-decay", "--gradient-accumulation-steps"} <= set(flags)
    assert not {"--max-steps", "--save-steps", "--output-dir", "--seed", "--model-name-or-path"} & set(flags)
    assert not [flag for flag in flags if "_" in flag]
    invocations = [line for line in text.splitlines() if line.startswith("  --")]
    assert all(len(line) <= 80 for line in invocations)


def test_a_setting_of_several_methods_names_them_all(capsys, monkeypatch):
    text = " ".join(shown(capsys, monkeypatch, 80, "fedllm-train", "sft").split())
    assert "[fedavgm, fedadagrad, fedyogi, fedadam]" in text
    assert "[flora, flexlora, hetlora]" in text
    assert "[every method but local, centralized]" in text


@pytest.mark.parametrize(("program", "command"), WITH_EXAMPLES)
def test_help_ends_with_three_examples_that_are_accepted(capsys, monkeypatch, program, command):
    found = commands_in_help(shown(capsys, monkeypatch, 80, program, command))
    assert len(found) == 3
    assert all(each.startswith(f"{program} {command} ") for each in found)


@pytest.mark.slow
def test_the_examples_run_one_after_another(capsys, monkeypatch, tmp_path):
    from fedllm_data.clients import load_clients
    from fedllm_train.models.tiny import TOY, train_tiny

    rows = "agent,question,answer\n" + "".join(f"a{n % 4},How is {n}?,It is {n}.\n" for n in range(24))
    examples = {place: commands_in_help(shown(capsys, monkeypatch, 80, *place)) for place in WITH_EXAMPLES}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tickets.csv").write_text(rows)
    (tmp_path / "windows.csv").write_text(rows.replace(",", ";").replace("It is", "Es ist schön,"), encoding="cp1252")
    assert run("fedllm-data", "build", "fed-synth-pa", "--out", "fed-synth-pa", "--no-report") == 0
    for place in WITH_EXAMPLES:
        if place == ("fedllm-train", "sft"):
            train_tiny(load_clients("fed-synth", "public").rows.select(range(200)), "base", config=TOY)
        for command in examples[place]:
            program, *argv = shlex.split(command)
            assert run(program, *argv) == 0, (command, capsys.readouterr().err)
