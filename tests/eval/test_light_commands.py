"""Commands that need no model import no library of models: help, the list, and every refusal.

All commands run one after another in one fresh process, the lightest first, so the first that imports something heavy
is named.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MODELS = ["torch", "transformers", "trl", "peft", "accelerate", "datasets", "evaluate", "matplotlib", "sklearn"]
ALL_HEAVY = [*MODELS, "scipy.stats", "pandas", "huggingface_hub", "jinja2", "rich"]
HELP = [
    ["--help"],
    ["--version"],
    *([command, "--help"] for command in ("run", "compare", "decide", "quality", "plant", "audit", "list")),
]
MISSPELT = [
    [],
    ["runn"],
    ["run", "--nosuch"],
    ["run", "m", "--data", "d", "--out", "o", "--max-clients", "many"],
    ["compare"],
    ["decide", "d"],
    ["decide", "d", "--out", "o", "--max-harmed", "many"],
    ["quality", "d"],
]
REFUSED = [
    ["run", "/no/run", "--data", "/no/data", "--out", "out"],
    ["run", "/no/run", "--data", "REPO", "--out", "out"],
    ["run", "empty", "--data", "REPO", "--out", "out"],
    ["run", "org/m", "--data", "REPO", "--out", "out", "--alone", "/no/run"],
    ["run", "org/m", "--data", "REPO", "--out", "REPO"],
    ["run", "org/m", "--data", "REPO", "--out", "out", "--suite", "nosuch"],
    ["run", "org/m", "--data", "REPO", "--out", "out", "--suite", "mt_bench"],
    ["run", "org/m", "--data", "REPO", "--out", "out", "--suite", "mt_bench", "--judge", "urll=x"],
    ["run", "org/m", "--data", "REPO", "--out", "out", "--switch", "mt_bench=1"],
    ["run", "--out", "out"],
    ["run", "--suites-only", "--out", "out"],
    ["run", "--suites-only", "--out", "out", "--suite", "gsm8k", "--served", "url=http://127.0.0.1:9/v1"],
    ["run", "org/m", "--data", "REPO", "--out", "out", "--secrets", "s"],
    ["compare", "/no/results"],
    ["compare", "/no/results", "/none/either"],
    ["decide", "/no/results", "--out", "out"],
    ["decide", "empty", "--out", "out", "--watts", "-1"],
    ["quality", "/no/data", "--model", "org/m", "--out", "out.parquet"],
    ["quality", "REPO", "--model", "/no/model", "--out", "out.parquet"],
    ["audit", "/no/run", "--data", "REPO", "--out", "out"],
    ["audit", "org/m", "--data", "REPO", "--out", "out", "--secrets", "/no/secrets"],
    ["plant", "/no/data", "--out", "out", "--secrets", "s", "--salt", "salt"],
]
MEANT = {
    ("rum",): "there is no command 'rum'; did you mean run?",
    ("run", "m", "--dat", "d", "--out", "o"): "--dat is no flag of fedllm-eval run; did you mean --data?",
    ("run", "m", "--max_client=3"): "--max-client is no flag of fedllm-eval run; did you mean --max-clients?",
    ("run", "org/m", "--data", "REPO", "--out", "out", "--splits", "tets"): "did you mean test?",
    ("run", "org/m", "--data", "REPO", "--out", "out", "--suite", "mtbench"): "did you mean mt_bench?",
    (
        *("run", "org/m", "--data", "REPO", "--out", "out", "--suite", "mt_bench", "--judge", "urll=x"),
    ): "a judge has no setting 'urll'; did you mean url?",
    (
        *("run", "org/m", "--data", "REPO", "--out", "out", "--suite", "gsm8k", "--switch", "gsm8.k=1"),
    ): "which is not run; did you mean gsm8k?",
    ("quality", "REPO", "--model", "org/m", "--out", "o.parquet", "--splits", "tst"): "did you mean test?",
}
"""What is misspelt -> the name that it may stand for."""
REFUSED += [list(each) for each in MEANT if each[0] != "rum" and each[1] != "m" and list(each) not in REFUSED]
MISSPELT += [list(each) for each in MEANT if each[0] == "rum" or each[1] == "m"]
NO_TORCH = [
    ["run", "org/m", "--data", "REPO", "--out", "out"],
    ["quality", "REPO", "--model", "org/m", "--out", "out.parquet"],
    ["audit", "org/m", "--data", "REPO", "--out", "out"],
]
PROGRAM = """
import contextlib, io, json, sys
from fedllm_eval.cli import main

commands, without_torch = json.loads(sys.stdin.read())
found = []
for number, command in enumerate(commands):
    if number == without_torch:
        sys.modules["torch"] = None
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(command)
        except SystemExit as stop:
            code = stop.code
    loaded = [name for name, module in sys.modules.items() if module is not None]
    found.append({"code": code, "out": out.getvalue(), "err": err.getvalue(), "loaded": loaded})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Command -> exit code, what it printed, and the modules that were loaded when it ended."""
    place = tmp_path_factory.mktemp("light")
    (place / "empty").mkdir()
    (place / "repo" / "data").mkdir(parents=True)
    # Looked up, and refused before it is read.
    (place / "repo" / "data" / "test-00000-of-00001.parquet").write_bytes(b"")
    commands = [*HELP, *MISSPELT, ["list"], ["list", "--json"], *REFUSED, *NO_TORCH]
    filled = [[{"REPO": str(place / "repo")}.get(word, word) for word in command] for command in commands]
    root = str(Path(__file__).parents[2])
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([filled, len(commands) - len(NO_TORCH)]),
        capture_output=True,
        text=True,
        check=True,
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
    )
    return {tuple(command): result for command, result in zip(commands, json.loads(ran.stdout), strict=True)}


@pytest.mark.parametrize("command", [*HELP, *MISSPELT], ids=" ".join)
def test_help_and_a_misspelt_flag_import_next_to_nothing(done, command):
    result = done[tuple(command)]
    assert result["code"] == (0 if command in HELP else 2)
    assert (result["out"] if command in HELP else result["err"]).strip()
    assert not set(ALL_HEAVY) & set(result["loaded"])


@pytest.mark.parametrize("command", [["list"], ["list", "--json"]], ids=" ".join)
def test_the_list_imports_no_library_of_models(done, command):
    result = done[tuple(command)]
    assert result["code"] == 0
    assert "heldout_loss" in result["out"]
    assert not set(MODELS) & set(result["loaded"])


@pytest.mark.parametrize("command", [*REFUSED, *NO_TORCH], ids=" ".join)
def test_a_refusal_is_one_line_and_imports_no_library_of_models(done, command):
    result = done[tuple(command)]
    assert result["code"] == 2
    assert result["err"].startswith("fedllm-eval: error: ")
    assert result["err"].count("\n") == 1
    assert not set(MODELS) & set(result["loaded"])


@pytest.mark.parametrize("command", MEANT, ids=" ".join)
def test_what_is_misspelt_is_named_with_what_it_may_stand_for(done, command):
    assert MEANT[command] in done[command]["err"]
    assert done[command]["err"].count("\n") == 1


@pytest.mark.parametrize("command", NO_TORCH, ids=" ".join)
def test_a_missing_extra_is_named(done, command):
    assert "torch is not installed; pip install 'fedllm-commons[train]'" in done[tuple(command)]["err"]


def test_every_public_name_is_imported_when_it_is_first_used_and_no_other_is_there():
    code = (
        "import sys, fedllm_eval\n"
        f"assert not {{*{ALL_HEAVY}}} & set(sys.modules)\n"
        "assert all(getattr(fedllm_eval, name) is not None for name in fedllm_eval.__all__)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "assert not hasattr(fedllm_eval, 'nosuch')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
