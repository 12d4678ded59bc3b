"""What `check` compares across rows: ids, digests of prompts, counts of clients, in a DuckDB file on disk.

Memory does not grow with the corpus, and no text is kept. `public` rows belong to no client and are counted for none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa

__all__ = ["COMPARED_COLUMNS", "SeenRows", "seen_rows"]

COMPARED_COLUMNS = (
    "num_train_rows",
    "num_test_rows",
    "num_unseen_rows",
    "num_rows",
    "split",
    "languages",
    "main_language",
)
"""Columns of the clients config that the rows are counted again for."""
_BATCH_ROWS = 5_000
_ROWS = pa.schema(
    [
        ("split", pa.string()),
        ("path", pa.string()),
        ("number", pa.int64()),
        ("client_id", pa.string()),
        ("row_id", pa.string()),
        ("language", pa.string()),
        ("prompt", pa.binary()),
    ]
)


class SeenRows:
    """A table that grows row by row, and the questions it answers."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make the empty table in a connection."""
        self._connection = connection
        self._waiting: list[dict[str, Any]] = []
        connection.register("no_rows", _ROWS.empty_table())
        connection.execute("CREATE TABLE seen_rows AS SELECT * FROM no_rows")
        connection.unregister("no_rows")

    def add(self, split: str, path: str, number: int, row: dict[str, Any], prompt: bytes) -> None:
        """Add one row of a split.

        Args:
            split: one of `SPLITS`.
            path: path of the file it is in.
            number: its position there.
            row: has client_id, row_id and language.
            prompt: digest of its whole prompt.
        """
        facts = {name: row[name] for name in ("client_id", "row_id", "language")}
        self._waiting.append({"split": split, "path": path, "number": number, "prompt": prompt, **facts})
        if len(self._waiting) >= _BATCH_ROWS:
            self._flush()

    def splits(self) -> set[str]:
        """Return the splits that have rows."""
        self._flush()
        return {split for (split,) in self._connection.execute("SELECT DISTINCT split FROM seen_rows").fetchall()}

    def repeated(self) -> Iterator[tuple[str, int, str]]:
        """Yield (path, position, row id) of every row whose id an earlier row of its split has."""
        self._flush()
        found = self._connection.cursor().execute("""
            SELECT path, number, row_id FROM (
                SELECT *, row_number() OVER (PARTITION BY split, row_id ORDER BY path, number) AS copy FROM seen_rows)
            WHERE copy > 1 ORDER BY path, number
        """)
        while row := found.fetchone():
            yield row[0], int(row[1]), row[2]

    def shared(self, column: str, one: str, other: str) -> tuple[int, Any, Any]:
        """Return how many values of a column two splits share, and an example of the first of them from each.

        Args:
            column: row_id, client_id or prompt; the example of a prompt is the id of a row that has it.
            one: a split.
            other: another.
        """
        self._flush()
        example = "row_id" if column == "prompt" else column
        found = self._connection.execute(f"""
            SELECT count(*), min(of_one), arg_min(of_other, of_one) FROM (
                SELECT min({example}) FILTER (split = '{one}') AS of_one,
                       min({example}) FILTER (split = '{other}') AS of_other
                FROM seen_rows WHERE split IN ('{one}', '{other}') GROUP BY {column} HAVING min(split) != max(split))
        """).fetchall()[0]
        return int(found[0]), found[1], found[2]

    def differing_clients(self, table: pa.Table) -> Iterator[tuple[str, dict[str, Any] | None, dict[str, Any] | None]]:
        """Yield (client id, what the rows say, what the table says) for the clients on which they differ, sorted.

        Args:
            table: a clients config with `COMPARED_COLUMNS`. A client without rows, or without a line in it, has None.
        """
        self._flush()
        cursor = self._connection.cursor()
        cursor.register("stated_clients", table.select(["client_id", *COMPARED_COLUMNS]))
        found = cursor.execute(f"""
            WITH by_language AS (
                SELECT client_id, language, count(*) AS num_rows FROM seen_rows WHERE split != 'public'
                GROUP BY client_id, language
            ),
            mix AS (
                SELECT client_id, first(language ORDER BY num_rows DESC, language) AS main_language,
                       list({{'language': language, 'num_rows': num_rows}} ORDER BY num_rows DESC, language)
                       AS languages
                FROM by_language GROUP BY client_id
            ),
            counted AS (
                SELECT client_id, count(*) FILTER (split = 'train') AS num_train_rows,
                       count(*) FILTER (split = 'test') AS num_test_rows,
                       count(*) FILTER (split = 'unseen') AS num_unseen_rows, count(*) AS num_rows,
                       if(bool_and(split = 'unseen'), 'unseen', 'train') AS split
                FROM seen_rows WHERE split != 'public' GROUP BY client_id
            ),
            expected AS (SELECT * FROM counted JOIN mix USING (client_id)),
            stated AS (
                SELECT * REPLACE (languages::STRUCT(language VARCHAR, num_rows BIGINT)[] AS languages)
                FROM stated_clients
            )
            SELECT coalesce(stated.client_id, expected.client_id), expected.client_id, stated.client_id,
                   {", ".join(f"expected.{name}, stated.{name}" for name in COMPARED_COLUMNS)}
            FROM expected FULL JOIN stated ON expected.client_id = stated.client_id
            WHERE stated.client_id IS NULL OR expected.client_id IS NULL
                  OR {" OR ".join(f"expected.{name} IS DISTINCT FROM stated.{name}" for name in COMPARED_COLUMNS)}
            ORDER BY 1
        """)
        while row := found.fetchone():
            client_id, has_rows, is_stated, *values = row
            expected = dict(zip(COMPARED_COLUMNS, values[::2], strict=True)) if has_rows is not None else None
            stated = dict(zip(COMPARED_COLUMNS, values[1::2], strict=True)) if is_stated is not None else None
            yield client_id, expected, stated

    def _flush(self) -> None:
        if self._waiting:
            self._connection.register("next_rows", pa.Table.from_pylist(self._waiting, schema=_ROWS))
            self._connection.execute("INSERT INTO seen_rows SELECT * FROM next_rows")
            self._connection.unregister("next_rows")
            self._waiting.clear()


@contextmanager
def seen_rows(memory_limit: str = "256MB") -> Iterator[SeenRows]:
    """Yield an empty table in a temporary folder, which goes when the block ends.

    Args:
        memory_limit: what DuckDB may hold before it spills into the folder.

    >>> row = {"client_id": "ann", "row_id": "1", "language": "en"}
    >>> with seen_rows() as seen:
    ...     for split in ("train", "test"):
    ...         seen.add(split, "memory", 0, row, prompt=b"x")
    ...     seen.shared("prompt", "train", "test")
    (1, '1', '1')
    """
    with TemporaryDirectory(prefix="fedllm-check-") as folder:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "threads": 1,
            "temp_directory": str(Path(folder, "spill")),
        }
        with duckdb.connect(str(Path(folder, "seen.duckdb")), config=config) as connection:
            yield SeenRows(connection)
