"""What a build asserts at its end: nothing that was read is lost."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import fedllm_data.build
from fedllm_data.build import build
from fedllm_data.errors import SourceError
from fedllm_data.importer import import_files
from fedllm_data.pipeline.conservation import check_conservation
from fedllm_data.source import Filters, Rejected, SourceRow
from fedllm_data.sources import SOURCES
from fedllm_data.upstream.read_counts import ReadCounts

COUNTS = {"num_valid": 9, "num_rejected": 2, "num_toxic": 1, "num_duplicates_in_client_kept": 5, "num_kept": 8}
SPLITS = {"num_unseen_rows_dropped": 1, "num_openings": 40}


@pytest.fixture
def check(tmp_path):
    listed = tmp_path / "rejected.jsonl"
    listed.write_text("{}\n{}\n")

    def run(*, reads=(9, 2), num_items=11, num_written=7, is_row_per_record=True, **changes):
        check_conservation(
            "tiny",
            ReadCounts(*reads),
            num_items,
            COUNTS | changes,
            SPLITS,
            num_written,
            rejected_path=listed,
            is_row_per_record=is_row_per_record,
        )

    return run


def test_sums_that_add_up_pass(check):
    # 11 items = 9 valid + 2 rejected; 9 = 8 kept + 1 toxic; 8 = 7 written + 1 dropped.
    check()
    check(reads=(3, 1), is_row_per_record=False)  # a source that makes several rows of a record


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_items": 12}, "of 12 rows that were read, 11 are accounted for"),
        ({"reads": (10, 2)}, "of 12 records of the files, 11"),
        ({"reads": (9, 3), "is_row_per_record": False}, "of 3 rejected records of the files, 2"),
        ({"num_rejected": 3, "num_valid": 8}, "of 3 rejected rows, 2 are accounted for .listed"),
        ({"num_toxic": 0}, "of 9 valid rows, 8"),
        ({"num_written": 6}, "of 8 kept rows, 7"),
    ],
)
def test_a_row_that_is_nowhere_is_found(check, changes, words):
    with pytest.raises(SourceError, match=words):
        check(**changes)


def source_of(items, **changes):
    return replace(SOURCES["fed-synth"], read=lambda *_: iter(items), options={}, task="sft", **changes)


def turns(index):
    return [{"role": "user", "content": f"{index}?"}, {"role": "assistant", "content": f"{index}!"}]


def test_every_build_asserts_it_with_filters_duplicates_and_rejected_rows(tmp_path):
    rows = [{"client_id": f"c{i % 5}", "row_id": str(i), "messages": turns(i % 31)} for i in range(40)]
    items = [SourceRow(row, "memory", i, is_toxic=i % 9 == 0) for i, row in enumerate(rows)]
    items += [Rejected("memory", 41, "odd"), SourceRow({"client_id": ""}, "memory", 42)]
    for filters in (Filters(), Filters(min_rows=2, max_rows=5, max_clients=2, max_chars=5), Filters.none()):
        facts = build(source_of(items), tmp_path / "repo", filters=filters).facts
        assert facts["counts"]["num_rejected"] == 2
        assert facts["counts"]["num_valid"] == 40


def test_a_source_that_loses_a_record_is_stopped(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"who": "a", "instruction": str(i), "response": "x"}) + "\n" for i in range(9))
    )
    original = fedllm_data.build.load_rows

    def forgetful(connection, source, items, *rest):
        return original(connection, source, iter(list(items)[1:]), *rest)

    monkeypatch.setattr(fedllm_data.build, "load_rows", forgetful)
    with pytest.raises(SourceError, match="of 9 rows that were read, 8 are accounted for"):
        import_files([tmp_path / "rows.jsonl"], tmp_path / "repo", task="sft", client_column="who")
    assert not Path(tmp_path, "repo").exists()


def test_sources_that_make_a_row_of_every_record_say_so():
    assert sorted(name for name, source in SOURCES.items() if source.is_row_per_record) == [
        "fed-aya",
        "fed-chatbot-it",
        "fed-chatbot-pa",
        "fed-complaints",
        "fed-dices-pa",
        "fed-hansard",
        "fed-realhumaneval",
        "fed-summaries-pa",
        "fed-wildchat",
        "fed-wildchat-multi",
    ]
