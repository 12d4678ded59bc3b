"""Stream a source's rows into DuckDB: validated, hashed, scrubbed, language-tagged, with the digests to decide on.

Two tables come out: `rows` (ordinal and the columns of the schema) and the narrow `facts` (see `facts.py`), on which
everything up to the writing is decided; with near-duplicate removal on, also `signatures`.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from fedllm_data.client_ids import canonical_id, is_missing
from fedllm_data.pipeline.facts import FACTS, TEXT_COLUMNS, facts_of_rows, num_chars_of
from fedllm_data.pipeline.language_detection import detect_languages, language_code, languages_agree
from fedllm_data.pipeline.rare_collections import rare_collections
from fedllm_data.pipeline.row_columns import table_of_rows
from fedllm_data.pipeline.salt import hash_client_id
from fedllm_data.schema import PUBLIC_CLIENT, SCHEMAS, UNDETERMINED, Task, row_problem
from fedllm_data.source import Rejected, Source, SourceRow

__all__ = ["LoadSettings", "Loaded", "kind_of_fault", "load_rows"]

_BATCH_ROWS = 2_000
_BATCH_BYTES = 4 * 1024 * 1024
_DETECT_CHARS = 400
_OTHER_TEXTS = ("row_id", "chosen_model", "rejected_model")


@dataclass(frozen=True, kw_only=True)
class LoadSettings:
    """What happens to a row on its way in."""

    seed: int = 0
    """Seeds the draws for the split."""
    salt: bytes | None = None
    """Replace client ids by keyed hashes."""
    is_scrubbed: bool = False
    """Replace e-mail addresses, phone numbers, IP addresses and keys by placeholders."""
    is_detected: bool = True
    """Ask the language detector."""
    near_duplicates: float | None = None
    """The threshold that the signatures are made for."""


@dataclass(frozen=True)
class Loaded:
    """What was met on the way."""

    reasons: Counter[str] = field(default_factory=Counter)
    """How often each reason to reject occurred, with numbers and quoted values left out."""
    first: dict[str, Rejected] = field(default_factory=dict)
    """The first row of each reason, with the reason as it was."""
    scrubbed: Counter[str] = field(default_factory=Counter)
    """How many pieces of text were replaced, by kind."""


def load_rows(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    items: Iterator[SourceRow | Rejected],
    settings: LoadSettings,
    rejected_path: Path,
    progress: Callable[[str, int], None],
) -> Loaded:
    """Fill the tables `rows`, `facts` and, for near-duplicates, `signatures`, and write the rejected rows.

    Args:
        connection: where the tables are made.
        source: whose rows they are.
        items: what `source.read` yields.
        settings: what happens to a row.
        rejected_path: the JSON-lines file to write: file, line, reason.
        progress: called with a step and the number of rows so far.

    Raises:
        ConfigError: if scrubbing was asked for and its library is missing.

    >>> with duckdb.connect() as connection:
    ...     source = Source(name="none", task="sft", summary="", client="", licence="", licence_url="", attribution="",
    ...         upstream="", revision="", citation="", read=lambda *_: iter(()), options={})
    ...     load_rows(connection, source, iter(()), LoadSettings(), Path("/dev/null"), print).reasons
    read 0
    Counter()
    """
    loaded = Loaded()
    rows_schema = pa.schema([pa.field("ordinal", pa.int64()), *SCHEMAS[source.task]])
    tables = _Tables(connection, {"rows": rows_schema, "facts": FACTS})
    batch: list[tuple[SourceRow, dict[str, Any]]] = []
    num_chars = ordinal = 0

    def flush() -> None:
        nonlocal ordinal, num_chars
        rows, facts = _prepare(batch, source, settings, loaded, ordinal)
        tables.add("rows", table_of_rows(rows, rows_schema))
        tables.add("facts", facts)
        if settings.near_duplicates is not None:
            from fedllm_data.pipeline.banding import signatures
            from fedllm_data.pipeline.shingles import parts_of

            table = signatures([parts_of(row, source.task) for row in rows], settings.near_duplicates)
            ordinals = pa.array([row["ordinal"] for row in rows], pa.int64())
            tables.add("signatures", table.add_column(0, "ordinal", ordinals))
        ordinal += len(batch)
        num_chars = 0
        batch.clear()
        progress("read", ordinal)

    names = tuple(SCHEMAS[source.task].names)
    with rejected_path.open("w", encoding="utf-8") as rejected, rare_collections():
        for item in items:
            row: dict[str, Any] = {}
            if isinstance(item, Rejected):
                reason: str | None = item.reason
            else:
                given = item.row.get
                row = {name: given(name) for name in names}
                row["language"] = language_code(row["language"])
                row["client_id"] = PUBLIC_CLIENT if item.is_public else canonical_id(row["client_id"])
                reason = row_problem(row, source.task) or _other_problem(row, item)
            if reason is not None:
                loaded.reasons[kind_of_fault(reason)] += 1
                loaded.first.setdefault(kind_of_fault(reason), Rejected(item.file, item.line, reason))
                place = {"file": item.file, "line": item.line, "reason": reason}
                rejected.write(json.dumps(place, ensure_ascii=True) + "\n")
            elif isinstance(item, SourceRow):
                batch.append((item, row))
                num_chars += num_chars_of(row, source.task)
                if len(batch) >= _BATCH_ROWS or num_chars >= _BATCH_BYTES:
                    flush()
        if batch or ordinal == 0:
            flush()
    return loaded


class _Tables:
    """Tables of one connection that grow batch by batch."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, schemas: Mapping[str, pa.Schema]) -> None:
        self.connection = connection
        self.made: set[str] = set()
        for name, schema in schemas.items():
            self.add(name, schema.empty_table())

    def add(self, name: str, batch: pa.Table) -> None:
        self.connection.register("next_batch", batch)
        verb = f"INSERT INTO {name}" if name in self.made else f"CREATE TABLE {name} AS"
        self.connection.execute(f"{verb} SELECT * FROM next_batch")
        self.connection.unregister("next_batch")
        self.made.add(name)


def _prepare(
    batch: list[tuple[SourceRow, dict[str, Any]]], source: Source, settings: LoadSettings, loaded: Loaded, start: int
) -> tuple[list[dict[str, Any]], pa.Table]:
    """Bring valid rows into the form they are published in, and state the facts about them."""
    rows = [row for _, row in batch]
    upstream_ids = [row["client_id"] for row in rows]
    for row in rows:
        if settings.salt is not None and row["client_id"] != PUBLIC_CLIENT:
            row["client_id"] = hash_client_id(row["client_id"], settings.salt)
        if settings.is_scrubbed:
            _scrub_row(row, source.task, loaded.scrubbed)
    detected: list[str | None] = [None] * len(rows)
    if settings.is_detected:
        detected = detect_languages([_text_to_detect(row, source.task) for row in rows])
    is_upstream = [row["language"] != UNDETERMINED for row in rows]
    is_disagreement = [
        is_said and code is not None and not languages_agree(row["language"], code)
        for row, is_said, code in zip(rows, is_upstream, detected, strict=True)
    ]
    for row, code in zip(rows, detected, strict=True):
        row["detected_language"] = code
        if code is not None and row["language"] == UNDETERMINED:
            row["language"] = code
    facts: dict[str, list[Any]] = {
        "ordinal": list(range(start, start + len(rows))),
        "is_public": [item.is_public for item, _ in batch],
        "is_toxic": [item.is_toxic for item, _ in batch],
        "is_upstream_language": is_upstream,
        "is_detected": [code is not None for code in detected],
        "is_disagreement": is_disagreement,
        **facts_of_rows(
            rows,
            source.task,
            source.name,
            settings.seed,
            upstream_ids=upstream_ids,
            groups=[None if item.group is None else _group_of(item) for item, _ in batch],
        ),
    }
    for row, row_id, ordinal in zip(rows, facts["row_id"], facts["ordinal"], strict=True):
        row["row_id"] = row_id
        row["ordinal"] = ordinal
    return rows, pa.table({field.name: pa.array(facts[field.name], field.type) for field in FACTS}, schema=FACTS)


def _scrub_row(row: dict[str, Any], task: Task, counts: Counter[str]) -> None:
    from fedllm_data.pipeline.scrub import scrub

    for column in TEXT_COLUMNS[task]:
        cleaned = []
        for message in row[column]:
            content, found = scrub(message["content"])
            counts.update(found)
            cleaned.append({"role": message["role"], "content": content})
        row[column] = cleaned


def _text_to_detect(row: Mapping[str, Any], task: Task) -> str:
    """The beginning of what the person asked last, and of the answer."""
    asked = row["messages"][-2] if task == "sft" else row["prompt"][-1]
    answered = row["messages"][-1] if task == "sft" else row["chosen"][-1]
    return f"{asked['content'][:_DETECT_CHARS]}\n{answered['content'][:_DETECT_CHARS]}"


def _group_of(item: SourceRow) -> Any:
    return None if is_missing(item.group) else canonical_id(item.group)


def _other_problem(row: dict[str, Any], item: SourceRow) -> str | None:
    if row["client_id"] == PUBLIC_CLIENT and not item.is_public:
        return f"client_id: {PUBLIC_CLIENT!r} is reserved for rows that belong to no client"
    group = None if item.group is None else _group_of(item)
    for column, value in (*((name, row.get(name)) for name in _OTHER_TEXTS), ("group", group)):
        if value is None or (type(value) is str and value.isascii()):
            continue
        if not isinstance(value, str):
            return f"{column}: must be text, got {type(value).__name__}"
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"{column}: is not valid Unicode at character {error.start}"
    return None


def kind_of_fault(reason: str) -> str:
    """Return a reason without the values of the row, so that equal faults count together.

    >>> kind_of_fault("line 7: role 'bot' is unknown; name it with --roles")
    'line N: role … is unknown'
    """
    # What follows a semicolon is the remedy, or lists what is there: it may differ where the fault is one.
    reason = re.sub(r"'[^']*'|\"[^\"]*\"", "…", reason[:200]).partition(";")[0]
    return re.sub(r"\d+", "N", reason)
