"""Stream a source's rows into DuckDB: validated, with the hashes that de-duplication and the split rule need.

Two tables come out: `rows` (ordinal and the columns of the schema) and the narrow `facts` (ordinal, client_id, row_id,
is_public, is_tie, content, opening, the three draws, num_bytes), on which everything up to the writing is decided.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from fedllm_data.schema import PUBLIC_CLIENT, SCHEMAS, UNDETERMINED, Task, make_row_id, row_problem
from fedllm_data.source import Rejected, Source, SourceRow
from fedllm_data.split import draw

__all__ = ["load_rows", "opening_of"]

_BATCH_ROWS = 4_000
_BATCH_BYTES = 8 * 1024 * 1024
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_FACTS = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("client_id", pa.string()),
        ("row_id", pa.string()),
        ("is_public", pa.bool_()),
        ("is_tie", pa.bool_()),
        ("content", pa.binary()),
        ("opening", pa.binary()),
        ("client_draw", pa.float64()),
        ("opening_draw", pa.float64()),
        ("content_draw", pa.float64()),
        ("num_bytes", pa.int64()),
    ]
)


def load_rows(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    items: Iterator[SourceRow | Rejected],
    seed: int,
    rejected_path: Path,
    progress: Callable[[str, int], None],
) -> Counter[str]:
    """Fill the tables `rows` and `facts`, and write the rejected rows.

    Args:
        connection: where the tables are made.
        source: whose rows they are.
        items: what `source.read` yields.
        seed: of the draws for the split.
        rejected_path: the JSON-lines file to write: file, line, reason.
        progress: called with a step and the number of rows so far.

    Returns:
        How often each reason occurred, with numbers and quoted values left out.

    >>> with duckdb.connect() as connection:
    ...     source = Source(name="none", task="sft", summary="", client="", licence="", licence_url="", attribution="",
    ...         upstream="", revision="", citation="", read=lambda *_: iter(()), options={})
    ...     load_rows(connection, source, iter(()), 0, Path("/dev/null"), lambda step, count: None)
    Counter()
    """
    schema = SCHEMAS[source.task]
    rows_schema = pa.schema([pa.field("ordinal", pa.int64()), *schema])
    for table, columns in (("rows", rows_schema), ("facts", _FACTS)):
        connection.register("empty_batch", columns.empty_table())
        connection.execute(f"CREATE TABLE {table} AS SELECT * FROM empty_batch")
        connection.unregister("empty_batch")
    reasons: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    facts: list[dict[str, Any]] = []
    num_bytes = ordinal = 0

    def flush() -> None:
        nonlocal num_bytes
        for table, batch, columns in (("rows", rows, rows_schema), ("facts", facts, _FACTS)):
            connection.register("next_batch", pa.Table.from_pylist(batch, schema=columns))
            connection.execute(f"INSERT INTO {table} SELECT * FROM next_batch")
            connection.unregister("next_batch")
            batch.clear()
        num_bytes = 0

    with rejected_path.open("w", encoding="utf-8") as rejected:
        for item in items:
            reason = item.reason if isinstance(item, Rejected) else None
            row: dict[str, Any] = {}
            if isinstance(item, SourceRow):
                row = {"language": UNDETERMINED, **item.row}
                if item.is_public:
                    row["client_id"] = PUBLIC_CLIENT
                reason = row_problem(row, source.task) or _other_problem(row, item.is_public)
            if reason is not None:
                reasons[_kind(reason)] += 1
                place = {"file": item.file, "line": item.line, "reason": reason}
                rejected.write(json.dumps(place, ensure_ascii=True) + "\n")
                continue
            fact = _fact(row, source, seed, is_public=isinstance(item, SourceRow) and item.is_public)
            rows.append(
                {"ordinal": ordinal, **{name: row.get(name) for name in schema.names}, "row_id": fact["row_id"]}
            )
            facts.append({"ordinal": ordinal, **fact})
            ordinal += 1
            num_bytes += fact["num_bytes"]
            if len(rows) >= _BATCH_ROWS or num_bytes >= _BATCH_BYTES:
                flush()
                progress("read", ordinal)
        if rows:
            flush()
    progress("read", ordinal)
    return reasons


def opening_of(row: Mapping[str, Any], task: Task) -> str:
    """Return the words a conversation opens with: up to the first user message, case and spacing levelled.

    >>> opening_of({"messages": [{"role": "user", "content": "Hello  World"}]}, "sft")
    'user:hello world'
    """
    messages = row["messages"] if task == "sft" else row["prompt"]
    stop = next(index for index, message in enumerate(messages) if message["role"] == "user") + 1
    return "\0".join(
        f"{message['role']}:{' '.join(message['content'].split()).casefold()}" for message in messages[:stop]
    )


def _fact(row: dict[str, Any], source: Source, seed: int, *, is_public: bool) -> dict[str, Any]:
    texts = [
        f"{column}:{message['role']}:{message['content']}"
        for column in ("messages", "prompt", "chosen", "rejected")
        for message in row.get(column) or ()
    ]
    text = "\0".join(texts).encode()
    content = blake2b(text, digest_size=16).digest()
    opening = blake2b(opening_of(row, source.task).encode(), digest_size=16).digest()
    client_id = row["client_id"]
    return {
        "client_id": client_id,
        "row_id": row.get("row_id") or make_row_id(source.name, client_id, content.hex()),
        "is_public": is_public,
        "is_tie": source.task == "preference" and row["chosen"] == row["rejected"],
        "content": content,
        "opening": opening,
        "client_draw": draw(seed, "client", client_id),
        "opening_draw": draw(seed, "opening", opening),
        "content_draw": draw(seed, "content", content),
        "num_bytes": len(text),
    }


def _other_problem(row: dict[str, Any], is_public: bool) -> str | None:
    if row["client_id"] == PUBLIC_CLIENT and not is_public:
        return f"client_id: {PUBLIC_CLIENT!r} is reserved for rows that belong to no client"
    language = row["language"]
    if not isinstance(language, str) or not _LANGUAGE.fullmatch(language):
        return f"language: must be an ISO 639 code or {UNDETERMINED}, got {str(language)[:40]!r}"
    for column in ("row_id", "chosen_model", "rejected_model"):
        if not isinstance(row.get(column), str | None):
            return f"{column}: must be text, got {type(row[column]).__name__}"
        try:
            (row.get(column) or "").encode()
        except UnicodeEncodeError as error:
            return f"{column}: is not valid Unicode at character {error.start}"
    return None


def _kind(reason: str) -> str:
    """A reason without the values of the row, so that equal faults count together."""
    reason = re.sub(r"'[^']*'|\"[^\"]*\"", "…", reason[:200])
    return re.sub(r"\d+", "N", reason)
