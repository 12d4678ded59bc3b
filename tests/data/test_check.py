"""Each promise of a client repo, broken on purpose."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedllm_data.build import build
from fedllm_data.check import check_repo
from fedllm_data.errors import SchemaError

TRAIN = "data/train-00000-of-00001.parquet"
UNSEEN = "data/unseen-00000-of-00001.parquet"
CLIENTS = "clients/clients-00000-of-00001.parquet"


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
        return pa.Table.from_pylist(rows)

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
