"""Parquet and Arrow: values become what JSON has, and a value that cannot be read costs its row."""

import datetime
import io
import uuid
from decimal import Decimal

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from fedllm_data.errors import SourceError
from fedllm_data.source import Rejected
from tests.data.upstream.readers.damage import read

KEY = uuid.UUID("12345678-1234-5678-1234-567812345678")
TABLE = pa.table(
    {
        "day": pa.array([datetime.date(2024, 1, 31)]),
        "time": pa.array([datetime.datetime(2024, 1, 31, 12, 30)], pa.timestamp("ms")),
        "nanos": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
        "zone": pa.array([datetime.datetime(2024, 1, 31, tzinfo=datetime.UTC)]),
        "whole": pa.array([Decimal("7.00")]),
        "part": pa.array([Decimal("7.50")]),
        "text": pa.array([b"ann"], pa.binary()),
        "bytes": pa.array([KEY.bytes], pa.binary(16)),
        "inner": pa.array([{"user": "ann", "on": datetime.date(2024, 1, 31)}]),
        "map": pa.array([[("user", "ann")]], pa.map_(pa.string(), pa.string())),
        "word": pa.array(["ann"]).dictionary_encode(),
        "n": pa.array([7]),
    }
)
PLAIN = {
    "day": "2024-01-31",
    "time": "2024-01-31T12:30:00",
    "nanos": "2023-11-14T22:13:20.123456789",  # 1,700,000,000 s after 1970
    "zone": "2024-01-31T00:00:00+00:00",
    "whole": "7",
    "part": "7.5",
    "text": "ann",
    "bytes": KEY.hex,
    "inner": {"user": "ann", "on": "2024-01-31"},
    "map": {"user": "ann"},
    "word": "ann",
    "n": 7,
}


def written(table, kind):
    sink = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, sink)
    elif kind == "stream":
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    else:
        pa.feather.write_feather(table, sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("kind", "name"), [("parquet", "x.parquet"), ("stream", "x.arrow"), ("file", "x.arrow"), ("file", "x.feather")]
)
def test_values_are_as_json_has_them(kind, name):
    assert [item.fields for item in read(written(TABLE, kind), name)] == [PLAIN]


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_a_column_named_twice_is_refused(kind):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(SourceError, match="names the column 'a' twice"):
        read(written(table, kind), f"x.{kind}")
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["", ""])
    assert read(written(table, kind), f"x.{kind}")[0].fields == {"unnamed 1": 1, "unnamed 2": 2}


def test_text_that_is_no_utf_8_costs_its_row():
    bad = pa.array([b"x", b"\xe9", b"y"], pa.binary()).view(pa.string())
    items = read(written(pa.table({"a": bad, "n": [1, 2, 3]}), "parquet"), "x.parquet")
    assert [item.line for item in items] == [1, 2, 3]
    assert [isinstance(item, Rejected) for item in items] == [False, True, False]
    assert items[2].fields == {"a": "y", "n": 3}


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.feather"])
def test_what_is_no_table_is_refused(name):
    for content in (b"", b"no table at all", b"PAR1" + bytes(40), b"ARROW1" + bytes(40)):
        with pytest.raises(SourceError, match="not a readable"):
            read(content, name)
