"""The build from source to folder: nothing lost silently, nothing half written, the same bytes again."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedllm_data.build import build
from fedllm_data.check import check_repo
from fedllm_data.clients import load_clients
from fedllm_data.errors import ConfigError, SourceError
from fedllm_data.pipeline.near_duplicates import RowShingles
from fedllm_data.pipeline.shingles import parts_of
from fedllm_data.schema import SCHEMAS
from fedllm_data.source import Filters, Rejected, SourceRow


def all_rows(folder):
    return [row for path in sorted((folder / "data").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_every_row_is_in_one_split_or_counted(tmp_path, make_source, many_rows):
    result = build(make_source(many_rows), tmp_path / "repo")
    assert sum(result.num_rows.values()) == len(many_rows)
    assert {row["row_id"] for row in all_rows(tmp_path / "repo")} == {row["row_id"] for row in many_rows}
    assert check_repo(tmp_path / "repo") == []


def test_building_again_gives_the_same_bytes(tmp_path, make_source, many_rows, digest):
    build(make_source(many_rows), tmp_path / "one", seed=3)
    build(make_source(many_rows), tmp_path / "two", seed=3)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_the_order_of_the_source_changes_no_data_file(tmp_path, make_source, many_rows, digest):
    build(make_source(many_rows), tmp_path / "one")
    random.Random(0).shuffle(many_rows)
    build(make_source(many_rows), tmp_path / "two")
    one, two = digest(tmp_path / "one"), digest(tmp_path / "two")
    assert {path: one[path] for path in one if path.endswith(".parquet")} == {
        path: two[path] for path in two if path.endswith(".parquet")
    }


def test_another_seed_draws_another_split(tmp_path, make_source, many_rows):
    build(make_source(many_rows), tmp_path / "one", seed=0)
    build(make_source(many_rows), tmp_path / "two", seed=1)
    assert set(load_clients(tmp_path / "one", "unseen")) != set(load_clients(tmp_path / "two", "unseen"))


def test_duplicates_are_counted_within_and_across_clients(tmp_path, make_source, turns):
    rows = [
        {"client_id": "ann", "messages": turns("a", "b")},
        {"client_id": "ann", "messages": turns("a", "b")},  # within ann: 1
        {"client_id": "bob", "messages": turns("a", "b")},  # ann's and bob's are one row: 1 across
        {"client_id": "bob", "messages": turns("a", "c")},
    ]
    counts = build(make_source(rows), tmp_path / "repo").facts["counts"]
    assert (counts["num_duplicates_in_client"], counts["num_duplicates_across_clients"]) == (1, 1)
    assert counts["num_kept"] == 2


def test_unfiltered_keeps_duplicates_and_gives_each_an_id_of_its_own(tmp_path, make_source, turns):
    rows = [{"client_id": "ann", "messages": turns("a", "b")}] * 3 + [
        {"client_id": "bob", "messages": turns("a", "b")}
    ]
    result = build(make_source(rows, filters=Filters(min_rows=5)), tmp_path / "repo", unfiltered=True)
    assert sum(result.num_rows.values()) == 4
    assert len({row["row_id"] for row in all_rows(tmp_path / "repo")}) == 4
    assert check_repo(tmp_path / "repo") == []


def test_size_limits_drop_small_clients_and_cap_large_ones(tmp_path, make_source, many_rows):
    # clients have 3 to 9 rows, client c has 3 + c % 7: of 40 clients c % 7 is 0..4 six times and 5, 6 five times
    # (0..4: 0,7,..,35 -> 6 each; 5: 5,12,19,26,33 -> 5; 6 -> 5).
    counts = build(make_source(many_rows), tmp_path / "repo", filters=Filters(min_rows=5, max_rows=6)).facts["counts"]
    assert counts["num_small_clients"] == 12  # c % 7 in {0, 1}
    assert counts["num_rows_of_small_clients"] == 6 * 3 + 6 * 4
    assert counts["num_rows_over_max"] == 6 * 1 + 5 * 2 + 5 * 3  # 7, 8 and 9 rows cut to 6
    assert counts["num_kept"] == 6 * 5 + 6 * 6 + 6 * 6 + 5 * 6 + 5 * 6


def test_pairs_of_equal_texts_go_unless_unfiltered(tmp_path, make_source, turns):
    pair = {"client_id": "ann", "prompt": turns("q"), "chosen": [{"role": "assistant", "content": "x"}]}
    rows = [{**pair, "rejected": pair["chosen"]}, {**pair, "rejected": [{"role": "assistant", "content": "y"}]}]
    filtered = build(make_source(rows, "preference"), tmp_path / "filtered")
    assert filtered.facts["counts"]["num_same_text_pairs"] == 1
    assert sum(filtered.num_rows.values()) == 1
    assert sum(build(make_source(rows, "preference"), tmp_path / "all", unfiltered=True).num_rows.values()) == 2


def test_rejected_rows_are_listed_with_file_line_and_reason(tmp_path, make_source, turns):
    items = [
        SourceRow({"client_id": "ann", "messages": turns("a", "b")}, "x.csv", 2),
        SourceRow({"client_id": "ann", "messages": turns("a", "")}, "x.csv", 3),
        Rejected("x.csv", 4, "is <b>broken</b>\n"),
        SourceRow({"client_id": "public", "messages": turns("a", "c")}, "x.csv", 5),
    ]
    result = build(make_source(items), tmp_path / "repo")
    listed = [json.loads(line) for line in (tmp_path / "repo" / "rejected.jsonl").read_text().splitlines()]
    assert [(item["file"], item["line"]) for item in listed] == [
        ("x.csv", 3),
        ("x.csv", 4),
        ("x.csv", 5),
    ]
    assert [item["reason"].partition(":")[0] for item in listed] == [
        "messages[1]",
        "is <b>broken</b>\n",
        "client_id",
    ]
    assert result.num_rejected == 3


def test_public_rows_belong_to_no_client(tmp_path, make_source, many_rows, turns):
    public = [SourceRow({"messages": turns(f"p{i}", "x")}, "memory", i, is_public=True) for i in range(5)]
    result = build(make_source([*many_rows, *public]), tmp_path / "repo")
    assert result.num_rows["public"] == 5
    assert set(load_clients(tmp_path / "repo", "public")) == {"public"}
    assert "public" not in pq.read_table(tmp_path / "repo" / "clients")["client_id"].to_pylist()


def test_files_have_the_schema_and_small_row_groups(tmp_path, make_source, turns):
    rows = [{"client_id": f"c{i % 3}", "row_id": f"{i:05d}", "messages": turns(f"q{i}", "a")} for i in range(2_000)]
    build(make_source(rows), tmp_path / "repo")
    file = pq.ParquetFile(tmp_path / "repo" / "data" / "train-00000-of-00001.parquet")
    assert file.schema_arrow.names == SCHEMAS["sft"].names
    assert {file.metadata.row_group(i).num_rows for i in range(file.num_row_groups - 1)} == {500}


def test_the_folder_loads_with_plain_datasets(tmp_path, make_source, many_rows):
    from datasets import load_dataset

    result = build(make_source(many_rows), tmp_path / "repo")
    loaded = load_dataset(str(tmp_path / "repo"))
    assert {split: rows.num_rows for split, rows in loaded.items()} == result.num_rows
    assert load_dataset(str(tmp_path / "repo"), "clients", split="train").num_rows == 40


def test_no_rows_left_says_how_many_were_rejected_and_leaves_nothing(tmp_path, make_source, turns):
    rows = [{"client_id": "ann", "messages": turns("a", "b")}, {"client_id": "", "messages": turns("a", "b")}]
    with pytest.raises(SourceError, match=r"of 2 rows read, 1 were rejected .*memory:2.*--min-rows"):
        build(make_source(rows), tmp_path / "repo", filters=Filters(min_rows=2))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_source_is_an_error(tmp_path, make_source):
    with pytest.raises(SourceError, match="of 0 rows read"):
        build(make_source([]), tmp_path / "repo")


def test_settings_that_cannot_be_honoured_raise(tmp_path, make_source, many_rows):
    source = make_source(many_rows)
    for settings, words in (
        ({"options": {"nope": "1"}}, "no option 'nope'"),
        ({"unfiltered": True, "filters": Filters(min_rows=2)}, "leave out min_rows"),
        ({"filters": Filters(min_rows=0)}, "at least 1"),
        ({"memory_limit": "lots'; DROP TABLE rows"}, "no amount of memory"),
    ):
        with pytest.raises(ConfigError, match=words):
            build(source, tmp_path / "repo", **settings)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_build_is_replaced_and_a_foreign_folder_is_not(tmp_path, make_source, many_rows, digest):
    build(make_source(many_rows), tmp_path / "repo")
    (tmp_path / "repo" / "report.html").write_text("old")
    build(make_source(many_rows[:50]), tmp_path / "repo", overwrite=True)
    assert not (tmp_path / "repo" / "report.html").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="not made here"):
        build(make_source(many_rows), tmp_path / "mine")
    assert list(digest(tmp_path / "mine")) == ["thesis.txt"]


def test_a_failing_build_leaves_the_earlier_folder(tmp_path, make_source, many_rows, digest):
    build(make_source(many_rows), tmp_path / "repo")
    before = digest(tmp_path)

    def broken(path, seed, options):
        yield SourceRow(many_rows[0], "memory", 1)
        raise SourceError("the disk is gone; buy another")

    with pytest.raises(SourceError, match="the disk"):
        build(make_source([], read=broken), tmp_path / "repo")
    assert digest(tmp_path) == before


KILLED = """
import itertools, sys
from pathlib import Path
from fedllm_data.build import build
from fedllm_data.source import Filters, Source, SourceRow

def read(path, seed, options):
    for i in itertools.count():
        turns = [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "a"}]
        yield SourceRow({"client_id": "ann", "row_id": str(i), "messages": turns}, "memory", i)

source = Source(name="fed-test", task="sft", summary="", client="a name", licence="", licence_url="", attribution="",
                upstream="generated", revision="", citation="", read=read, options={})
build(source, Path(sys.argv[1]), progress=lambda step, count: print(step, count, flush=True))
"""


def test_a_killed_build_leaves_the_earlier_folder_and_the_next_one_cleans_up(tmp_path, make_source, many_rows, digest):
    build(make_source(many_rows), tmp_path / "repo")
    before = digest(tmp_path / "repo")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "repo")], stdout=subprocess.PIPE, env=os.environ
    )
    assert process.stdout is not None
    process.stdout.readline()  # the first batch is in
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert digest(tmp_path / "repo") == before
    assert len(list(tmp_path.iterdir())) == 2  # what the dead process was making
    build(make_source(many_rows), tmp_path / "repo")
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]


def test_twenty_thousand_rows_are_all_there(tmp_path, make_source, turns):
    rows = [{"client_id": f"c{i % 50}", "messages": turns(f"q{i}", f"a{i}")} for i in range(20_000)]
    assert sum(build(make_source(rows), tmp_path / "repo").num_rows.values()) == 20_000


def near_counts(result):
    return tuple(result.facts["counts"][f"num_near_duplicates_{where}"] for where in ("in_client", "across_clients"))


def test_near_duplicates_go_by_history_question_and_answer(tmp_path, make_source, turns):
    question, answer = "Where can I see the northern lights in winter?", "In the far north, away from the cities."
    thanks = ("Thanks a lot!", "You are welcome, any time.")
    rows = [
        ("ann", (question, answer)),
        ("ann", (question + "?", answer)),  # the same row but for a sign: removed, her own
        ("bob", (question, answer + ".")),  # the same row of another client: removed, across clients
        ("bob", (question, "In Tromsø, if the sky is clear.")),  # another answer
        ("cyd", (question, answer, *thanks)),  # another conversation that ends like the next
        ("cyd", ("How do I get a stain out of a wool coat?", "With cold water and soap.", *thanks)),
        ("cyd", (question, answer, "And in summer?", "You cannot.")),  # another question after one history
    ]
    source = make_source(
        [{"client_id": who, "row_id": f"{n}", "messages": turns(*texts)} for n, (who, texts) in enumerate(rows)],
        filters=Filters(near_duplicates=0.8),
    )
    result = build(source, tmp_path / "repo")
    assert near_counts(result) == (1, 1)
    assert result.facts["counts"]["num_kept"] == 5
    shared = replace(source, clients_share_items=True)
    assert near_counts(build(shared, tmp_path / "shared")) == (1, 0)
    kept = build(source, tmp_path / "kept", filters=Filters())
    assert kept.facts["counts"]["num_kept"] == 7


def test_parts_are_read_from_the_rows_as_they_were_signed(turns):
    texts = ("Be brief.", "One?", "Two.", "Three?", "Four.")
    messages = [{"role": "system", "content": texts[0]}, *turns(*texts[1:])]
    sft = {"messages": messages}
    pair = {"prompt": messages[:-1], "chosen": messages[-1:], "rejected": [messages[2]]}
    for task, row in (("sft", sft), ("preference", pair), ("sft", {"messages": messages[1:3]})):
        with duckdb.connect() as connection:
            twice = {name: [value, value] for name, value in row.items()}
            connection.register("made", pa.table({"ordinal": [0, 1], **twice}))
            connection.execute("CREATE TABLE rows AS FROM made")
            read = RowShingles(connection, task, {0}).texts[0]
        assert tuple(read) == parts_of(row, task)
