"""Python values of Arrow columns, those of the type `arrow.json` included, as which `datasets` stores mixed values."""

import json
from itertools import pairwise
from typing import Any

import pyarrow as pa

__all__ = ["rows_of_batch"]


def rows_of_batch(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows of a batch, maps as objects; JSON, which Arrow gives as text, becomes the value that it holds.

    Raises:
        ValueError: if a value of the type JSON is none.

    >>> column = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"x": null}', '"Hi"', None]))
    >>> rows_of_batch(pa.RecordBatch.from_arrays([column], ["a"]))
    [{'a': {'x': None}}, {'a': 'Hi'}, {'a': None}]
    """
    names = batch.schema.names
    if len(set(names)) < len(names) or not names:
        return _with_json(batch, batch.to_pylist(maps_as_pydicts="lossy"))
    columns = [_values(column) for column in batch.columns]
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return _with_json(batch, rows)


def _with_json(batch: pa.RecordBatch, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for field in batch.schema:
        if _holds_json(field.type):
            for row in rows:
                row[field.name] = _decoded(row[field.name], field.type)
    return rows


def _values(array: pa.Array) -> list[Any]:
    """The values of an array: those of nested ones column by column, Arrow's own way costs twice the time."""
    kind = array.type
    if pa.types.is_list(kind) and not array.null_count:
        items = _values(array.flatten())
        stops = array.value_lengths().to_numpy(zero_copy_only=False).cumsum().tolist()
        return [items[start:stop] for start, stop in pairwise([0, *stops])]
    if pa.types.is_struct(kind) and not array.null_count and kind.num_fields:
        names = [field.name for field in kind]
        if len(set(names)) == len(names):
            fields = [_values(field) for field in array.flatten()]
            return [dict(zip(names, values, strict=True)) for values in zip(*fields, strict=True)]
    values: list[Any] = array.to_pylist(maps_as_pydicts="lossy")
    return values


def _holds_json(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.JsonType):
        return True
    if pa.types.is_struct(kind):
        return any(_holds_json(field.type) for field in kind)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and _holds_json(kind.value_type)


def _decoded(value: Any, kind: pa.DataType) -> Any:
    if value is None or not _holds_json(kind):
        return value
    if isinstance(kind, pa.JsonType):
        return json.loads(value)
    if pa.types.is_struct(kind):
        return {field.name: _decoded(value[field.name], field.type) for field in kind}
    return [_decoded(item, kind.value_type) for item in value]
