"""`--dry-run`: the same refusals as the command itself, what would be read and written, and nothing is written."""

import json
from pathlib import Path

import pytest

from fedllm_data.cli import main

ROWS = "who,question,answer\n" + "".join(f"p{n % 3},How {n}?,So {n}.\n" for n in range(9))
COLUMNS = ["--client-column", "who", "--columns", "instruction=question,response=answer"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a client repo `repo`, a codebook and a CSV file."""
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text(ROWS)
    assert main(["import", "rows.csv", "--task", "sft", *COLUMNS, "--no-report", "--out", "repo"]) == 0
    Path("sites.csv").write_text("client_id,organisation\np0,north\np1,south\np2,south\n")
    assert main(["codebook", "repo", "--out", "book.json"]) == 0
    return tmp_path


def everything(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


COMMANDS = {
    "build": (["build", "fed-synth", "--out", "x/y"], "build fed-synth, sft rows", "x/y: a client repo"),
    "a hashed build": (["build", "fed-synth", "--out", "x", "--salt-file", "salt"], "build", "salt: a new salt"),
    "import": (["import", "rows.csv", "--task", "sft", *COLUMNS, "--out", "x"], "import sft rows", "rows.csv"),
    "partition": (["partition", "repo", "--rule", "iid", "--out", "x"], "deal the rows of repo out", "rule"),
    "organisations": (["organisations", "repo", "--out", "x", "--members", "sites.csv"], "group the clients", "repo"),
    "codebook": (["codebook", "repo", "--out", "other.json"], "make a codebook", "other.json: a codebook"),
    "profile": (["profile", "repo", "--codebook", "book.json", "--out", "x"], "profile clients", "one profile a"),
    "report": (["report", "repo", "--out", "repo"], "measure how different", "(replaces what is there)"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(place, capsys, name):
    argv, does, said = COMMANDS[name]
    before = everything(place)
    capsys.readouterr()
    assert main([*argv, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"dry run: {does}")
    assert said in shown
    assert shown.endswith("nothing was written\n")
    assert everything(place) == before


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["build", "fed-synth", "--out", "rows.csv"], "exists and is not a folder"),
        (["build", "fed-synth", "--out", "repo"], "holds another dataset"),
        (["build", "fed-synth", "--out", "x", "--min-rows", "0"], "min_rows"),
        (["import", "no.csv", "--task", "sft", *COLUMNS, "--out", "x"], "no.csv"),
        (["import", "rows.csv", "--task", "sft", "--client-column", "wo", "--out", "x"], "did you mean 'who'?"),
        (["import", "rows.csv", "--task", "sft", *COLUMNS, "--columns", "language=x", "--out", "x"], "no file has it"),
        (["partition", "repo", "--rule", "iid", "--out", "repo"], "is the client repo to be partitioned"),
        (["organisations", "repo", "--out", "x"], "3 of 3 clients have no organisation"),
        (["report", "repo", "--out", "x", "--split", "tran"], "did you mean train?"),
        (["profile", "repo", "--codebook", "book.json", "--out", "x", "--client", "nobody"], "no client 'nobody'"),
    ],
)
def test_a_dry_run_refuses_what_the_command_would_refuse(place, capsys, argv, said):
    capsys.readouterr()
    before = everything(place)
    codes, errors = [], []
    for more in (["--dry-run"], []):
        codes.append(main([*argv, *more]))
        errors.append(capsys.readouterr().err)
    assert codes == [2, 2]
    assert errors[0] == errors[1]
    assert said in errors[0]
    assert everything(place) == before


def test_a_program_reads_it_as_json(place, capsys):
    capsys.readouterr()
    assert main(["build", "fed-synth", "--out", "x", "--seed", "3", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["dry_run"]
    assert told["does"] == "build fed-synth, sft rows"
    assert told["settings"]["seed"] == 3


def test_after_a_dry_run_the_same_command_does_its_work(place, capsys):
    argv = ["partition", "repo", "--rule", "iid", "--out", "x", "--no-report"]
    assert main([*argv, "--dry-run"]) == 0
    assert not Path("x").exists()
    assert main(argv) == 0
    assert Path("x/build.json").is_file()
