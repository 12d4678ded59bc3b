"""The examples run as they stand, scripts and notebooks, on the base model that comes along."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
LAST_WORDS = {
    "own_csv_to_adapter.py": "Talk to both: fedllm-train chat",
    "personal_dpo.py": "Talk to one: fedllm-train chat",
    "private_run.py": "All findings:",
}
RUN_CELLS = """
import json, sys
namespace = {"__name__": "__main__"}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), namespace)
print("every cell was run")
"""


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_there_are_three_scripts_and_two_notebooks_and_the_readme_names_them_all():
    assert {path.name for path in SCRIPTS} == LAST_WORDS.keys()
    assert len(NOTEBOOKS) == 2
    named = set(re.findall(r"\]\(([\w.]+\.(?:py|ipynb))\)", (EXAMPLES / "README.md").read_text(encoding="utf-8")))
    assert named == {path.name for path in [*SCRIPTS, *NOTEBOOKS]}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_text_and_python_without_outputs_of_somebodys_machine(path):
    for cell in cells(path):
        assert cell["cell_type"] in ("markdown", "code")
        if cell["cell_type"] == "code":
            ast.parse("".join(cell["source"]))
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_says_how_it_is_called(path):
    assert f"python examples/{path.name}" in ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def run(arguments):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs(path, tmp_path):
    said = run([str(path), "--out", str(tmp_path / "out")])
    assert LAST_WORDS[path.name] in said


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path):
    said = run(["-c", RUN_CELLS, str(path)])
    assert "every cell was run" in said
