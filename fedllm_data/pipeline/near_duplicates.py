"""Rows that say almost the same: found by MinHash and banding (Broder 1997; Indyk and Motwani 1998), checked exactly.

A row has parts: the messages before the last user message, that message, and the answer, or the two answers of a
pair. Two rows are near-duplicates when every part's Jaccard similarity over shingles (five characters running, case
and spacing levelled; a shorter text is one shingle) reaches the threshold. So "Yes." under different questions stays,
and so do two answers to one question, two questions after one history, and "Thanks!" after two different histories.
Characters, not words: Chinese and Thai have no spaces.

Signatures are taken over the shingles of all parts, each marked with its part: where every part reaches the
threshold, so does their union. Rows that share a band are candidates, and only an exact comparison removes one. Rows
are taken in the order of `order_key` (clients' rows before public ones); a row goes if it is near an earlier row that
stayed. Banding is set to find 99 % of pairs 0.05 above the threshold; a bucket remembers its first 32 rows that
stayed, so that a template used by thousands costs no square of them.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from fedllm_data.schema import Task

__all__ = ["parts_of", "remove_near_duplicates", "signatures", "similarity"]

_NUM_CHARS = 5
_NUM_HASHES = 96
_MAX_BANDS = 32
_MAX_LEADERS = 32
_BATCH_ROWS = 2_000
_CHUNK = 1 << 17
"""Shingles hashed at once: what the processor's cache holds."""
_rng = np.random.default_rng(20_240_607)
_MULTIPLIERS = _rng.integers(1 << 63, size=_NUM_CHARS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_FACTORS = _rng.integers(1 << 31, size=_NUM_HASHES, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
_MASKS = _rng.integers(1 << 32, size=_NUM_HASHES, dtype=np.uint32)
_MIX = np.uint64(0x9E3779B97F4A7C15)

_PARTS: dict[Task, str] = {
    "sft": "texts(messages[:-3]), messages[-2].content, messages[-1].content",
    "preference": "texts(prompt[:-2]), prompt[-1].content, chosen[-1].content, rejected[-1].content",
}


def parts_of(row: Mapping[str, Any], task: Task) -> tuple[str, ...]:
    """Return what must be alike for two rows to be near-duplicates, part by part.

    >>> turns = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user", "assistant")]
    >>> parts_of({"messages": turns}, "sft")[1:]
    ('user', 'assistant')
    """
    asked = row["messages"][:-1] if task == "sft" else row["prompt"]
    answers = row["messages"][-1:] if task == "sft" else [row["chosen"][-1], row["rejected"][-1]]
    history = "\n".join(message["content"] for message in asked[:-1])
    return (history, asked[-1]["content"], *(message["content"] for message in answers))


def signatures(parts: Sequence[tuple[str, ...]], threshold: float) -> pa.Table:
    """Return a column `bands` (list of uint64) for rows given by their parts; similar rows share a band.

    Args:
        parts: those of each row, as `parts_of` gives them.
        threshold: similarity in (0, 1] from which rows are to be found.

    >>> table = signatures([("Hi there!", "Hello"), ("hi  THERE!", "hello"), ("Bye now", "So long")], 0.8)
    >>> first, second, third = table["bands"].to_pylist()
    >>> first == second, bool(set(first) & set(third))
    (True, False)
    """
    num_bands, num_rows_of_band = _banding(threshold)
    hashes = [_marked(row) for row in parts]
    bands = np.empty((len(hashes), num_bands), dtype=np.uint64)
    start = 0
    while start < len(hashes):
        stop, size = start, 0
        while stop < len(hashes) and (stop == start or size + len(hashes[stop]) <= _CHUNK):
            size += len(hashes[stop])
            stop += 1
        bands[start:stop] = _bands_of(hashes[start:stop], num_bands, num_rows_of_band)
        start = stop
    offsets = np.arange(0, bands.size + 1, num_bands, dtype=np.int32)
    return pa.table({"bands": pa.ListArray.from_arrays(offsets, bands.ravel())})


def similarity(first: tuple[str, ...], second: tuple[str, ...]) -> float:
    """Return the least Jaccard similarity among the parts of two rows, in [0, 1].

    >>> similarity(("abcdefg", "Yes."), ("abcdefh", "yes."))  # abcde, bcdef in common, cdefg and cdefh not
    0.5
    """
    return min(_jaccard(_shingles(one), _shingles(other)) for one, other in zip(first, second, strict=True))


def remove_near_duplicates(
    connection: duckdb.DuckDBPyConnection, threshold: float, task: Task, *, across_clients: bool
) -> dict[str, int]:
    """Remove from `distinct_rows` every row that is near an earlier row that stays; return how many, by whose it was.

    Args:
        connection: holds `distinct_rows` (ordinal, client_id, order_key, is_public, ...), `signatures` (ordinal,
            bands, made with the same threshold) and `rows` (ordinal and the columns of the task's schema).
        threshold: Jaccard similarity in (0, 1] that every part must reach.
        task: the format of the rows.
        across_clients: compare rows of different clients too. A row near rows of its own client and of others counts
            as in its client.

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
        shingles = _Shingles(connection, task, wanted)
        removed = []
        for (ordinal, client_id), buckets in batch.items():
            near = _near_row(shingles, ordinal, client_id, _candidates(leaders, buckets), threshold)
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


class _Shingles:
    """Shingles of the parts of some rows, made when asked for."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, task: Task, ordinals: set[int]) -> None:
        connection.register("wanted_rows", pa.table({"ordinal": pa.array(sorted(ordinals), pa.int64())}))
        connection.execute("""
            CREATE OR REPLACE TEMP MACRO texts(messages) AS
            array_to_string(list_transform(messages, lambda message: message.content), chr(10))
        """)
        query = f"SELECT ordinal, {_PARTS[task]} FROM rows JOIN wanted_rows USING (ordinal)"
        self.texts = {ordinal: parts for ordinal, *parts in connection.execute(query).fetchall()}
        connection.unregister("wanted_rows")
        self.made: dict[int, list[np.ndarray]] = {}

    def __getitem__(self, ordinal: int) -> list[np.ndarray]:
        if ordinal not in self.made:
            self.made[ordinal] = [_shingles(text) for text in self.texts[ordinal]]
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
    shingles: _Shingles, ordinal: int, client_id: str, candidates: dict[tuple[int, str], None], threshold: float
) -> str | None:
    """The client of a row that this one is near, its own client's rows first; None if there is no such row."""
    for other, owner in sorted(candidates, key=lambda candidate: (candidate[1] != client_id, candidate[0])):
        if _are_near(shingles[ordinal], shingles[other], threshold):
            return owner
    return None


def _are_near(first: list[np.ndarray], second: list[np.ndarray], threshold: float) -> bool:
    """Whether every part reaches the threshold; the answers first, which differ the most, and sizes before all."""
    pairs = list(zip(reversed(first), reversed(second), strict=True))
    bound = threshold - 1e-12
    if any(min(len(one), len(other)) < bound * max(len(one), len(other)) for one, other in pairs):
        return False
    return all(_jaccard(one, other) >= bound for one, other in pairs)


def _insert(connection: duckdb.DuckDBPyConnection, table: str, ordinals: list[int]) -> None:
    connection.register("next_ordinals", pa.table({"ordinal": pa.array(ordinals, pa.int64())}))
    connection.execute(f"INSERT INTO {table} SELECT ordinal FROM next_ordinals")
    connection.unregister("next_ordinals")


def _banding(threshold: float) -> tuple[int, int]:
    """Numbers of bands and of hashes in each: the most hashes that still find 99 % of pairs 0.05 above."""
    above = min(1.0, threshold + 0.05)
    fits = [
        (min(_MAX_BANDS, _NUM_HASHES // rows), rows)
        for rows in range(1, 13)
        if 1 - (1 - above**rows) ** min(_MAX_BANDS, _NUM_HASHES // rows) >= 0.99
    ]
    return fits[-1] if fits else (_MAX_BANDS, 1)


def _bands_of(hashes: list[np.ndarray], num_bands: int, num_rows_of_band: int) -> np.ndarray:
    starts = np.cumsum([0, *(len(row) for row in hashes[:-1])])
    narrow = (np.concatenate(hashes) >> np.uint64(32)).astype(np.uint32)
    bands = np.empty((len(hashes), num_bands), dtype=np.uint64)
    for band in range(num_bands):
        value = np.full(len(hashes), band + 1, dtype=np.uint64)
        for index in range(band * num_rows_of_band, (band + 1) * num_rows_of_band):
            least = np.minimum.reduceat((narrow ^ _MASKS[index]) * _FACTORS[index], starts)
            value = _mixed(value * _MIX + least)
        bands[:, band] = value
    return bands


def _marked(parts: tuple[str, ...]) -> np.ndarray:
    """The shingles of a row's parts, those of each part told apart by its position."""
    return np.concatenate(
        [_mixed(_shingles(text) + np.uint64(index)) for index, text in enumerate(parts)], dtype=np.uint64
    )


def _shingles(text: str) -> np.ndarray:
    """The distinct shingles of a text as 64-bit hashes, sorted."""
    levelled = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    codes = np.frombuffer(levelled.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32).astype(np.uint64) + 1
    if len(codes) < _NUM_CHARS:
        codes = np.concatenate([codes, np.zeros(_NUM_CHARS - len(codes), dtype=np.uint64)])
    num_shingles = len(codes) - _NUM_CHARS + 1
    total = np.zeros(num_shingles, dtype=np.uint64)
    for index, multiplier in enumerate(_MULTIPLIERS):
        total += codes[index : index + num_shingles] * multiplier
    return np.unique(_mixed(total))


def _mixed(values: np.ndarray) -> np.ndarray:
    """64 bits of which each depends on all; a bijection."""
    values = (values ^ (values >> np.uint64(31))) * _MIX
    mixed: np.ndarray = values ^ (values >> np.uint64(32))
    return mixed


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    common = len(np.intersect1d(first, second, assume_unique=True))
    return common / (len(first) + len(second) - common)
