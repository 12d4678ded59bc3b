"""The command as its users meet it: exit codes, one line for what is wrong, JSON where it is asked for."""

import json

import pytest

from fedllm_data.cli import main
from fedllm_data.clients import load_clients
from fedllm_data.sources import SOURCES


@pytest.fixture
def csv_file(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("who,q,a\n" + "".join(f"w{i % 3},question {i},answer {i}\n" for i in range(12)) + "w0,,x\n")
    return path


def import_command(path, out, *more):
    columns = "instruction=q,response=a"
    return [
        "import",
        str(path),
        "--task",
        "sft",
        "--client-column",
        "who",
        "--columns",
        columns,
        "--out",
        str(out),
        *more,
    ]


def test_import_then_check_then_report(tmp_path, csv_file, capsys):
    assert main(import_command(csv_file, tmp_path / "repo")) == 0
    said = capsys.readouterr()
    assert "repo: 3 clients, 12 rows" in said.out
    assert "instruction (q): is empty" in said.out
    assert "error" not in said.err
    for name in ("README.md", "NOTICE", "build.json", "heterogeneity.json", "report.html", "rejected.jsonl"):
        assert (tmp_path / "repo" / name).is_file()
    assert main(["check", str(tmp_path / "repo")]) == 0
    assert "sound" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "repo"), "--out", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "heterogeneity.json").is_file()


def test_json_is_machine_readable(tmp_path, csv_file, capsys):
    assert main(import_command(csv_file, tmp_path / "repo", "--json", "--no-report")) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["num_rejected"] == 1
    assert main(["list", "--json"]) == 0
    assert {"fed-synth", "fed-oasst-pa"} <= {source["name"] for source in json.loads(capsys.readouterr().out)}
    assert main(["check", str(tmp_path / "repo"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []


def test_list_names_the_corpora_and_one_of_them_in_full(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line and line[0] != " "] == ["name", *SOURCES, "All"]
    assert max(len(line) for line in lines) <= 100
    assert main(["list", "fed-aya"]) == 0
    assert "38 clients, 25,513 rows" in " ".join(capsys.readouterr().out.split())
    assert main(["list", "fed-aya", "--json"]) == 0
    assert [source["name"] for source in json.loads(capsys.readouterr().out)] == ["fed-aya"]
    assert main(["list", "fed-none"]) == 2
    assert "there is no corpus 'fed-none'" in capsys.readouterr().err


def test_filters_salt_and_scrubbing_go_through_the_command(tmp_path, capsys):
    def turns(text, answer="Yes, I think so."):
        return [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]

    def row(who, language, messages):
        return {"who": who, "lang": language, "messages": messages}

    rows = [row("ann", "en", turns(f"Is {n} even? Write to ann@example.org")) for n in range(6)]
    rows += [row("bob", "fr", turns(f"{n} est-il pair ?")) for n in range(6)]
    rows += [row("cyd", "en", turns("Hi" * 400)), row("cyd", "en", turns("Why?") * 3)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    command = f"import {file} --task sft --client-column who --columns language=lang --no-report --json"
    flags = f"--languages en --max-chars 200 --max-turns 2 --scrub --salt-file {tmp_path / 'salt'}"
    outputs = []
    for name in ("one", "two"):
        assert main([*command.split(), *flags.split(), "--out", str(tmp_path / name), "--name", "mine"]) == 0
        outputs.append(json.loads(capsys.readouterr().out))
    facts = outputs[0]
    assert outputs[1] == facts
    # Six rows of bob are French; cyd's first row has 816 characters, the second three questions.
    expected = {"num_other_languages": 6, "num_too_long": 1, "num_too_many_turns": 1}
    assert {name: facts["counts"][name] for name in expected} == expected
    assert facts["scrubbed"] == {"EMAIL": 6}
    assert facts["client_ids"]["hashed"]
    (client,) = load_clients(tmp_path / "one", "train")
    assert len(client) == 24
    assert "ann" not in (tmp_path / "one" / "build.json").read_text()
    texts = load_clients(tmp_path / "one", "train").rows["messages"]
    assert all("[EMAIL]" in messages[0]["content"] for messages in texts)
    other = flags.replace("/salt", "/other-salt").split()
    assert main([*command.split(), *other, "--out", str(tmp_path / "three"), "--name", "mine"]) == 0
    assert list(load_clients(tmp_path / "three", "train")) != [client]


def test_a_salt_file_that_holds_none_is_refused_and_kept(tmp_path, csv_file, capsys):
    salt = tmp_path / "salt"
    salt.write_text("my diary")
    assert main([*import_command(csv_file, tmp_path / "repo"), "--salt-file", str(salt)]) == 2
    assert "does not hold 64 hexadecimal digits" in capsys.readouterr().err
    assert salt.read_text() == "my diary"


def test_check_lists_what_is_wrong_and_exits_2(tmp_path, csv_file, capsys):
    main(import_command(csv_file, tmp_path / "repo", "--no-report"))
    (tmp_path / "repo" / "README.md").unlink()
    capsys.readouterr()
    assert main(["check", str(tmp_path / "repo")]) == 2
    said = capsys.readouterr()
    assert "README.md" in said.out
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("build nope --out {out}", "there is no corpus 'nope'; choose one of fed-synth"),
        ("build fed-oasst --source nope --out {out}", "--source nope does not exist"),
        ("build fed-oasst --source org/other --out {out}", "cannot read org/other: no such repo"),
        ("build fed-synth --source {csv} --out {out}", "reads no source"),
        ("build fed-synth --set nope=1 --out {out}", "no option 'nope'"),
        ("build fed-synth --set nope --out {out}", "NAME=VALUE"),
        ("build fed-synth --memory lots --out {out}", "no amount of memory"),
        ("build fed-synth --out {foreign}", "not made here"),
        ("build fed-synth --unfiltered --min-rows 3 --out {out}", "leave out min_rows"),
        ("import {csv} --task sft --client-column nope --out {out}", "column 'nope' is missing; the columns are"),
        ("import {foreign} --task sft --client-column who --out {out}", "is a folder, not a file"),
        ("import {out} --task sft --client-column who --out {out}", "does not exist"),
        ("import {csv} --task sft --client-column who --columns x=q --out {out}", "cannot name 'x'"),
        ("check {foreign}", "is no client repo"),
        ("report {foreign} --out {out}", "is no client repo"),
        ("publish {foreign} --repo org/name", "is no client repo"),
    ],
)
def test_what_cannot_go_on_is_one_line_and_exit_code_2(tmp_path, csv_file, capsys, command, words):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    arguments = command.format(out=tmp_path / "out", csv=csv_file, foreign=foreign).split()
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.startswith("fedllm-data: error: ")
    assert said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


def test_a_wrong_flag_is_one_line_and_exit_code_2(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["build"])
    assert capsys.readouterr().err == (
        "fedllm-data: error: the following arguments are required: NAME, --out; see fedllm-data build --help\n"
    )


def test_a_pinned_build_of_a_generated_corpus(tmp_path, capsys):
    command = ["build", "fed-synth-pa", "--set", "num_clients=12", "--set", "mean_rows=6", "--seed", "5"]
    assert main([*command, "--out", str(tmp_path / "repo"), "--no-report"]) == 0
    facts = json.loads((tmp_path / "repo" / "build.json").read_text())
    assert facts["options"] == {"num_clients": "12", "mean_rows": "6"}
    assert (facts["seed"], facts["clients"]["num_clients"]) == (5, 12)


def test_partition_makes_another_sound_repo_with_report_and_card(tmp_path, csv_file, capsys):
    repo, control = tmp_path / "repo", tmp_path / "control"
    main(import_command(csv_file, repo, "--no-report"))
    # A codebook unlike the one that the report would make: the partition's report has its parent's.
    assert main(["codebook", str(repo), "--seed", "9", "--out", str(repo / "codebook.json")]) == 0
    assert main(["partition", str(repo), "--rule", "iid", "--seed", "3", "--out", str(control)]) == 0
    assert (control / "codebook.json").read_bytes() == (repo / "codebook.json").read_bytes()
    assert "repo-iid: 3 clients, 12 rows" in capsys.readouterr().out
    assert main(["check", str(control)]) == 0
    assert (control / "report.html").is_file()
    assert json.loads((control / "build.json").read_text())["partition"]["seed"] == 3
    assert main(["partition", str(repo), "--rule", "dirichlet", "--alpha", "0", "--out", str(control)]) == 2
    assert "alpha is 0.0, but must be above 0" in capsys.readouterr().err


def test_a_report_into_the_repo_itself_writes_the_card_anew_and_nothing_else(tmp_path, csv_file, digest, capsys):
    repo = tmp_path / "repo"
    main(import_command(csv_file, repo))
    before = digest(repo)
    (repo / "README.md").unlink()
    assert main(["report", str(repo), "--out", str(repo)]) == 0
    assert digest(repo) == before
    capsys.readouterr()
    assert main(["report", str(repo), "--split", "train", "--out", str(repo)]) == 2
    assert "give --out another folder" in capsys.readouterr().err
    assert digest(repo) == before


def test_delimiter_encoding_sheet_and_nested_columns_are_flags(tmp_path, capsys):
    rows = "".join(f'"{{""user"": ""w{i % 3}""}}"|Où est {i}; là, ici ?|réponse {i}\n' for i in range(12))
    path = tmp_path / "rows.csv"
    path.write_bytes(f"meta|q|a\n{rows}".encode("cp1252"))
    command = import_command(path, tmp_path / "repo", "--no-report", "--json")
    command[command.index("who")] = "meta.user"
    assert main(command) == 2
    assert "import it with --encoding cp1252" in capsys.readouterr().err
    assert main([*command, "--encoding", "cp1252", "--delimiter", "pipe"]) == 0
    assert json.loads(capsys.readouterr().out)["clients"]["num_clients"] == 3
    assert main([*command, "--delimiter", "::"]) == 2
    assert main([*command, "--sheet", "one"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert "--delimiter '::' is no single character" in errors[0]
    assert "--sheet is for .xlsx files" in errors[1]


@pytest.mark.usefixtures("no_page")
def test_a_non_commercial_import_states_its_gate(tmp_path, csv_file):
    command = import_command(csv_file, tmp_path / "repo", "--licence", "cc-by-nc-4.0", "--gate", "Do not sell.")
    assert main(command) == 0
    assert "extra_gated_prompt: Do not sell." in (tmp_path / "repo" / "README.md").read_text()


@pytest.mark.usefixtures("no_page")
def test_a_report_of_profiles_is_that_of_the_rows_and_two_reports_are_compared(tmp_path, csv_file, capsys):
    repo, book, pooled, apart = (tmp_path / name for name in ("repo", "book.json", "pooled", "apart"))
    main(import_command(csv_file, repo, "--no-report"))
    assert main(["codebook", str(repo), "--out", str(book)]) == 0
    assert "made from the pool of all clients' rows" in capsys.readouterr().out
    for client in ("w0", "w1", "w2"):
        command = ["profile", str(repo), "--codebook", str(book), "--client", client, "--out", str(tmp_path / "sent")]
        assert main(command) == 0
    assert main(["report", str(repo), "--codebook", str(book), "--out", str(pooled)]) == 0
    command = ["report", "--profiles", str(tmp_path / "sent"), "--codebook", str(book), "--out", str(apart)]
    assert main(command) == 0
    documents = [json.loads((place / "heterogeneity.json").read_text()) for place in (pooled, apart)]
    for document in documents:
        del document["name"], document["revision"]
    assert documents[0] == documents[1]
    assert main(["report", str(repo), "--out", str(tmp_path / "own")]) == 0
    # Without a codebook the report makes the same one.
    assert (tmp_path / "own" / "codebook.json").read_bytes() == book.read_bytes()
    assert main(["report", str(pooled), "--compare", str(apart), "--out", str(tmp_path / "both")]) == 0
    assert (tmp_path / "both" / "comparison.html").is_file()
    capsys.readouterr()
    for wrong in (["report", "--out", "x"], ["report", "--profiles", str(tmp_path / "sent"), "--out", "x"]):
        assert main(wrong) == 2
    said = capsys.readouterr().err
    assert "one of the two" in said
    assert "--profiles needs --codebook" in said
