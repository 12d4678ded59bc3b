"""Valid rows as an Arrow table, column by column: a message list becomes two long columns of text and its offsets.

Arrow's own conversion of rows walks every message as a Python mapping; flat lists of texts cost a third of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["table_of_rows"]


def table_of_rows(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table, the same as `pa.Table.from_pylist(rows, schema=schema)`.

    Args:
        rows: valid rows; a column that may not be null is there in every one.
        schema: columns of `schema.SCHEMAS`, which may have others beside them. Lists hold messages.

    >>> from fedllm_data.schema import SCHEMAS
    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    >>> rows = [{"client_id": "ann", "row_id": "1", "language": "en", "messages": turns}]
    >>> table_of_rows(rows, SCHEMAS["sft"]) == pa.Table.from_pylist(rows, schema=SCHEMAS["sft"])
    True
    """
    columns = []
    for field in schema:
        values = [row.get(field.name) for row in rows]
        make = _message_lists if pa.types.is_list(field.type) else pa.array
        columns.append(make(values, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _message_lists(lists: list[Any], kind: pa.DataType) -> pa.Array:
    offsets = np.zeros(len(lists) + 1, dtype=np.int32)
    np.cumsum([len(messages) for messages in lists], out=offsets[1:])
    fields = [kind.value_type.field(index) for index in range(kind.value_type.num_fields)]
    texts = [
        pa.array([message[field.name] for messages in lists for message in messages], field.type) for field in fields
    ]
    messages = pa.StructArray.from_arrays(texts, fields=fields)
    return pa.ListArray.from_arrays(pa.array(offsets), messages, type=kind)
