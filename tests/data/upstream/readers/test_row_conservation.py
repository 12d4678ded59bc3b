"""Over every reader: what is not damaged comes back equal, each row is read or rejected once, and nothing is raised.

The count of rows that a damaged file holds is made here without the reader: its lines, or its `<row` elements.
"""

import csv
import io
import json
import re
from xml.sax.saxutils import quoteattr

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.upstream.readers.damage import COLUMNS, LINES, TEXTS, damages, read, read_or_refuse, rows_of, values_of

EXAMPLES = settings(max_examples=100, derandomize=True, deadline=None, database=None)
FEW = settings(max_examples=20, derandomize=True, deadline=None, database=None)
QUOTINGS = st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])


def pieces_of_csv(rows, delimiter, quoting, end):
    """Header and rows as a writer writes them, each as bytes."""
    pieces = []
    for row in [COLUMNS, *rows]:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end).writerow(row)
        pieces.append(text.getvalue().encode())
    return pieces


def spans(pieces):
    """First and last byte of each piece."""
    place = 0
    for piece in pieces:
        yield place, place + len(piece) - 1
        place += len(piece)


def untouched(rows, pieces, damage):
    """The rows none of whose bytes, nor the line end before them, is damaged; `pieces` has one more: the head."""
    return [
        row
        for row, (first, last) in zip(rows, list(spans(pieces))[1:], strict=True)
        if last < damage.first or first - 1 > damage.last
    ]


@EXAMPLES
@given(
    rows_of(TEXTS),
    st.sampled_from(",;\t|"),
    QUOTINGS,
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([".csv", ".tsv"]),
)
def test_a_sound_csv_comes_back_equal(rows, delimiter, quoting, end, suffix):
    items = read(b"".join(pieces_of_csv(rows, delimiter, quoting, end)), f"rows{suffix}")
    assert values_of(items) == rows


@EXAMPLES
@given(st.data(), rows_of(TEXTS, min_size=1), st.sampled_from(",;\t"), QUOTINGS)
def test_a_damaged_csv_loses_the_damaged_row_alone(data, rows, delimiter, quoting):
    pieces = pieces_of_csv(rows, delimiter, quoting, "\n")
    damage = data.draw(damages(b"".join(pieces), len(pieces[0])))
    items = read(damage.content, "rows.csv")
    expected = untouched(rows, pieces, damage)
    assert [row for row in values_of(items) if row in expected] == expected
    # Two rows may have become one where the line end between them went.
    assert len(items) >= len(rows) - 1 - (damage.content in b"".join(pieces)) * len(rows)


@EXAMPLES
@given(st.data(), rows_of(LINES, min_size=1), st.sampled_from(",;\t"), QUOTINGS)
def test_of_a_damaged_csv_without_line_ends_in_fields_every_line_is_one_row(data, rows, delimiter, quoting):
    pieces = pieces_of_csv(rows, delimiter, quoting, "\n")
    damage = data.draw(damages(b"".join(pieces), len(pieces[0])))
    items = read(damage.content, "rows.csv")
    num_lines = sum(bool(line.strip(b"\r")) for line in damage.content.split(b"\n")) - 1
    assert len(items) in (num_lines, num_lines - (damage.content.count(b"\n") > b"".join(pieces).count(b"\n")))
    assert len({item.line for item in items}) == len(items)


@EXAMPLES
@given(st.data(), rows_of(TEXTS, min_size=1), st.sampled_from([".jsonl", ".ndjson", ".json"]))
def test_a_damaged_line_of_json_costs_itself(data, rows, suffix):
    pieces = [
        b"",
        *(json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False).encode() + b"\n" for row in rows),
    ]
    assert values_of(read(b"".join(pieces), f"rows{suffix}")) == rows
    damage = data.draw(damages(b"".join(pieces), 0))
    items = read(damage.content, f"rows{suffix}")
    expected = untouched(rows, pieces, damage)
    assert [row for row in values_of(items) if row in expected] == expected
    if b"".join(pieces).startswith(damage.content):
        assert len(items) == sum(bool(line.strip()) for line in damage.content.split(b"\n"))
    else:
        assert len(rows) <= len(items) <= len(rows) + 1  # one more where a line end came into an object


@EXAMPLES
@given(st.data(), rows_of(TEXTS, min_size=1), st.sampled_from([".jsonl", ".json"]), st.sampled_from([1, 2, "\t"]))
def test_objects_over_several_lines_cost_themselves(data, rows, suffix, indent):
    objects = [json.dumps(dict(zip(COLUMNS, row, strict=True)), indent=indent).encode() + b"\n" for row in rows]
    pieces = [b"", *objects]
    assert values_of(read(b"".join(pieces), f"rows{suffix}")) == rows
    damage = data.draw(damages(b"".join(pieces), 0))
    items = read_or_refuse(damage.content, f"rows{suffix}")
    if items is not None:
        expected = untouched(rows, pieces, damage)
        assert [row for row in values_of(items) if row in expected] == expected


@EXAMPLES
@given(st.data(), rows_of(TEXTS, min_size=1), st.sampled_from(["list", "pretty", "wrapped", "columns"]))
def test_a_json_document_comes_back_equal_and_is_refused_or_read_where_damaged(data, rows, form):
    objects = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
    document = {"wrapped": {"version": 1, "data": objects}, "columns": columns}.get(form, objects)
    content = json.dumps(document, indent=1 if form == "pretty" else None, ensure_ascii=False).encode()
    assert values_of(read(content, "rows.json")) == rows
    read_or_refuse(data.draw(damages(content, 0)).content, "rows.json")


@EXAMPLES
@given(st.data(), rows_of(LINES, min_size=1))
def test_a_damaged_xml_element_costs_itself(data, rows):
    rows = [tuple(re.sub(r"[\t\x00-\x1f\ufffe\uffff]", "", text) for text in row) for row in rows]
    head = b'<?xml version="1.0" encoding="utf-8"?>\n<rows>\n'
    elements = [
        f"  <row {' '.join(map('='.join, zip(COLUMNS, map(quoteattr, row), strict=True)))} />\n".encode()
        for row in rows
    ]
    pieces = [head, *elements]
    whole = b"".join(pieces) + b"</rows>\n"
    assert values_of(read(whole, "rows.xml")) == rows
    damage = data.draw(damages(whole, len(head)))
    items = read(damage.content, "rows.xml")
    expected = untouched(rows, pieces, damage)
    assert [row for row in values_of(items) if row in expected] == expected
    assert len(items) == len(re.findall(rb"<row(?=[\s/>]|$)", damage.content))


def written(rows, kind):
    table = pa.table({name: [row[index] for row in rows] for index, name in enumerate(COLUMNS)})
    sink = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, sink, row_group_size=2)
    elif kind == "stream":
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        pa.feather.write_feather(table, sink, compression="zstd" if kind == "feather" else "uncompressed")
    return sink.getvalue(), f"rows.{'arrow' if kind in ('stream', 'file') else kind}"


@FEW
@given(rows_of(TEXTS, min_size=1), st.sampled_from(["parquet", "stream", "file", "feather"]))
def test_tables_come_back_equal(rows, kind):
    content, name = written(rows, kind)
    assert values_of(read(content, name)) == rows


@FEW
@given(st.data(), rows_of(TEXTS, min_size=1), st.sampled_from(["parquet", "feather"]))
def test_a_cut_table_is_refused(data, rows, kind):
    content, name = written(rows, kind)
    assert read_or_refuse(content[: data.draw(st.integers(0, len(content) - 1))], name) is None


@EXAMPLES
@given(st.data(), rows_of(TEXTS, min_size=1), st.sampled_from(["parquet", "stream", "file", "feather"]))
def test_a_damaged_table_is_refused_or_holds_all_its_rows(data, rows, kind):
    content, name = written(rows, kind)
    place = data.draw(st.integers(0, len(content) - 1))
    byte = bytes([data.draw(st.integers(0, 255))])
    after = place + data.draw(st.sampled_from([0, 1]))
    items = read_or_refuse(content[:place] + byte + content[after:], name)
    assert items is None or len(items) == len(rows)


@FEW
@given(rows_of(TEXTS.filter(bool).map(lambda text: re.sub(r"[^\w ,;\"'\n]", "x", text)), min_size=1))
def test_a_workbook_comes_back_equal(rows):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [COLUMNS, *rows]:
        book.active.append([f"_{text}" for text in row])  # no text that Excel takes for a formula or for nothing
    sink = io.BytesIO()
    book.save(sink)
    items = read(sink.getvalue(), "rows.xlsx")
    assert [tuple(item.fields[f"_{name}"][1:] for name in COLUMNS) for item in items] == rows
