"""Each promise of a client repo, broken on purpose."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedllm_data.build import build
from fedllm_data.check import check_repo
from fedllm_data.cli import main
from fedllm_data.errors import SchemaError
from fedllm_data.pipeline.seen_rows import seen_rows
from fedllm_data.source import SourceRow

TRAIN = "data/train-00000-of-00001.parquet"
TEST = "data/test-00000-of-00001.parquet"
UNSEEN = "data/unseen-00000-of-00001.parquet"
CLIENTS = "clients/clients-00000-of-00001.parquet"
ANSWER = {"role": "assistant", "content": "another answer"}


@pytest.fixture
def repo(tmp_path, make_source, many_rows):
    build(make_source(many_rows), tmp_path / "repo")
    assert check_repo(tmp_path / "repo") == []
    return tmp_path / "repo"


def rewrite(path, change, **settings):
    table = change(pq.ParquetFile(path).read())
    pq.write_table(table, path, **({"row_group_size": 500} | settings))


def problems_after(repo, path, change, **settings):
    rewrite(repo / path, change, **settings)
    return " | ".join(check_repo(repo))


def test_rows_out_of_order_are_found(repo):
    assert "sort by client_id" in problems_after(repo, TRAIN, lambda t: t.take(list(range(t.num_rows))[::-1]))


def test_a_missing_row_disagrees_with_the_clients_table(repo):
    assert "num_train_rows of client 'client-" in problems_after(repo, TRAIN, lambda t: t.slice(1))


def test_a_repeated_row_is_found(repo):
    assert "repeats within the split" in problems_after(
        repo, TRAIN, lambda t: pa.concat_tables([t.slice(0, 1), t]).combine_chunks()
    )


def test_a_client_in_train_and_unseen_is_found(repo):
    unseen = pq.ParquetFile(repo / UNSEEN).read()
    problems = problems_after(repo, TRAIN, lambda t: pa.concat_tables([unseen, t]).sort_by("client_id"))
    assert "share" in problems
    assert "clients, among them" in problems


def copied(repo, source, target, **changes):
    """Give the first row of one file another row id and client, and put it first into another file."""
    row = pq.ParquetFile(source).read().slice(0, 1).to_pylist()[0] | changes
    schema = pq.ParquetFile(target).schema_arrow
    rewrite(target, lambda t: pa.concat_tables([pa.Table.from_pylist([row], schema=schema), t]).sort_by("client_id"))
    return " | ".join(check_repo(repo))


@pytest.mark.parametrize(("one", "other"), [("train", "test"), ("train", "unseen"), ("test", "unseen")])
def test_a_prompt_in_two_splits_is_found(repo, one, other):
    paths = [repo / f"data/{split}-00000-of-00001.parquet" for split in (one, other)]
    client_id = pq.ParquetFile(paths[1]).read()["client_id"][0].as_py()
    turns = pq.ParquetFile(paths[0]).read()["messages"][0].as_py()
    # Case and spacing make no other prompt of it, another answer does not either.
    turns = [{"role": "user", "content": f" {turns[0]['content'].upper()}\n"}, {"role": "assistant", "content": "no"}]
    problems = copied(repo, *paths, client_id=client_id, row_id="copy", messages=turns)
    assert f"{one} and {other}: share 1 prompts, among them that of the rows " in problems
    assert f"and 'copy' in {other}; build again" in problems
    assert "clients, among them" not in problems


def test_a_public_row_may_share_a_prompt_with_train_and_not_with_test(tmp_path, make_source, many_rows):
    public = [
        SourceRow(row | {"row_id": f"public-{number}"}, "memory", number, is_public=True)
        for number, row in enumerate(many_rows[:30])
    ]
    public = [replace(item, row=item.row | {"messages": [item.row["messages"][0], ANSWER]}) for item in public]
    build(make_source([*many_rows, *public]), tmp_path / "repo")
    assert check_repo(tmp_path / "repo") == []
    path = tmp_path / "repo" / "data" / "public-00000-of-00001.parquet"
    problems = copied(tmp_path / "repo", tmp_path / "repo" / TEST, path, client_id="public", row_id="copy")
    assert "test and public: share 1 prompts" in problems
    assert "train and public" not in problems


def test_what_is_compared_lies_on_disk_and_spills():
    row = {"client_id": "ann", "language": "en"}
    with seen_rows(memory_limit="32MB") as seen:
        for number in range(60_000):
            split = ("train", "test")[number % 2]
            seen.add(split, "file", number, row | {"row_id": f"{number:064d}"}, number.to_bytes(16, "big"))
        seen.add("train", "file", 60_000, row | {"row_id": f"{0:064d}"}, b"x")
        assert list(seen.repeated()) == [("file", 60_000, f"{0:064d}")]
        assert seen.shared("client_id", "train", "test") == (1, "ann", "ann")
        assert seen.shared("prompt", "train", "test") == (0, None, None)


def test_an_empty_detected_language_is_found(repo):
    def empty(table):
        position = table.column_names.index("detected_language")
        return table.set_column(position, "detected_language", pa.array([""] * table.num_rows))

    assert "detected_language: must not be empty" in problems_after(repo, TRAIN, empty)


def test_one_huge_row_group_is_found(repo):
    def grow(table):
        copies = [
            table.set_column(
                1, table.schema.field(1), pa.array([f"{row_id}-{copy}" for row_id in table[1].to_pylist()])
            )
            for copy in range(10)
        ]
        return pa.concat_tables(copies).sort_by("client_id")

    assert "row group of" in problems_after(repo, TRAIN, grow, row_group_size=100_000)


def test_missing_statistics_are_found(repo):
    assert "no statistics" in problems_after(repo, TRAIN, lambda t: t, write_statistics=False)


def test_null_nested_fields_and_wrong_columns_are_found(repo):
    def nulls(table):
        rows = table.to_pylist()
        rows[3]["messages"][0]["content"] = None
        changed = pa.Table.from_pylist(rows)
        position = changed.column_names.index("detected_language")
        return changed.set_column(position, "detected_language", pa.nulls(len(rows), pa.string()))

    assert "row 3: messages[0]: content must be text" in problems_after(repo, TRAIN, nulls)
    assert "has the columns" in problems_after(repo, TRAIN, lambda t: t.append_column("x", t["row_id"]))
    assert "needs client_id and messages" in problems_after(repo, TRAIN, lambda t: t.select(["row_id"]))


def test_a_damaged_or_foreign_file_is_found(repo):
    (repo / TRAIN).write_bytes(b"PAR1 nothing")
    (repo / "data" / "extra.parquet").write_bytes(b"")
    (repo / "README.md").unlink()
    problems = " | ".join(check_repo(repo))
    assert "no readable Parquet file" in problems
    assert "belongs to no split" in problems
    assert "README.md" in problems


def test_a_missing_clients_table_is_found(repo):
    (repo / CLIENTS).unlink()
    assert "cannot be read" in " | ".join(check_repo(repo))


def test_a_wrong_clients_table_is_found(repo):
    problems = problems_after(repo, CLIENTS, lambda t: t.slice(1))
    assert "is missing from clients/" in problems
    assert "column num_rows is string, expected int64" in problems_after(
        repo, CLIENTS, lambda t: t.set_column(2, "num_rows", pa.array(["1"] * t.num_rows))
    )
    assert "lacks the columns languages" in problems_after(repo, CLIENTS, lambda t: t.drop(["languages"]))


def test_missing_shards_are_found(repo):
    (repo / TRAIN).rename(repo / "data" / "train-00001-of-00002.parquet")
    assert "expected data/train-00000-of-00001.parquet" in " | ".join(check_repo(repo))


def test_many_problems_are_cut_short(repo):
    problems = check_repo(repo)
    rewrite(repo / CLIENTS, lambda t: t.set_column(2, "num_rows", pa.array([0] * t.num_rows)))
    rewrite(repo / TRAIN, lambda t: t.take(list(range(t.num_rows))[::-1]))
    problems = check_repo(repo)
    assert len(problems) == 51
    assert "problems more" in problems[-1]


def test_a_folder_without_data_is_no_client_repo(tmp_path):
    with pytest.raises(SchemaError, match="is no client repo"):
        check_repo(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"licence": "mi', "\xff"])
def test_a_record_that_cannot_be_read_is_a_problem_and_no_traceback(repo, tmp_path, content, capsys):
    (repo / "build.json").write_bytes(content.encode("latin-1"))
    assert check_repo(repo) == [
        "build.json: is no JSON object, so nothing tells how the rows were made; build it again"
    ]
    assert main(["report", str(repo), "--out", str(tmp_path / "report")]) == 2
    said = capsys.readouterr().err
    assert "build.json of" in said
    assert said.count("\n") == 1
    (repo / "build.json").unlink()
    assert check_repo(repo) == []


@pytest.mark.parametrize("at", [0.5, 0.2])
def test_a_damaged_file_is_one_line(repo, tmp_path, at, capsys):
    path = repo / TRAIN
    content = path.read_bytes()
    cut = int(len(content) * at)
    # Cut off, or with damage in the middle and its end whole.
    path.write_bytes(content[:cut] if at == 0.5 else content[:4] + bytes(cut) + content[4 + cut :])
    assert check_repo(repo) != []
    assert main(["report", str(repo), "--out", str(tmp_path / "report")]) == 2
    said = capsys.readouterr().err
    assert "a file of the split 'train' of" in said
    assert said.count("\n") == 1
