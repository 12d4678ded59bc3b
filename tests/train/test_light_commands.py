"""Commands that need no model import no library of models: help, lists, and every refusal that needs none.

All commands run one after another in one fresh process, the lightest first, so the first that imports something heavy
is named.
"""

import json
import subprocess
import sys

import pytest

HEAVY = ["torch", "transformers", "trl", "peft", "accelerate", "datasets", "matplotlib", "scipy.stats"]
PLACES = ["--data", "org/clients", "--model", "org/model", "--output_dir", "run"]
OF_REPO = ["--data", "REPO", "--model", "org/model", "--output_dir", "run"]
LISTS = [["--help"], ["--version"], ["sft", "--help"], ["kto", "--help"], ["presets"], ["presets", "--json"]]
LISTS += [["machines"], ["machines", "clinic", "--json"], ["methods"], ["methods", "--json"], ["chat", "--help"]]
REFUSED = [
    [],
    ["sftt"],
    ["sft", "--strateg", "fedavg"],
    ["sft", *PLACES, "--learning-rat", "1e-4"],
    ["sft", *PLACES, "--strategy", "fedpro"],
    ["sft", *PLACES, "--strategy", "no_module:Nothing"],
    ["sft", *PLACES, "--prox_mu", "0.01"],
    ["dpo", *PLACES, "--num_rounds", "many"],
    ["dpo", *PLACES, "--local_steps", "1", "--local_epochs", "1"],
    ["dpo", *PLACES, "--preset", "nosuch"],
    ["kto", *PLACES, "--report_to", "nosuch"],
    ["kto", *PLACES, "--dp_clip", "1"],
    ["sft", *PLACES, "--config", "no.yaml"],
    ["sft", "--data", "/no/folder", "--model", "org/model", "--output_dir", "run"],
    ["sft", "--data", ".", "--model", "org/model", "--output_dir", "run"],
    ["sft", "--data", "org/clients", "--model", "/no/model", "--output_dir", "run"],
    ["sft", *PLACES, "--adapter", "/no/adapter"],
    ["sft", "--data", "org/clients"],
    ["publish", "/no/run", "--repo", "org/name"],
    ["machines", "phon"],
    ["chat", "/no/run", "--prompt", "Hi"],
    ["chat", "org/model", "--prompt", "Hi", "--top-p", "2"],
    ["sft", *OF_REPO, "--cohort_size", "6"],
    ["sft", *OF_REPO, "--cohort_size", "2", "--strategy", "local", "--local_client", "nobody"],
    ["sft", *OF_REPO, "--cohort_size", "2", "--strategy", "ditto", "--eval_every", "1"],
    ["sft", *OF_REPO, "--cohort_size", "2", "--strategy", "flora", "--full_finetuning"],
    ["sft", *OF_REPO, "--cohort_size", "2", "--strategy", "hetlora", "--client_ranks", "column:gpu"],
    ["sft", *OF_REPO, "--cohort_size", "2", "--strategy", "hetlora", "--client_ranks", "memory:2,4"],
    ["sft", *OF_REPO, "--cohort_size", "2", "--num_processes", "3"],
]
MEANT = {
    ("stf",): "there is no command 'stf'; did you mean sft?",
    ("sft", *PLACES, "--strategy", "fed-porx"): "did you mean fedprox?",
    ("sft", *PLACES, "--strategy", "FedAvg"): "strategy 'FedAvg' is unknown; did you mean fedavg?",
    ("sft", *PLACES, "--cohortsize", "3"): "--cohortsize is no flag of fedllm-train sft; did you mean --cohort-size?",
    ("sft", *PLACES, "--learning", "3"): "--learning is no flag of fedllm-train sft; did you mean --learning-rate?",
    ("sft", *PLACES, "--preset", "fed-aya"): "preset 'fed-aya' is unknown; did you mean fedllm-bench/fed-aya?",
    ("sft", *PLACES, "--peft-type", "dorra"): "invalid choice: 'dorra'; did you mean dora? (choose from lora,",
    ("sft", *PLACES, "--report-to", "tensorbord"): "did you mean tensorboard?",
    ("sft", *OF_REPO, "--wire", "int-8"): "did you mean int8?",
    ("sft", *OF_REPO, "--cohort-rule", "unifrom"): "did you mean uniform?",
    ("sft", *OF_REPO, "--cohort-size", "2", "--eval-every", "1", "--eval-split", "tets"): "did you mean test?",
    ("sft", *OF_REPO, "--cohort-size", "2", "--eval-every", "1", "--eval-score", "loss"): "did you mean heldout_loss?",
    ("tiny", "--data", "x", "--outt", "y"): "--outt is no flag of fedllm-train tiny; did you mean --out?",
}
"""What is misspelt -> the name that it may stand for."""
REFUSED += [list(each) for each in MEANT]
PROGRAM = """
import contextlib, importlib.util, io, json, sys
from fedllm_train.cli import main

commands, heavy = json.loads(sys.stdin.read())
find, lost = importlib.util.find_spec, ("dp_accounting", "tensorboard")
found = []
for command in commands:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main(command)
        except SystemExit as end:
            code = end.code or 0
    found.append([code, said.getvalue(), [name for name in heavy if name in sys.modules]])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory, kit):
    """What each command answered, and what was imported by then; REPO is a client repo of five clients."""
    repo = tmp_path_factory.mktemp("repo") / "clients"
    kit.build_repo(repo)
    commands = LISTS + REFUSED
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([[[str(repo) if word == "REPO" else word for word in each] for each in commands], HEAVY]),
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path_factory.mktemp("empty"),
    )
    return dict(zip(map(tuple, commands), json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("command", LISTS, ids=" ".join)
def test_lists_and_help_import_no_model_library(answers, command):
    code, said, imported = answers[tuple(command)]
    assert code == 0, said
    assert said.strip()
    assert not imported


@pytest.mark.parametrize("command", REFUSED, ids=" ".join)
def test_a_refusal_is_one_line_and_imports_no_model_library(answers, command):
    code, said, imported = answers[tuple(command)]
    assert code == 2, said
    assert said.count("\n") == 1, said
    assert not imported


@pytest.mark.parametrize("command", MEANT, ids=" ".join)
def test_what_is_misspelt_is_named_with_what_it_may_stand_for(answers, command):
    assert MEANT[command] in answers[command][1]


@pytest.mark.parametrize(
    ("package", "flags"),
    [
        ("dp_accounting", ["--dp_clip", "1", "--dp_noise_multiplier", "1", "--dp_delta", "1e-5"]),
        ("tensorboard", ["--report_to", "tensorboard"]),
    ],
)
def test_a_missing_extra_is_named_before_anything_is_loaded(package, flags, tmp_path):
    program = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {package!r} else find(name, *rest)
from fedllm_train.cli import main
code = main({["sft", *PLACES, "--cohort_rule", "all", *flags]!r})
print(code, [name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "2 []\n", done.stderr
    assert "is not installed; pip install" in done.stderr
    assert done.stderr.count("\n") == 1
