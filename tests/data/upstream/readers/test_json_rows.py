"""The forms of JSON that are rows, and what is none."""

import json

import pytest

from fedllm_data.errors import SourceError
from fedllm_data.source import Rejected
from fedllm_data.upstream.records import read_records
from tests.data.upstream.readers.damage import read

ROWS = [{"who": "ann", "n": 1}, {"who": "bob", "n": 2}, {"who": "cy", "n": 3}]
MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
BY_INDEX = {str(index): row for index, row in enumerate(ROWS)}
COLUMNS = {name: [row[name] for row in ROWS] for name in ("who", "n")}


def fields(content, name):
    return [item if isinstance(item, Rejected) else item.fields for item in read(content.encode(), name)]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.ndjson"])
@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
        json.dumps({"data": ROWS}),
        json.dumps({"version": "1.0", "meta": {"n": 3}, "rows": ROWS}, indent=1),
        json.dumps({"errors": [], "columns": ["who", "n"], "rows": ROWS}, indent=1),
        json.dumps(COLUMNS),
        "\n".join(json.dumps(row, indent=4) for row in ROWS),
        "\n".join(map(json.dumps, ROWS)),
        ",\n".join(map(json.dumps, ROWS)) + ",\n",
        "".join(map(json.dumps, ROWS)),
        "\ufeff" + json.dumps(ROWS),
    ],
)
def test_every_form_gives_the_rows_whatever_the_ending_says(name, content):
    assert fields(content, name) == ROWS


@pytest.mark.parametrize("orient", ["records", "columns", "index", "split", "table"])
def test_what_pandas_writes_is_read(orient):
    pandas = pytest.importorskip("pandas")
    content = pandas.DataFrame(ROWS).to_json(orient=orient)
    assert [{name: row[name] for name in ("who", "n")} for row in fields(content, "rows.json")] == ROWS


@pytest.mark.parametrize(
    "row",
    [
        {"who": "ann", "messages": MESSAGES},
        {"prompt": MESSAGES[:1], "chosen": MESSAGES[1:], "rejected": MESSAGES[1:]},
        {"messages": MESSAGES},
        {"who": "ann", "n": 1},
        {"who": "ann", "tags": ["a", "b"]},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_single_row_stays_a_row(row, indent):
    for name in ("rows.json", "rows.jsonl"):
        assert fields(json.dumps(row, indent=indent), name) == [row]


def test_columns_of_conversations_are_rows():
    document = {"who": ["ann", "bob"], "messages": [MESSAGES, MESSAGES]}
    assert fields(json.dumps(document), "rows.json") == [{"who": who, "messages": MESSAGES} for who in ("ann", "bob")]


def test_several_lists_of_rows_are_refused_by_name():
    with pytest.raises(SourceError, match=r"several lists of rows \('train', 'test'\); write each into a file"):
        fields(json.dumps({"train": ROWS, "test": ROWS}), "rows.json")


def test_a_damaged_list_is_refused_with_the_line():
    with pytest.raises(SourceError, match=r"not a JSON list: .* line 4 column"):
        fields('[\n{"a": 1},\n{"a": 2\n]', "rows.json")


@pytest.mark.parametrize(
    ("content", "kinds"),
    [
        ('{"a": 1}{"a": 2}\n{"a": 3}\n', [1, 2, 3]),  # a line end that went
        ('{"a": 1}x{"a": 2}\n{"a": 3}\n', [1, 2, 3]),  # or became something else
        ('{"a": 1}}\n{"a": 2}\n', [None, 2]),
        ('{"a": 1} x\n{"a": 2}\n', [None, 2]),
        ('{"a": 1}{"a": \n{"a": 3}\n', [1, None, 3]),
        ('[{"a": 1}, {"a": 2}]\n[{"a": 3}, 7]\n{"a": 4}\n', [1, 2, None, 4]),
        ('[{"a": 1}, {"a": 2}]\n[{"a": 3}, {"a": 4}, 7]\n', [1, 2, 3, 4, None]),
        ('["a": 1}\n{"a": 2}\n{"a": 3}\n', [None, 2, 3]),
        ('[1]\n7\n\n{"a": 3}\n', [None, None, 3]),
        ('{\n "a": 1\n}\n{\n "a": \n}\n{\n "a": 3\n}\n', [1, None, 3]),
        ('x\n "a": 1\n}\n{\n "a": 2\n}\n', [None, 2]),
    ],
)
def test_no_rejected_line_stands_for_two_rows(content, kinds):
    items = fields(content, "rows.jsonl")
    assert [None if isinstance(item, Rejected) else item["a"] for item in items] == kinds


def test_a_byte_that_is_no_utf_8_in_a_list_costs_its_row():
    content = json.dumps([{"a": "x"}, {"a": "é"}, {"a": "y"}], ensure_ascii=False).encode("latin-1")
    items = read(content, "rows.json")
    assert [item.fields["a"] for item in items] == ["x", "\udce9", "y"]


@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_a_key_named_twice_rejects_its_row_by_name(tmp_path, ending):
    """Of two values under one key the first would vanish without a word."""
    sound, twice = '{"u": "a", "q": "x"}', '{"u": "a", "q": "x", "q": "y"}'
    inside = '{"u": "a", "m": [{"role": "user", "content": "x", "content": "y"}]}'
    rows = [sound, twice, inside, sound]
    path = tmp_path / f"rows.{ending}"
    path.write_text("\n".join(rows) if ending == "jsonl" else "[" + ",".join(rows) + "]")
    items = list(read_records(path))
    assert [type(item).__name__ for item in items] == ["Record", "Rejected", "Rejected", "Record"]
    assert [item.reason for item in items[1:3]] == ["names the key 'q' twice", "names the key 'content' twice"]


def test_columns_named_twice_refuse_the_file(tmp_path):
    (tmp_path / "rows.json").write_text('{"u": ["a"], "q": ["x"], "q": ["y"]}')
    with pytest.raises(SourceError, match="names 'q' twice"):
        list(read_records(tmp_path / "rows.json"))
