"""Rows that say almost the same: found by shared bands (`banding.py`), compared exactly (`shingles.py`), removed.

Two rows are near-duplicates when the Jaccard similarity of every part's shingles reaches the threshold. So "Yes."
under different questions stays, and so do two answers to one question, two questions after one history, and "Thanks!"
after two different histories.

Rows that share a band are candidates, and only an exact comparison removes one. Rows are taken in the order of
`order_key` (clients' rows before public ones); a row goes if it is near an earlier row that stayed. A bucket remembers
its first 32 rows that stayed, so that a template used by thousands costs no square of them.
"""

import duckdb
import numpy as np
import pyarrow as pa

from fedllm_data.pipeline.shingles import PARTS_IN_SQL, jaccard, shingles
from fedllm_data.schema import Task

__all__ = ["RowShingles", "remove_near_duplicates"]

_MAX_LEADERS = 32
_BATCH_ROWS = 2_000


def remove_near_duplicates(
    connection: duckdb.DuckDBPyConnection, threshold: float, task: Task, *, across_clients: bool
) -> dict[str, int]:
    """Remove from `distinct_rows` every row near an earlier one that stays; return how many, in clients and across.

    Args:
        connection: holds `distinct_rows` (ordinal, client_id, order_key, is_public, ...), `signatures` (ordinal,
            bands, made with the same threshold) and `rows` (ordinal and the columns of the task's schema).
        threshold: Jaccard similarity in (0, 1] that every part must reach.
        task: the format of the rows.
        across_clients: compare rows of different clients too. A row near rows of its own client and of others counts
            as in its client.

    >>> from fedllm_data.pipeline.banding import signatures
    >>> turns = lambda text: [{"role": "user", "content": text}, {"role": "assistant", "content": "I see."}]
    >>> texts = ["The rain in Spain stays", "The rain in Spain stays!", "Snow in Norway"]
    >>> with duckdb.connect() as connection:
    ...     rows = pa.table({"ordinal": range(3), "messages": [turns(text) for text in texts]})
    ...     signed = signatures([(text, "I see.") for text in texts], 0.8).append_column("ordinal", rows["ordinal"])
    ...     _ = connection.execute("CREATE TABLE rows AS FROM rows; CREATE TABLE signatures AS FROM signed")
    ...     _ = connection.execute("CREATE TABLE distinct_rows AS SELECT ordinal, 'ann' AS client_id, "
    ...                            "ordinal::VARCHAR AS order_key, FALSE AS is_public FROM rows")
    ...     remove_near_duplicates(connection, 0.8, "sft", across_clients=True)
    {'num_near_duplicates_in_client': 1, 'num_near_duplicates_across_clients': 0}
    """
    bucket = "band" if across_clients else "hash(band, client_id)"
    connection.execute(f"""
        CREATE TABLE in_order AS SELECT ordinal, client_id,
        row_number() OVER (ORDER BY is_public, order_key, ordinal) AS position FROM distinct_rows;
        CREATE TABLE banded AS SELECT position, {bucket} AS bucket
        FROM (SELECT ordinal, unnest(bands) AS band FROM signatures) JOIN in_order USING (ordinal);
        CREATE TABLE crowded AS SELECT bucket, count(*) AS num_members FROM banded GROUP BY bucket HAVING count(*) > 1;
        CREATE TABLE members AS SELECT position, bucket, num_members FROM banded JOIN crowded USING (bucket)
        ORDER BY position, bucket;
        CREATE TABLE near (ordinal BIGINT);
    """)
    counts = {"num_near_duplicates_in_client": 0, "num_near_duplicates_across_clients": 0}
    leaders: dict[int, list[tuple[int, str]]] = {}
    left: dict[int, int] = {}
    last = connection.execute("SELECT coalesce(max(position), 0) FROM members").fetchall()[0][0]
    for start in range(0, last, _BATCH_ROWS):
        batch = _batch(connection, start)
        wanted = {ordinal for _, buckets in batch.items() for ordinal, _ in _candidates(leaders, buckets)} | {
            ordinal for ordinal, _ in batch
        }
        known = RowShingles(connection, task, wanted)
        removed = []
        for (ordinal, client_id), buckets in batch.items():
            near = _near_row(known, ordinal, client_id, _candidates(leaders, buckets), threshold)
            if near is not None:
                is_own = near == client_id
                counts[f"num_near_duplicates_{'in_client' if is_own else 'across_clients'}"] += 1
                removed.append(ordinal)
            for bucket_id, num_members in buckets:
                left[bucket_id] = left.get(bucket_id, num_members) - 1
                if left[bucket_id] == 0:
                    del left[bucket_id]
                    leaders.pop(bucket_id, None)
                elif near is None and len(leaders.setdefault(bucket_id, [])) < _MAX_LEADERS:
                    leaders[bucket_id].append((ordinal, client_id))
        _insert(connection, "near", removed)
    connection.execute("DELETE FROM distinct_rows WHERE ordinal IN (SELECT ordinal FROM near)")
    for table in ("in_order", "banded", "crowded", "members", "near"):
        connection.execute(f"DROP TABLE {table}")
    return counts


class RowShingles:
    """Shingles of the parts of some rows, made when asked for: ordinal to a set for each part."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, task: Task, ordinals: set[int]) -> None:
        """Read the texts of these rows from the table `rows`."""
        connection.register("wanted_rows", pa.table({"ordinal": pa.array(sorted(ordinals), pa.int64())}))
        connection.execute("""
            CREATE OR REPLACE TEMP MACRO texts(messages) AS
            array_to_string(list_transform(messages, lambda message: message.content), chr(10))
        """)
        query = f"SELECT ordinal, {PARTS_IN_SQL[task]} FROM rows JOIN wanted_rows USING (ordinal)"
        self.texts = {ordinal: parts for ordinal, *parts in connection.execute(query).fetchall()}
        connection.unregister("wanted_rows")
        self.made: dict[int, list[np.ndarray]] = {}

    def __getitem__(self, ordinal: int) -> list[np.ndarray]:
        """Return the shingles of each part of a row."""
        if ordinal not in self.made:
            self.made[ordinal] = [shingles(text) for text in self.texts[ordinal]]
        return self.made[ordinal]


def _batch(connection: duckdb.DuckDBPyConnection, start: int) -> dict[tuple[int, str], list[tuple[int, int]]]:
    """The next rows in order that share a bucket, each with its buckets and their numbers of members."""
    found: dict[tuple[int, str], list[tuple[int, int]]] = {}
    query = f"""SELECT ordinal, client_id, bucket, num_members FROM members JOIN in_order USING (position)
                WHERE position > {start} AND position <= {start + _BATCH_ROWS} ORDER BY position, bucket"""
    for ordinal, client_id, bucket, num_members in connection.execute(query).fetchall():
        found.setdefault((ordinal, client_id), []).append((bucket, num_members))
    return found


def _candidates(
    leaders: dict[int, list[tuple[int, str]]], buckets: list[tuple[int, int]]
) -> dict[tuple[int, str], None]:
    return {leader: None for bucket, _ in buckets for leader in leaders.get(bucket, ())}


def _near_row(
    known: RowShingles, ordinal: int, client_id: str, candidates: dict[tuple[int, str], None], threshold: float
) -> str | None:
    """The client of a row that this one is near, its own client's rows first; None if there is no such row."""
    for other, owner in sorted(candidates, key=lambda candidate: (candidate[1] != client_id, candidate[0])):
        if _are_near(known[ordinal], known[other], threshold):
            return owner
    return None


def _are_near(first: list[np.ndarray], second: list[np.ndarray], threshold: float) -> bool:
    """Whether every part reaches the threshold; the answers first, which differ the most, and sizes before all."""
    pairs = list(zip(reversed(first), reversed(second), strict=True))
    bound = threshold - 1e-12
    if any(min(len(one), len(other)) < bound * max(len(one), len(other)) for one, other in pairs):
        return False
    return all(jaccard(one, other) >= bound for one, other in pairs)


def _insert(connection: duckdb.DuckDBPyConnection, table: str, ordinals: list[int]) -> None:
    connection.register("next_ordinals", pa.table({"ordinal": pa.array(ordinals, pa.int64())}))
    connection.execute(f"INSERT INTO {table} SELECT ordinal FROM next_ordinals")
    connection.unregister("next_ordinals")
