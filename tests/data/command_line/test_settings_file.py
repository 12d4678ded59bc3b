"""`--config FILE.yaml` of every command: both spellings of keys, flags override, nothing unknown or odd passes."""

from pathlib import Path

import pytest

from fedllm_data.cli import main
from fedllm_data.command_line.one_line_parser import OneLineParser, add_command


def read(tmp_path, text, *argv):
    (tmp_path / "settings.yaml").write_text(text)
    parser = OneLineParser(prog="fedllm-data")
    command = add_command(parser.add_subparsers(required=True), "import", does="import", writes=True)
    command.add_argument("files", nargs="+", type=Path)
    command.add_argument("--client-column", required=True)
    command.add_argument("--columns", action="append", default=[])
    command.add_argument("--splits", nargs="+")
    command.add_argument("--min-rows", type=int, default=1)
    command.add_argument("--task", choices=("sft", "preference"))
    command.add_argument("--scrub", action="store_true")
    command.add_argument("--language")
    seen = command.add_mutually_exclusive_group()
    seen.add_argument("--private", action="store_true")
    seen.add_argument("--public", action="store_true")
    return parser.parse_args(["import", *argv, "--config", str(tmp_path / "settings.yaml")])


def test_a_file_says_what_flags_and_arguments_say(tmp_path):
    found = read(
        tmp_path,
        "files: [a.csv, b.csv]\nclient-column: who\ncolumns: {instruction: question, response: answer}\n"
        "splits: [train, test]\nmin_rows: '7'\ntask: sft\nscrub: true\n",
    )
    assert found.files == [Path("a.csv"), Path("b.csv")]
    assert found.columns == ["instruction=question", "response=answer"]
    assert (found.client_column, found.splits, found.min_rows) == ("who", ["train", "test"], 7)
    assert (found.task, found.scrub) == ("sft", True)


def test_flags_and_arguments_override_a_file_whole(tmp_path):
    text = "files: [a.csv]\nclient_column: who\ncolumns: [x=y]\nmin_rows: 7\nprivate: true\n"
    found = read(tmp_path, text, "b.csv", "--columns", "z=w", "--min_rows=3", "--public")
    assert found.files == [Path("b.csv")]
    assert found.columns == ["z=w"]
    assert (found.min_rows, found.private, found.public) == (3, False, True)


def test_what_is_null_is_left_out(tmp_path):
    assert read(tmp_path, "files: [a]\nclient_column: who\nmin_rows: null\n").min_rows == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("min_row: 3", "says min_row, which is no setting of this command; did you mean min_rows?"),
        ("zzz: 3", "which is no setting of this command; it can say files, client_column"),
        ("min_rows: many", "min_rows is 'many' in --config"),
        ("min_rows: [1, 2]", "min_rows is a list in --config"),
        ("task: stf", "did you mean sft? choose from sft, preference"),
        ("scrub: 3", "scrub is 3 in --config"),
        ("language: no", "language is false in --config"),
        ("config: other.yaml", "config stands in the --config file"),
        ("dry_run: true", "dry_run stands in the --config file"),
        ("min_rows: 1\nmin-rows: 2", "says min_rows and min-rows, which are one"),
        ("private: true\npublic: true", "says private and public, which exclude one another"),
        ("- a", "holds no settings"),
        ("a: [", "is no YAML file"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path, capsys, text, said):
    with pytest.raises(SystemExit) as left:
        read(tmp_path, text, "a.csv", "--client-column", "who")
    error = capsys.readouterr().err
    assert left.value.code == 2
    assert said in error
    assert error.count("\n") == 1


def test_a_missing_file_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["build", "--config", "/no/such.yaml"])
    assert "--config /no/such.yaml cannot be read" in capsys.readouterr().err


def test_a_whole_command_may_stand_in_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("build.yaml").write_text("name: fed-synth\nout: small\nset: {num_clients: 6}\nno-report: true\nseed: 4\n")
    assert main(["build", "--config", "build.yaml"]) == 0
    assert "6 clients" in capsys.readouterr().out
    assert Path("small/build.json").is_file()


@pytest.mark.parametrize("text", ["prompt: hallo\n", "prompt: [hallo]\n"])
def test_a_flag_that_may_be_repeated_takes_one_text_or_a_list(tmp_path, text):
    """Also one without a default, as chat's --prompt; one text is no list of its letters."""
    path = tmp_path / "chat.yaml"
    path.write_text(text)
    parser = OneLineParser(prog="fedllm-train")
    chat = add_command(parser.add_subparsers(), "chat", does="talk")
    chat.add_argument("--prompt", action="append")
    assert parser.parse_args(["chat", "--config", str(path)]).prompt == ["hallo"]
