"""Which messages of PRISM upstream's moderation flagged: `metadata.jsonl` joined with `utterances.jsonl` on disk.

`metadata.jsonl` has a line for every text (`column_id`: user_prompt, model_response, and survey texts, which no row
holds), with OpenAI's verdict in `moderation_flag`. A prompt is known by its `interaction_id`, an answer by its
`utterance_id`; `utterances.jsonl` says which turn of which conversation that is. DuckDB joins the two on disk.
"""

from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedllm_data.errors import SourceError
from fedllm_data.source import Rejected
from fedllm_data.upstream.odd_fields import id_of, quoted
from fedllm_data.upstream.records import data_files
from fedllm_data.upstream.upstream_files import HubFiles, read_upstream

if TYPE_CHECKING:
    import duckdb

__all__ = ["PROMPT", "MessageFlags", "open_flags"]

PROMPT = ""
"""Stands for the prompt of a turn where an answer's `within_turn_id` would stand."""
_FILES = ("metadata.jsonl", "utterances.jsonl")
_BATCH_ROWS = 5_000
_TABLES = {
    "flagged": pa.schema([("column_id", pa.string()), ("id", pa.string())]),
    "places": pa.schema(
        [
            ("utterance_id", pa.string()),
            ("interaction_id", pa.string()),
            ("conversation_id", pa.string()),
            ("turn", pa.int64()),
            ("within_turn_id", pa.string()),
        ]
    ),
}
_ID_OF = {"user_prompt": "interaction_id", "model_response": "utterance_id"}


class MessageFlags:
    """The flagged messages of every conversation; none where moderation is off."""

    def __init__(
        self,
        connection: "duckdb.DuckDBPyConnection | None",
        files: HubFiles,
        path: Path | None,
        options: dict[str, str],
    ) -> None:
        """Use `open_flags`."""
        self._connection = connection
        self._files = files
        self._path = path
        self._options = options

    def load(self) -> Iterator[Rejected]:
        """Read both files and yield the records that cannot be used; exhaust it before the first question."""
        if self._connection is None:
            return
        batches: dict[str, list[dict[str, Any]]] = {name: [] for name in _TABLES}
        for name, schema in _TABLES.items():
            self._add(f"CREATE TABLE {name} AS", schema.empty_table())
        for item in read_upstream(self._files, self._path, self._options):
            if isinstance(item, Rejected):
                yield item
                continue
            found = _table_and_row(item.fields)
            if isinstance(found, str):
                yield Rejected(item.file, item.line, found)
            elif found is not None:
                name, row = found
                batches[name].append(row)
                if len(batches[name]) >= _BATCH_ROWS:
                    self._flush(name, batches[name])
        for name, batch in batches.items():
            self._flush(name, batch)
        self._connection.execute("""
            CREATE TABLE flags AS
            SELECT conversation_id, turn, '' AS within_turn_id
            FROM places JOIN flagged ON flagged.column_id = 'user_prompt' AND flagged.id = interaction_id
            UNION
            SELECT conversation_id, turn, within_turn_id
            FROM places JOIN flagged ON flagged.column_id = 'model_response' AND flagged.id = utterance_id
        """)
        self._connection.execute("CREATE INDEX of_conversation ON flags (conversation_id)")

    def of(self, conversation_id: str) -> Set[tuple[int, str]]:
        """Return (turn, `within_turn_id` or PROMPT) of the flagged messages of a conversation."""
        if self._connection is None:
            return frozenset()
        query = "SELECT turn, within_turn_id FROM flags WHERE conversation_id = ?"
        return frozenset(self._connection.execute(query, [conversation_id]).fetchall())

    def _flush(self, name: str, batch: list[dict[str, Any]]) -> None:
        self._add(f"INSERT INTO {name}", pa.Table.from_pylist(batch, schema=_TABLES[name]))
        batch.clear()

    def _add(self, verb: str, table: pa.Table) -> None:
        assert self._connection is not None
        self._connection.register("next_batch", table)
        self._connection.execute(f"{verb} SELECT * FROM next_batch")
        self._connection.unregister("next_batch")


@contextmanager
def open_flags(
    hub_id: str, revision: str, path: Path | None, options: dict[str, str], is_moderated: bool
) -> Iterator[MessageFlags]:
    """Give the flags of a corpus, kept in a temporary DuckDB file.

    Args:
        hub_id: the dataset on the Hub.
        revision: its commit.
        path: a local copy, or None for the Hub.
        options: options of the source that concern the Hub.
        is_moderated: whether there are flags at all.

    Raises:
        SourceError: if the files with the flags are not beside the conversations.

    >>> with open_flags("org/prism", "main", None, {}, is_moderated=False) as flags:
    ...     list(flags.load()), flags.of("c1")
    ([], frozenset())
    """
    files = HubFiles(
        hub_id=hub_id, revision=revision, files=tuple(f"{name}{end}" for name in _FILES for end in ("", ".gz"))
    )
    if not is_moderated:
        yield MessageFlags(None, files, path, options)
        return
    if path is not None:
        present = [file.name for file in data_files(path)] if path.is_dir() else []
        for name in _FILES:
            if not any(fnmatch(file, f"{name}*") for file in present):
                raise SourceError(
                    f"{path} has no {name} with upstream's moderation flags; name a folder that holds it beside "
                    "conversations.jsonl, or go without the flags: --set moderation=off"
                )
    import duckdb

    with (
        TemporaryDirectory(prefix="prism-") as place,
        duckdb.connect(str(Path(place, "flags.duckdb"))) as connection,
    ):
        connection.execute("SET memory_limit = '256MB'")
        connection.execute("SET threads = 1")
        yield MessageFlags(connection, files, path, options)


def _table_and_row(fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | str | None:
    """Where a line goes; None if it says nothing of a message, or why it cannot be used."""
    if "column_id" in fields:
        column = fields["column_id"]
        if not isinstance(column, str) or column not in _ID_OF:
            return None
        ident, verdict = id_of(fields.get(_ID_OF[column])), fields.get("moderation_flag")
        if ident is None:
            return f"{_ID_OF[column]}: is missing or no id"
        if not isinstance(verdict, dict) or not isinstance(verdict.get("flagged"), bool):
            return "moderation_flag: says neither true nor false; the text counts as not flagged"
        return ("flagged", {"column_id": column, "id": ident}) if verdict["flagged"] else None
    row: dict[str, Any] = {name: id_of(fields.get(name)) for name in _TABLES["places"].names if name != "turn"}
    for name, value in row.items():
        if value is None:
            return f"{name}: is missing or no id"
    turn = fields.get("turn")
    if not isinstance(turn, int) or isinstance(turn, bool) or abs(turn) >= 1 << 63:
        return f"turn: must be a whole number, got {quoted(turn)}"
    return "places", {**row, "turn": turn}
