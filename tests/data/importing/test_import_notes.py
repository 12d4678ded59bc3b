"""What an import says of itself: every column is named, and one reason for many rejected rows stops it."""

import gzip
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.build import build
from fedllm_data.cards.card import write_card
from fedllm_data.cli import main
from fedllm_data.errors import ConfigError, SourceError
from fedllm_data.importer import import_files, row_of
from fedllm_data.importing.conversation_turns import RowChanges
from fedllm_data.importing.import_notes import ImportNotes, import_lines
from fedllm_data.importing.record_columns import RecordColumns, WatchedFields

GOOD = [{"who": f"w{i % 3}", "instruction": f"Q{i}", "response": f"A{i}", "topic": "x"} for i in range(18)]
NAMES = [
    "who",
    "instruction",
    "input",
    "output",
    "prompt",
    "conversations",
    "text",
    "tools",
    "system",
    "id",
    "a.b",
    "é",
]


def write(tmp_path, rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(st.lists(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["x", "", None, 3, ["x"]])), max_size=4))
def test_no_column_is_ever_unnamed(records):
    notes = ImportNotes(["who"])
    for record in records:
        row_of(record, "sft", "who", notes=notes)
    facts = notes.facts()
    named = " ".join(import_lines(facts))
    for column in {name for record in records for name in record}:
        assert re.search(rf"(?<!\w){re.escape(column)}(?!\w)", named)


def test_a_column_counts_in_the_rows_that_left_its_value():
    notes = ImportNotes(["who"])
    alone = {"who": "a", "instruction": "Q", "response": "A"}
    for fields in (alone, {**alone, "note": "x"}, {**alone, "note": " "}, {**alone, "note": "y", "response": ""}):
        row_of(fields, "sft", "who", notes=notes)
    assert notes.facts()["unused_columns"] == {"note": 1}


def test_of_a_nested_column_the_fields_that_were_not_asked_for_are_named():
    fields = WatchedFields({"metadata": {"user": {"id": "a", "name": "b"}, "topic": "x", "empty": None}})
    assert fields["metadata"]["user"]["id"] == "a"
    notes = ImportNotes(["metadata.user.id"])
    notes.add(fields, RecordColumns(fields, {}, lambda record, column: record[column]), RowChanges())
    # Fields are told apart one level down: `metadata.user` was read in part.
    assert notes.facts()["unused_columns"] == {"metadata.topic": 1, "metadata.empty": 0}


def test_summary_build_json_and_card_say_it(tmp_path, capsys):
    turns = [{"role": "user", "content": "Hi"}, {"role": "user", "content": "there"}]
    rows = [
        {**row, "response": [{"role": "assistant", "content": f"A{i}", "name": "b"}]} for i, row in enumerate(GOOD)
    ]
    rows = [{**row, "instruction": [*turns, {"role": "user", "content": f"{i}?"}]} for i, row in enumerate(rows)]
    path = write(tmp_path, rows)
    out = tmp_path / "repo"
    assert (
        main(["import", str(path), "--task", "sft", "--client-column", "who", "--no-report", "--out", str(out)]) == 0
    )
    write_card(out)
    said = capsys.readouterr().out
    assert "columns read: instruction, response, who\n" in said
    assert "columns not used: topic (18 rows)\n" in said
    assert "keys of messages not used: name (18 messages)\n" in said
    assert "18 rows: consecutive turns of one role became one\n" in said
    assert json.loads((out / "build.json").read_text())["import"] == {
        "columns_by_target": {"instruction": ["instruction"], "response": ["response"]},
        "other_columns_read": ["who"],
        "unused_columns": {"topic": 18},
        "unused_message_keys": {"name": 18},
        "changed_rows": {"merged_turns": 18},
    }
    assert "- 18 rows: consecutive turns of one role became one" in (out / "README.md").read_text()


def test_a_column_of_rejected_rows_alone_is_not_called_empty(tmp_path, capsys):
    (tmp_path / "b.jsonl").write_text(json.dumps({"user": "a", "instruction": "Q", "response": "A"}) + "\n")
    files = [str(write(tmp_path, [*GOOD, *GOOD[:2]])), str(tmp_path / "b.jsonl")]
    flags = ["--task", "sft", "--client-column", "who", "--no-report", "--unfiltered", "--out", str(tmp_path / "repo")]
    assert main(["import", *files, *flags]) == 0
    assert "user (empty in all rows that were used)" in capsys.readouterr().out


def failing(num_rows):
    return [{**row, "response": None} if i < num_rows else row for i, row in enumerate([*GOOD, *GOOD[:2]])]


def test_one_reason_for_more_than_a_tenth_of_the_rows_stops(tmp_path, capsys):
    out = tmp_path / "repo"
    flags = ["--task", "sft", "--client-column", "who", "--no-report", "--unfiltered", "--out", str(out)]
    # 2 of 20 are a tenth, not more.
    assert main(["import", str(write(tmp_path, failing(2))), *flags]) == 0
    before = sorted((path.name, path.read_bytes()) for path in out.rglob("*") if path.is_file())
    capsys.readouterr()
    assert main(["import", str(write(tmp_path, failing(3))), *flags]) == 2
    said = capsys.readouterr().err
    assert "3 of 20 rows (15%) cannot be used for one reason, first at rows.jsonl:1: response: is null" in said
    assert "--max-rejected-fraction 1" in said
    assert said.count("\n") == 1
    assert sorted((path.name, path.read_bytes()) for path in out.rglob("*") if path.is_file()) == before
    assert main(["import", str(write(tmp_path, failing(3))), *flags, "--max-rejected-fraction", "0.15"]) == 0
    assert "rejected: 3" in capsys.readouterr().out


def test_the_reason_that_stops_names_the_flag_that_would_read_the_rows(tmp_path):
    turns = [{"role": "customer", "content": "Hi"}, {"role": "agent", "content": "Hello"}]
    rows = [
        {"who": "a", "messages": [{**turn, "content": f"{turn['content']} {i}"} for turn in turns]} for i in range(20)
    ]
    settings = {"task": "sft", "client_column": "who"}
    path = write(tmp_path, [*rows, *({**row, "messages": None} for row in GOOD[:1]), *GOOD])
    with pytest.raises(SourceError, match=r"20 of 39 rows .*role 'customer' is not known; .* --roles customer=user"):
        import_files([path], tmp_path / "repo", **settings)
    roles = {"customer": "user", "agent": "assistant"}
    result = import_files([path], tmp_path / "repo", roles=roles, unfiltered=True, **settings)
    assert sum(result.num_rows.values()) == 39
    assert result.num_rejected == 0


def test_reasons_that_differ_in_columns_or_places_alone_are_one(tmp_path):
    rows = [{**row, "response": None, f"extra {i}": 1} if i < 4 else row for i, row in enumerate(GOOD)]
    for row in rows[:4]:
        del row["response"]
    with pytest.raises(SourceError, match=r"4 of 18 rows \(22%\)"):
        import_files([write(tmp_path, rows)], tmp_path / "repo", task="sft", client_column="who")


def test_several_rare_reasons_do_not_stop(tmp_path):
    bad = [{**GOOD[0], "response": 7}, {**GOOD[0], "instruction": ""}, {**GOOD[0], "who": ""}]
    result = import_files(
        [write(tmp_path, [*GOOD, *bad])], tmp_path / "repo", task="sft", client_column="who", unfiltered=True
    )
    assert result.num_rejected == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_rejected_fraction": 1.5}, "--max-rejected-fraction is 1.5"),
        ({"max_rejected_fraction": float("nan")}, "--max-rejected-fraction is nan"),
        ({"roles": {"agent": "robot"}}, "--roles agent=robot means none of user, assistant"),
        ({"columns": {"messages": "a", "instruction": "b"}}, "names both messages and instruction"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        import_files([write(tmp_path, GOOD)], tmp_path / "repo", task="sft", client_column="who", **settings)


def test_a_source_may_stop_when_its_rows_are_read(tmp_path, make_source, many_rows):
    def refuse(loaded, num_valid):
        raise SourceError(f"{num_valid} rows are too few")

    with pytest.raises(SourceError, match=f"{len(many_rows)} rows are too few"):
        build(make_source(many_rows), tmp_path / "repo", look_at=refuse)
    assert not (tmp_path / "repo").exists()


@pytest.mark.slow
def test_real_pairs_of_hh_come_back_as_they_were_written(shared_data):
    path = shared_data / "pref" / "hh_rlhf" / "harmless-base-test.jsonl.gz"
    num_rows = num_empty = num_merged = 0
    for line in gzip.open(path, "rt", encoding="utf-8"):
        pair = json.loads(line)
        row = row_of({"who": "a", **pair}, "preference", "who")
        if isinstance(row, str):
            assert row.endswith("content is empty")
            num_empty += 1
            continue
        num_rows += 1
        is_merged = False
        for side in ("chosen", "rejected"):
            turns = [*row["prompt"], *row[side]]
            marks = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: "}
            again = "".join(marks[turn["role"]] + turn["content"] for turn in turns)
            if again.split() == pair[side].split():
                continue
            # Turns of one role in a row became one: the words are all there, marks are fewer.
            is_merged = True
            assert len(re.findall("\n\n(?:Human|Assistant):", pair[side])) > len(turns)
            words = re.sub("\n\n(?:Human|Assistant):", " ", pair[side]).split()
            assert words == " ".join(turn["content"] for turn in turns).split()
        num_merged += is_merged
    # Of 2,312 pairs four have an empty answer; nine hold two turns of one role in a row.
    assert (num_rows, num_empty, num_merged) == (2308, 4, 9)
