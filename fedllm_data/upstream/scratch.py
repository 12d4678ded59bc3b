"""Hold upstream records in a temporary DuckDB file while a source sorts, joins or groups them.

A source whose rows are made of several records (a thread, a tree, the marks of one rater) fills a table with them,
in any order, and reads it back sorted: memory stays flat, and the file goes when the source is done.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedllm_data.source import Rejected

if TYPE_CHECKING:
    import duckdb

__all__ = ["fill_table", "open_scratch", "stream_rows", "text_problem"]

_BATCH_ROWS = 2_000
_BATCH_CHARS = 8_000_000


@contextmanager
def open_scratch() -> "Iterator[duckdb.DuckDBPyConnection]":
    """Open an empty DuckDB file, deleted afterwards, that spills to disk beyond 256 MB.

    >>> with open_scratch() as connection:
    ...     connection.sql("SELECT 1 AS one").fetchall()
    [(1,)]
    """
    import duckdb

    with (
        TemporaryDirectory(prefix="fedllm-") as place,
        duckdb.connect(str(Path(place, "records.duckdb"))) as connection,
    ):
        connection.execute("SET memory_limit = '256MB'")
        connection.execute("SET threads = 2")
        yield connection


def fill_table(
    connection: "duckdb.DuckDBPyConnection", table: str, schema: pa.Schema, items: Iterable[dict[str, Any] | Rejected]
) -> Iterator[Rejected]:
    """Make a table of the dicts among `items`, in batches, and yield the rejected ones; exhaust it to fill the table.

    Args:
        connection: where the table is made.
        table: its name.
        schema: its columns.
        items: rows as dicts, and records that are none.

    >>> with open_scratch() as connection:
    ...     schema = pa.schema([("number", pa.int64())])
    ...     list(fill_table(connection, "numbers", schema, [{"number": 2}, Rejected("f", 1, "odd"), {"number": 1}]))
    ...     list(stream_rows(connection, "SELECT * FROM numbers ORDER BY number"))
    [Rejected(file='f', line=1, reason='odd')]
    [{'number': 1}, {'number': 2}]
    """
    connection.register("empty_batch", schema.empty_table())
    connection.execute(f"CREATE TABLE {table} AS SELECT * FROM empty_batch")
    connection.unregister("empty_batch")
    batch: list[dict[str, Any]] = []
    num_chars = 0

    def flush() -> None:
        nonlocal num_chars
        connection.register("next_batch", pa.Table.from_pylist(batch, schema=schema))
        connection.execute(f"INSERT INTO {table} SELECT * FROM next_batch")
        connection.unregister("next_batch")
        batch.clear()
        num_chars = 0

    for item in items:
        if isinstance(item, Rejected):
            yield item
            continue
        batch.append(item)
        num_chars += sum(len(value) for value in item.values() if isinstance(value, str))
        if len(batch) >= _BATCH_ROWS or num_chars >= _BATCH_CHARS:
            flush()
    flush()


def stream_rows(connection: "duckdb.DuckDBPyConnection", query: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a query as dicts, a batch at a time; run no other query until it is exhausted.

    >>> with open_scratch() as connection:
    ...     list(stream_rows(connection, "SELECT 1 AS one"))
    [{'one': 1}]
    """
    for batch in connection.sql(query).to_arrow_reader(2048):
        yield from batch.to_pylist()


def text_problem(name: str, value: object) -> str | None:
    """Return why a value cannot be stored as text, or None if it can.

    >>> text_problem("Body", 3), text_problem("Body", "a" + chr(0)), text_problem("Body", "fine")
    ('Body: must be text, got int', 'Body: contains a NUL character', None)
    """
    if not isinstance(value, str):
        return f"{name}: must be text, got {type(value).__name__}"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"{name}: is not valid Unicode at character {error.start}"
    return f"{name}: contains a NUL character" if "\0" in value else None
