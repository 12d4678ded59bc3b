"""Completion: the script of each shell is read by that shell, and completes subcommands, flags and choices."""

import shutil
import subprocess
import sys

import pytest

import fedllm_data.cli
import fedllm_eval.cli
import fedllm_train.cli
from fedllm_data.command_line.completion import SHELLS

MAINS = {
    "fedllm-data": fedllm_data.cli.main,
    "fedllm-train": fedllm_train.cli.main,
    "fedllm-eval": fedllm_eval.cli.main,
}
TYPED = {
    ("fedllm-data", "bu"): {"build"},
    ("fedllm-data", "build", "fed-sy"): {"fed-synth", "fed-synth-pa"},
    ("fedllm-data", "import", "--client"): {"--client-column"},
    ("fedllm-data", "partition", "--rule", "d"): {"dirichlet"},
    ("fedllm-data", "partition", "--dry"): {"--dry-run"},
    ("fedllm-train", "s"): {"scenario", "sft", "sites"},
    ("fedllm-train", "sft", "--cohort"): {"--cohort-rule", "--cohort-size", "--cohort-clients"},
    ("fedllm-train", "sft", "--strategy", "fedp"): {"fedprox"},
    ("fedllm-train", "dpo", "--learning"): {"--learning-rate"},
    ("fedllm-train", "dpo", "--f-div"): {"--f-divergence-type"},
    ("fedllm-train", "methods", "lora"): {"lora_fair"},
    ("fedllm-eval", "run", "--suite", "mt"): {"mt_bench"},
    ("fedllm-eval", "e"): {"env"},
}
"""What is typed -> what it may become."""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """(command, shell) -> the file with its script."""
    from contextlib import redirect_stdout

    folder = tmp_path_factory.mktemp("completion")
    found = {}
    for program, main in MAINS.items():
        for shell in SHELLS:
            found[program, shell] = folder / f"{program}.{shell}"
            with found[program, shell].open("w") as file, redirect_stdout(file):
                assert main(["completion", shell]) == 0
    return found


def completed(script, words):
    """What bash offers for the last word."""
    program = words[0]
    typed = " ".join(f"'{word}'" for word in words)
    code = f"""
source '{script}'
function=$(complete -p {program} | sed 's/.*-F \\([^ ]*\\).*/\\1/')
COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; COMP_LINE='{" ".join(words)}'; COMP_POINT=${{#COMP_LINE}}
$function {program} '{words[-1]}' '{words[-2]}'
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True)
    return {word.strip() for word in done.stdout.splitlines() if word.strip()}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize("words", TYPED, ids=" ".join)
def test_bash_completes_subcommands_flags_and_choices(scripts, words):
    assert completed(scripts[words[0], "bash"], words) == TYPED[words]


@pytest.mark.parametrize("program", MAINS)
@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_itself_reads_the_script(scripts, program, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", str(scripts[program, shell])], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("program", MAINS)
def test_a_shell_that_is_none_is_refused_with_what_was_meant(capsys, program):
    with pytest.raises(SystemExit) as left:
        MAINS[program](["completion", "bsh"])
    assert left.value.code == 2
    assert "did you mean bash?" in capsys.readouterr().err


def test_without_shtab_the_extra_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert MAINS["fedllm-data"](["completion", "bash"]) == 2
    assert "pip install 'fedllm-commons[completion]'" in capsys.readouterr().err
