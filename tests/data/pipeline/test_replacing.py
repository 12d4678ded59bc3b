"""What an output folder may replace: an earlier making of the same dataset, and nothing else without being told."""

import json
import shutil

import pytest

from fedllm_data.build import build
from fedllm_data.cli import main
from fedllm_data.errors import ConfigError
from fedllm_data.importer import import_files
from fedllm_data.partition.make import partition
from fedllm_data.partition.rules import PartitionRule
from fedllm_data.pipeline.replacing import check_replaceable


def rows_file(folder, name, words="A", num=8):
    folder.mkdir(exist_ok=True)
    rows = [
        {"who": f"w{i % 2}", "team": f"t{i % 2}", "instruction": f"Q{i}", "response": f"{words}{i}"}
        for i in range(num)
    ]
    (folder / name).write_text("\n".join(json.dumps(row) for row in rows))
    return folder / name


def make(path, out, task="sft", **settings):
    settings = {"client_column": "who"} | settings
    return import_files([path], out, task=task, **settings)


@pytest.fixture
def repo(tmp_path):
    make(rows_file(tmp_path, "rows.jsonl"), tmp_path / "repo")
    return tmp_path / "repo"


def refuses(words, folder, action, digest):
    before = digest(folder)
    with pytest.raises(ConfigError, match=words):
        action(overwrite=False)
    assert digest(folder) == before
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []
    action(overwrite=True)
    assert digest(folder) != before


def test_the_same_dataset_is_made_again_in_place(repo, tmp_path):
    first = make(tmp_path / "rows.jsonl", repo).facts
    rows_file(tmp_path, "rows.jsonl", num=12)  # the file has grown
    again = make(tmp_path / "rows.jsonl", repo, seed=3, salt=b"s" * 32, unfiltered=True, licence="cc0-1.0").facts
    assert first["counts"]["num_valid"] == 8
    assert again["counts"]["num_valid"] == 12


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "another"}, "another dataset .name 'repo', not 'another'"),
        ({"client_column": "team"}, "another dataset .client "),
    ],
)
def test_another_name_or_kind_of_client_is_another_dataset(repo, tmp_path, digest, settings, words):
    refuses(words, repo, lambda **how: make(tmp_path / "rows.jsonl", repo, **settings, **how), digest)


def test_other_files_are_another_dataset(repo, tmp_path, digest):
    other = rows_file(tmp_path, "other.jsonl")
    refuses("another dataset .upstream", repo, lambda **how: make(other, repo, **how), digest)


def test_another_task_is_another_dataset(repo, tmp_path, digest):
    path = tmp_path / "rows.jsonl"
    rows = [{"who": "ann", "prompt": f"Q{i}", "chosen": "A", "rejected": "B"} for i in range(4)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    refuses("another dataset .task 'sft', not", repo, lambda **how: make(path, repo, "preference", **how), digest)


def test_a_corpus_is_built_again_from_the_same_copy_only(tmp_path, make_source, many_rows, digest):
    (tmp_path / "Posts.jsonl").write_text("{}")
    source = make_source(many_rows)
    for _ in range(2):
        build(source, tmp_path / "repo", source_path=tmp_path / "Posts.jsonl")
    (tmp_path / "Posts.jsonl").write_text('{"another": "site"}')
    again = make_source(many_rows[:60])
    refuses(
        "another copy of Posts.jsonl",
        tmp_path / "repo",
        lambda **how: build(again, tmp_path / "repo", source_path=tmp_path / "Posts.jsonl", **how),
        digest,
    )


def test_partitions_are_told_apart_by_parent_and_rule(repo, tmp_path, digest):
    out, iid = tmp_path / "out", PartitionRule(name="iid")
    for seed in (0, 1):
        partition(repo, out, iid, seed=seed)
    quantity = PartitionRule(name="quantity", skew=1.0)
    refuses("another dataset", out, lambda **how: partition(repo, out, quantity, **how), digest)
    refuses("another dataset", out, lambda **how: make(tmp_path / "rows.jsonl", out, name="x", **how), digest)


@pytest.mark.parametrize("name", ["report.html", "heterogeneity.json"])
def test_a_report_is_not_lost(repo, tmp_path, digest, name):
    (repo / name).write_text("{}")
    refuses("holds a report, and no new one", repo, lambda **how: make(tmp_path / "rows.jsonl", repo, **how), digest)
    (repo / name).write_text("{}")
    make(tmp_path / "rows.jsonl", repo, finish=lambda folder, facts: (folder / name).write_text("new"))
    assert (repo / name).read_text() == "new"


def test_a_folder_with_a_report_alone_is_replaced_on_request_only(tmp_path, digest):
    report = tmp_path / "report"
    report.mkdir()
    for name in ("report.html", "heterogeneity.json", "codebook.json"):
        (report / name).write_text("{}")
    path = rows_file(tmp_path, "rows.jsonl")
    refuses("holds a report and no dataset", report, lambda **how: make(path, report, **how), digest)


def test_somebody_s_notes_are_not_lost(repo, tmp_path, digest):
    (repo / "notes.txt").write_text("what I think of it")
    refuses("holds 'notes.txt'", repo, lambda **how: make(tmp_path / "rows.jsonl", repo, **how), digest)


@pytest.mark.parametrize("how", ["git", "foreign", "empty mark"])
def test_what_was_not_made_here_stays_even_on_request(repo, tmp_path, how):
    if how == "git":
        (repo / ".git").mkdir()
    else:
        shutil.rmtree(repo)
        repo.mkdir()
        (repo / "build.json").write_text("{}" if how == "empty mark" else '{"made_by": "me"}')
    with pytest.raises(ConfigError, match="not made here"):
        make(tmp_path / "rows.jsonl", repo, overwrite=True)


def test_the_commands_take_overwrite(tmp_path, capsys):
    one, other = rows_file(tmp_path, "one.jsonl"), rows_file(tmp_path, "other.jsonl")
    command = ["--task", "sft", "--client-column", "who", "--no-report", "--out", str(tmp_path / "repo")]
    assert main(["import", str(one), *command]) == 0
    assert main(["import", str(other), *command]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["import", str(other), *command, "--overwrite"]) == 0
    controls = ["partition", str(tmp_path / "repo"), "--no-report", "--out", str(tmp_path / "control"), "--rule"]
    assert main([*controls, "iid"]) == 0
    assert main([*controls, "quantity", "--skew", "1"]) == 2
    assert main([*controls, "quantity", "--skew", "1", "--overwrite"]) == 0
    synth = ["build", "fed-synth", "--set", "num_clients=3", "--set", "public_rows=0", "--no-report"]
    assert main([*synth, "--out", str(tmp_path / "control")]) == 2
    assert main([*synth, "--out", str(tmp_path / "control"), "--overwrite"]) == 0
    assert json.loads((tmp_path / "control" / "build.json").read_text())["name"] == "fed-synth"


@pytest.mark.parametrize("name", ["build.json", "other.txt"])
def test_a_clone_or_a_foreign_folder_is_not_replaced(tmp_path, name):
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    (tmp_path / "repo" / name).write_text('{"made_by": "fedllm-data"}')
    with pytest.raises(ConfigError, match="not made here"):
        check_replaceable(tmp_path / "repo", "build.json", None)


def test_a_build_json_of_somebody_else_is_no_mark(tmp_path):
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "build.json").write_text('{"scripts": {}}')
    with pytest.raises(ConfigError, match="not made here"):
        check_replaceable(tmp_path / "repo", "build.json", None)


def test_a_file_or_a_link_in_the_place_is_an_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        with pytest.raises(ConfigError, match="is not a folder"):
            check_replaceable(tmp_path / name, "build.json", None)
