"""Anybody's files: the shapes that are understood, and every way in which they can be broken."""

import bz2
import datetime
import gzip
import io
import json
import lzma
from decimal import Decimal

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from fedllm_data.check import check_repo
from fedllm_data.clients import load_clients
from fedllm_data.errors import ConfigError, SourceError
from fedllm_data.importer import import_files, row_of
from fedllm_data.source import Filters
from fedllm_data.upstream.records import ReadSettings

GOOD = [{"who": f"w{i % 3}", "instruction": f"Q{i}", "response": f"A{i}"} for i in range(9)]


@pytest.fixture
def run(tmp_path):
    def import_one(content, name="rows.jsonl", **settings):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        asked = {"task": "sft", "client_column": "who", "unfiltered": True}
        settings = asked | {"max_rejected_fraction": 1, "overwrite": True} | settings
        result = import_files([path], tmp_path / "repo", **settings)
        assert check_repo(tmp_path / "repo") == []
        rows = [row for split in result.num_rows for row in load_clients(tmp_path / "repo", split).rows]
        listed = [json.loads(line) for line in (tmp_path / "repo" / "rejected.jsonl").read_text().splitlines()]
        return rows, {(item["file"], item["line"]): item["reason"] for item in listed}

    return import_one


def lines(rows):
    return "\n".join(json.dumps(row) for row in rows) + "\n"


def as_csv(rows, delimiter=","):
    return "\n".join(delimiter.join(row) for row in [list(rows[0]), *(list(row.values()) for row in rows)]) + "\n"


FORMATS = ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "arrow", "feather", "xlsx"]
COMPRESSED = ["jsonl.gz", "csv.gz", "csv.bz2", "jsonl.xz", "json.zst", "xlsx.gz", "parquet.zst"]


def in_format(kind):
    """The good rows in a format."""
    table, sink = pa.Table.from_pylist(GOOD), io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, sink)
    elif kind in ("arrow", "feather"):
        pyarrow.feather.write_feather(table, sink)
    elif kind == "xlsx":
        book = pytest.importorskip("openpyxl").Workbook()
        for row in [list(GOOD[0]), *(list(row.values()) for row in GOOD)]:
            book.active.append(row)
        book.save(sink)
    else:
        text = {"json": json.dumps(GOOD), "csv": as_csv(GOOD), "tsv": as_csv(GOOD, "\t")}
        return text.get(kind, lines(GOOD)).encode()
    return sink.getvalue()


@pytest.mark.parametrize("kind", [*FORMATS, *COMPRESSED])
def test_every_format_gives_the_same_rows(run, kind):
    kind_inside, _, ending = kind.partition(".")
    compress = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "": bytes}
    compress["zst"] = lambda content: pa.compress(content, "zstd", asbytes=True)
    content = compress[ending](in_format(kind_inside))
    rows, rejected = run(content, f"rows.{kind}")
    assert sorted(row["messages"][1]["content"] for row in rows) == [f"A{i}" for i in range(9)]
    assert rejected == {}


def test_other_column_names_are_mapped(run):
    text = as_csv([{"user id": "7", "q": "Hi", "a": "Hello", "sys": "Be kind", "lang": "pt-BR"}])
    rows, _ = run(
        text,
        "x.csv",
        client_column="user id",
        columns={"instruction": "q", "response": "a", "system": "sys", "language": "lang"},
    )
    assert rows[0]["client_id"] == "7"
    assert rows[0]["language"] == "pt"
    assert [message["content"] for message in rows[0]["messages"]] == ["Be kind", "Hi", "Hello"]


def test_messages_come_as_lists_json_text_python_literals_or_share_gpt():
    wanted = [{"role": "user", "content": "it's"}, {"role": "assistant", "content": "Hello"}]
    shared = [{"from": "human", "value": "it's"}, {"from": "gpt", "value": "Hello"}]
    named = [{**message, "name": None} for message in wanted]
    for messages in (wanted, json.dumps(wanted), repr(wanted), shared, named):
        assert row_of({"who": "a", "messages": messages}, "sft", "who")["messages"] == wanted


def test_an_instruction_may_be_the_conversation_before_the_response():
    history = [{"content": c, "role": r} for c, r in (("Hi", "user"), ("Hello", "assistant"), ("Bye", "user"))]
    for instruction in (history, repr(history)):
        row = row_of({"who": "a", "instruction": instruction, "response": "See you"}, "sft", "who")
        assert [message["content"] for message in row["messages"]] == ["Hi", "Hello", "Bye", "See you"]
    row = row_of({"who": "a", "instruction": "[{x}] means?", "response": "A list"}, "sft", "who")
    assert row["messages"][0]["content"] == "[{x}] means?"


def test_nothing_is_evaluated(tmp_path):
    for text in (f"__import__('os').mkdir({str(tmp_path / 'x')!r})", "[" * 5_000, "(" * 200 + "1", "\0"):
        assert "neither JSON nor" in row_of({"who": "a", "messages": text}, "sft", "who")
    assert not (tmp_path / "x").exists()


def test_pairs_come_as_texts_messages_or_whole_conversations():
    user, good, bad = ({"role": r, "content": c} for r, c in (("user", "Q"), ("assistant", "g"), ("assistant", "b")))
    for fields in (
        {"prompt": "Q", "chosen": "g", "rejected": "b"},
        {"prompt": [user], "chosen": [good], "rejected": [bad]},
        {"prompt": "Q", "chosen": [user, good], "rejected": [user, bad]},
        {"chosen": json.dumps([user, good]), "rejected": json.dumps([user, bad])},
    ):
        row = row_of({"who": "a", **fields}, "preference", "who")
        assert (row["prompt"], row["chosen"], row["rejected"]) == ([user], [good], [bad])
    other = {"role": "user", "content": "other"}
    assert "differ before" in row_of(
        {"who": "a", "chosen": [user, good], "rejected": [other, bad]}, "preference", "who"
    )


def test_a_truncated_line_is_listed_and_the_rest_imported(run):
    rows, rejected = run(lines(GOOD) + '{"who": "w0", "instr')
    assert len(rows) == 9
    assert "is not JSON" in rejected["rows.jsonl", 10]


def test_bad_values_are_listed_with_line_and_reason(run):
    bad = [
        {"who": "w0", "instruction": None, "response": "A"},
        {"who": "w0", "instruction": "Q", "response": "  "},
        {"who": "w0", "instruction": "Q"},
        {"who": None, "instruction": "Q", "response": "A"},
        {"who": "x" * 10_000, "instruction": "Q", "response": "A"},
        {"who": "w0", "instruction": 7, "response": "A"},
        {"who": "w0", "instruction": "Q", "response": "\ud800"},
        {"who": ["w0"], "instruction": "Q", "response": "A"},
    ]
    rows, rejected = run(lines([*GOOD, *bad]) + "[1]\n7\n\n")
    assert len(rows) == 9
    reasons = [rejected["rows.jsonl", line] for line in range(10, 20)]
    expected = [
        "instruction: is null",
        "response: is empty",
        "column 'response' is missing",
        "client_id: is missing",
        "client_id: is 10000 bytes long",
        "instruction: must be text, got int",
        "not valid Unicode",
        "client_id: must be a string",
        "is a JSON list",
        "is a JSON int",
    ]
    for reason, words in zip(reasons, expected, strict=True):
        assert words in reason


def test_path_characters_and_html_in_a_client_id_stay_data(run, tmp_path):
    ids = ["../../../evil", "<img src=x onerror=alert(1)>", "a/b\\c:d", "C'; DROP TABLE rows; --", "{{7*7}}"]
    rows, _ = run(lines([{"who": who, "instruction": "Q" + who, "response": "A"} for who in ids]))
    assert sorted(row["client_id"] for row in rows) == sorted(ids)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["repo", "rows.jsonl"]
    assert b"<img" not in (tmp_path / "repo" / "README.md").read_bytes()


def test_a_name_with_html_is_escaped_in_the_readme(run, tmp_path):
    run(lines(GOOD), name="<b>.jsonl")
    run(lines(GOOD), client_column="who", **{"licence": "x\ntags: [evil]"})
    assert "\ntags: [evil]" not in (tmp_path / "repo" / "README.md").read_text()


def test_latin_1_lines_are_listed_and_utf_16_files_refused(run):
    csv = as_csv(GOOD).encode() + "w0,été,oui\n".encode("latin-1")
    rows, rejected = run(csv, "x.csv")
    assert len(rows) == 9
    assert "not valid Unicode" in rejected["x.csv", 11]
    rows, rejected = run(lines(GOOD).encode() + '{"who": "é"}\n'.encode("latin-1"))
    assert "not UTF-8" in rejected["rows.jsonl", 10]
    with pytest.raises(SourceError, match="not UTF-8 text"):
        run(as_csv(GOOD).encode("utf-16-le"), "x.csv")
    assert len(run(as_csv(GOOD).encode("utf-16"), "x.csv")[0]) == 9


def test_a_byte_order_mark_is_no_part_of_the_first_column(run):
    assert len(run(b"\xef\xbb\xbf" + as_csv(GOOD).encode(), "x.csv")[0]) == 9
    assert len(run(b"\xef\xbb\xbf" + lines(GOOD).encode())[0]) == 9


def test_csv_with_quotes_newlines_and_missing_fields(run):
    rows, rejected = run('who,instruction,response\nann,"a ""b""\nc",d\nann,x\nann,y,z\n', "x.csv")
    assert sorted(row["messages"][0]["content"] for row in rows) == ['a "b"\nc', "y"]
    assert rejected == {("x.csv", 4): "has 2 fields, the header has 3"}


def test_a_quote_that_never_closes_costs_its_row_and_is_listed(run):
    rows, rejected = run(as_csv(GOOD) + 'ann,"open,x\nann,y,z\n', "x.csv")
    assert len(rows) == 10
    assert list(rejected) == [("x.csv", 11)]
    assert "quotes of this row do not match" in rejected["x.csv", 11]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", b"", "no header line"),
        ("x.csv", b"who,who\n1,2\n", "names the column 'who' twice"),
        ("x.parquet", b"PAR1 nothing PAR1", "not a readable Parquet file"),
        ("x.json", b'[{"who": 1}', "not a JSON list"),
        ("x.jsonl.gz", b"no gzip", "cannot be read"),
        ("x.jsonl.gz", gzip.compress(b'{"who": 1}\n' * 10_000)[:-100], "cannot be read"),
        ("x.xlsx", b"PK", "not a readable .xlsx file"),
        ("x.xls", b"PK", "ends in '.xls'"),
        ("x.jsonl", b"", "of 0 rows read"),
        ("x.jsonl", b'{"a": 1}\n', "column 'who' is missing; the columns are 'a'; name one with --client-column"),
    ],
)
def test_what_cannot_go_on_is_one_error_and_leaves_nothing(run, tmp_path, name, content, words):
    with pytest.raises(SourceError, match=words):
        run(content, name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_folders_missing_files_and_unknown_targets_are_refused(tmp_path):
    settings = {"task": "sft", "client_column": "who"}
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match="is a folder, not a file"):
        import_files([tmp_path / "folder.csv"], tmp_path / "repo", **settings)
    with pytest.raises(SourceError, match="does not exist"):
        import_files([tmp_path / "nothing.csv"], tmp_path / "repo", **settings)
    with pytest.raises(ConfigError, match="no file"):
        import_files([], tmp_path / "repo", **settings)
    with pytest.raises(ConfigError, match="cannot name 'chosen' for sft"):
        import_files([tmp_path / "x.csv"], tmp_path / "repo", columns={"chosen": "a"}, **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]


def test_filters_that_leave_nothing_say_so(run, tmp_path):
    with pytest.raises(SourceError, match="none are left after the filters, of clients with at least 50"):
        run(lines(GOOD), unfiltered=False, filters=Filters(min_rows=50))
    assert not (tmp_path / "repo").exists()


def test_several_files_and_their_digests_are_on_record(tmp_path):
    for index in range(2):
        (tmp_path / f"{index}.jsonl").write_text(lines(GOOD[index::2]))
    result = import_files(
        [tmp_path / "0.jsonl", tmp_path / "1.jsonl"], tmp_path / "repo", task="sft", client_column="who"
    )
    assert sum(result.num_rows.values()) == 9
    assert [item["name"] for item in result.facts["source_files"]] == ["0.jsonl", "1.jsonl"]
    assert str(tmp_path) not in (tmp_path / "repo" / "build.json").read_text()


def rows_with(bad):
    """5,000 rows of which row 101 is another line."""
    lines_of_csv = [f"w{index % 7},Q{index},A{index}" for index in range(5_000)]
    lines_of_csv[100] = bad
    return "who,instruction,response\n" + "\n".join(lines_of_csv) + "\n"


@pytest.mark.parametrize(
    ("bad", "question"),
    [('u0,"5" nail?",r', '5" nail?'), ('u0,"never closed,r', None), ('u0,"say \\"hi\\"!",r', 'say "hi"!')],
)
def test_a_malformed_quote_costs_its_row_at_most(tmp_path, bad, question):
    (tmp_path / "x.csv").write_text(rows_with(bad))
    result = import_files([tmp_path / "x.csv"], tmp_path / "repo", task="sft", client_column="who", unfiltered=True)
    assert sum(result.num_rows.values()) + result.num_rejected == 5_000
    assert result.num_rejected == (question is None)
    if question:
        rows = [row for split in result.num_rows for row in load_clients(tmp_path / "repo", split).rows]
        assert [row["messages"][0]["content"] for row in rows if row["client_id"] == "u0"] == [question]


def test_delimiter_encoding_and_nested_columns_reach_the_readers(run):
    text = "meta;instruction;response\n" + "".join(
        f'"{{""user"": ""w{index % 3}""}}";Où {index}, là ?;été {index}\n' for index in range(9)
    )
    with pytest.raises(SourceError, match="--encoding cp1252"):
        run(text.encode("cp1252"), "x.csv", client_column="meta.user")
    settings = {"client_column": "meta.user", "reading": ReadSettings(encoding="cp1252", delimiter=";")}
    rows, rejected = run(text.encode("cp1252"), "x.csv", **settings)
    assert sorted({row["client_id"] for row in rows}) == ["w0", "w1", "w2"]
    assert {row["messages"][0]["content"] for row in rows} == {f"Où {index}, là ?" for index in range(9)}
    assert rejected == {}
    # The encoding is that of files that are not UTF-8: one that is UTF-8 is read as what it is.
    assert run(text.encode(), "x.csv", **settings) == (rows, rejected)


def test_ids_that_are_dates_decimals_or_bytes_are_the_same_text_in_every_format(run, tmp_path):
    days = [datetime.date(2024, 1, day) for day in (1, 2, 3)]
    table = pa.table(
        {
            "who": pa.array(days * 3),
            "instruction": [f"Q{index}" for index in range(9)],
            "response": pa.array([f"A{index}".encode() for index in range(9)]),
            "key": pa.array([Decimal(f"{index}.00") for index in range(9)]),
        }
    )
    pq.write_table(table, tmp_path / "made")
    rows, _ = run((tmp_path / "made").read_bytes(), "x.parquet", columns={"row_id": "key"})
    assert {row["client_id"] for row in rows} == {"2024-01-01", "2024-01-02", "2024-01-03"}
    assert sorted(row["row_id"] for row in rows) == [str(index) for index in range(9)]


@pytest.mark.parametrize(
    ("reading", "name", "words"),
    [
        ({"delimiter": ";;"}, "x.csv", "--delimiter ';;' is no single character"),
        ({"delimiter": ";"}, "x.jsonl", r"--delimiter is for \.csv and \.tsv files, and none of the files is one"),
        ({"encoding": "klingon"}, "x.csv", "--encoding 'klingon' is no encoding"),
        ({"encoding": "cp1252"}, "x.parquet", "--encoding is for"),
        ({"sheet": "one"}, "x.csv", r"--sheet is for \.xlsx files"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(run, tmp_path, reading, name, words):
    with pytest.raises(ConfigError, match=words):
        run(lines(GOOD), name, reading=ReadSettings(**reading))
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv"])
def test_the_header_of_a_joined_file_is_no_client(run, name, mark):
    content = as_csv(GOOD, "\t" if name.endswith("tsv") else ",")
    rows, rejected = run(content + mark + content.replace("Q", "P"), name)
    assert len(rows) == 18
    assert {row["client_id"] for row in rows} == {"w0", "w1", "w2"}
    assert rejected == {(name, 11): "holds the names of the columns, as files that were joined do"}
    # A row that holds one of the names is a row.
    rows, rejected = run(content + content.splitlines()[1].replace("w0", "who"), name)
    assert (len(rows), rejected) == (10, {})
