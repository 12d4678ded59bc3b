"""Workbooks: cells below a header line."""

import datetime
import io
import sys

import pytest

from fedllm_data.errors import ConfigError, SourceError
from fedllm_data.source import Rejected
from fedllm_data.upstream.raw import ReadSettings
from tests.data.upstream.readers.damage import read

openpyxl = pytest.importorskip("openpyxl")


def workbook(**sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


ROWS = [
    ["who", "on", "n"],
    [7, datetime.datetime(2024, 1, 31), 1.5],
    [],
    ["bob", datetime.datetime(2024, 1, 31, 9), None],
]


def test_cells_below_the_header_are_rows_and_empty_lines_are_none():
    items = read(workbook(one=ROWS, two=[]), "rows.xlsx")
    assert [(item.line, item.fields) for item in items] == [
        (2, {"who": 7, "on": "2024-01-31", "n": 1.5}),
        (4, {"who": "bob", "on": "2024-01-31T09:00:00", "n": None}),
    ]


def test_a_cell_without_a_column_is_listed():
    items = read(workbook(one=[["a", "b"], [1, 2, 3], [4, 5]]), "rows.xlsx")
    assert isinstance(items[0], Rejected)
    assert items[1].fields == {"a": 4, "b": 5}


def test_of_several_sheets_one_must_be_named():
    content = workbook(one=ROWS, two=[["a"], [1]])
    with pytest.raises(SourceError, match="holds the sheets 'one', 'two'; name one with --sheet"):
        read(content, "rows.xlsx")
    assert [item.fields for item in read(content, "rows.xlsx", settings=ReadSettings(sheet="two"))] == [{"a": 1}]
    with pytest.raises(SourceError, match="has no sheet 'three'; it has 'one', 'two'"):
        read(content, "rows.xlsx", settings=ReadSettings(sheet="three"))


def test_what_is_no_workbook_is_refused():
    content = workbook(one=ROWS)
    place = content.index(b"worksheets/sheet1.xml") + 60
    flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    for damaged in (b"", b"PK", content[:-40], flipped):
        with pytest.raises(SourceError, match=r"not a readable \.xlsx"):
            read(damaged, "rows.xlsx")
    for rows in ([], [["a", "a"], [1, 2]]):
        with pytest.raises(SourceError, match="header"):
            read(workbook(one=rows), "rows.xlsx")


def test_without_its_library_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedllm-commons\[xlsx\]'"):
        read(b"PK", "rows.xlsx")
