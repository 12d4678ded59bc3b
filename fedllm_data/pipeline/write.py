"""Write the files of a client repo: Parquet in small row groups, the clients table and a first README.

A row group holds about half a megabyte of text, so that a client can be read by range requests; a file holds about
256 MB. Both sizes follow from the totals alone, never from how DuckDB hands out its batches, and nothing in a file
depends on the time or the machine: building again gives the same bytes.
"""

import html
import math
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fedllm_data.cards.front_matter import first_front_matter
from fedllm_data.pipeline.client_table import CLIENTS_SCHEMA, client_table_query
from fedllm_data.repo import CLIENTS_FILE
from fedllm_data.schema import SCHEMAS, Task
from fedllm_data.source import Source

__all__ = ["MAX_GROUP_ROWS", "readme_text", "write_clients", "write_split"]

MAX_GROUP_ROWS = 500
_GROUP_BYTES = 512 * 1024
_FILE_BYTES = 256 * 1024 * 1024


def write_split(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    folder: Path,
    split: str,
    task: Task,
    num_rows: int,
    num_bytes: int,
) -> list[str]:
    """Write one split, in the order the query gives, and return the paths of its files.

    Args:
        connection: where the query runs.
        query: yields the columns of `SCHEMAS[task]`, sorted.
        folder: the client repo.
        split: one of `SPLITS`.
        task: which row format it is.
        num_rows: rows the query yields.
        num_bytes: bytes of text in them.

    >>> write_split(None, "", Path(), "train", "sft", 0, 0)
    []
    """
    if num_rows == 0:
        return []
    group_rows = max(1, min(MAX_GROUP_ROWS, _GROUP_BYTES * num_rows // max(1, num_bytes)))
    num_files = math.ceil(num_bytes / _FILE_BYTES) or 1
    file_rows = group_rows * math.ceil(num_rows / num_files / group_rows)
    num_files = math.ceil(num_rows / file_rows)
    names = [f"data/{split}-{index:05d}-of-{num_files:05d}.parquet" for index in range(num_files)]
    groups = _groups_of(connection, query, SCHEMAS[task], group_rows)
    for name in names:
        with _writer(folder / name, SCHEMAS[task], ["client_id", "row_id", "language"]) as writer:
            for _ in range(file_rows // group_rows):
                group = next(groups, None)
                if group is None:
                    break
                writer.write_table(group, row_group_size=group_rows)
    return names


def write_clients(connection: duckdb.DuckDBPyConnection, relation: str, folder: Path, task: Task) -> str:
    """Write the `clients` config from rows with a `split` column, and return its path."""
    groups = _groups_of(connection, client_table_query(relation, task), CLIENTS_SCHEMA, 10_000)
    with _writer(folder / CLIENTS_FILE, CLIENTS_SCHEMA, ["client_id"]) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=10_000)
    return CLIENTS_FILE


def readme_text(source: Source, splits: list[str]) -> str:
    """Return the smallest README that tells the terms, and with which `datasets` finds the configs and splits.

    >>> from fedllm_data.sources import SOURCES
    >>> "config_name: clients" in readme_text(SOURCES["fed-oasst"], ["train"])
    True
    """
    yaml_text = first_front_matter(source.licence, source.gate, splits)
    return f"---\n{yaml_text}\n---\n\n# {html.escape(source.name)}\n\n{html.escape(source.summary)}\n"


def _groups_of(
    connection: duckdb.DuckDBPyConnection, query: str, schema: pa.Schema, group_rows: int
) -> Iterator[pa.Table]:
    """Yield tables of exactly `group_rows` rows (the last may be shorter), whatever batches DuckDB makes."""
    waiting: list[pa.RecordBatch] = []
    num_waiting = 0
    for batch in connection.sql(query).to_arrow_reader(2048):
        waiting.append(batch)
        num_waiting += batch.num_rows
        if num_waiting >= group_rows:
            table = pa.Table.from_batches(waiting)
            for start in range(0, num_waiting - group_rows + 1, group_rows):
                yield table.slice(start, group_rows).combine_chunks().cast(schema)
            rest = table.slice(num_waiting - num_waiting % group_rows)
            waiting, num_waiting = rest.to_batches(), rest.num_rows
    if num_waiting:
        yield pa.Table.from_batches(waiting).combine_chunks().cast(schema)


def _writer(path: Path, schema: pa.Schema, statistics: list[str]) -> pq.ParquetWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    return pq.ParquetWriter(path, schema, compression="zstd", write_statistics=statistics, version="2.6")
