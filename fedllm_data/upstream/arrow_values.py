"""Python values of Arrow columns, those of the type `arrow.json` included, as which `datasets` stores mixed values."""

import json
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
    rows: list[dict[str, Any]] = batch.to_pylist(maps_as_pydicts="lossy")
    for field in batch.schema:
        if _holds_json(field.type):
            for row in rows:
                row[field.name] = _decoded(row[field.name], field.type)
    return rows


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
