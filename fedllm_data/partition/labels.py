"""The label of every row that a partition deals out unevenly: a column of the rows or of the clients, or a cluster.

Labels are numbers from 0 in the order of the values. A number of the clients config is cut at the deciles of the
clients; a missing value is a value of its own.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.random import Generator
from numpy.typing import NDArray

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.encoders import ENCODERS, Encoder
from fedllm_data.errors import PartitionError
from fedllm_data.partition.clusters import find_centres, nearest_centres
from fedllm_data.schema import SCHEMAS, Task

__all__ = ["cluster_rows", "column_labels"]

_SAMPLE_ROWS = 20_000
_BATCH_ROWS = 1_024
_INSTRUCTIONS: dict[Task, str] = {
    "sft": "array_to_string([m.content for m in messages if m.role = 'user'], chr(10))",
    "preference": "array_to_string([m.content for m in prompt if m.role = 'user'], chr(10))",
}


def column_labels(
    connection: duckdb.DuckDBPyConnection, clients_file: Path, task: Task, column: str
) -> NDArray[np.int32]:
    """Return the label of every row of `numbered`, in the order of `ordinal`.

    Args:
        connection: holds the view `parent_rows` (rows with their split) and the table `numbered` (ordinal, split,
            row_id, client_id).
        clients_file: the clients config of the parent.
        task: format of the rows.
        column: a column of the rows or of the clients config.

    Raises:
        PartitionError: if there is no such column, or it holds neither text nor numbers.
    """
    of_rows = [item.name for item in SCHEMAS[task] if pa.types.is_string(item.type) and item.name != "row_id"]
    schema = pq.read_schema(clients_file)
    of_clients = {
        item.name: pa.types.is_string(item.type)
        for item in schema
        if item.name not in of_rows
        and (pa.types.is_string(item.type) or pa.types.is_integer(item.type) or pa.types.is_floating(item.type))
    }
    if column in of_rows:
        value, relation = f"parent_rows.{_name(column)}", "numbered JOIN parent_rows USING (split, row_id)"
    elif column in of_clients:
        ranked = "least(9, floor(10 * percent_rank() OVER (ORDER BY {})))::INTEGER"
        expression = _name(column) if of_clients[column] else ranked.format(_name(column))
        value = "clients.value"
        relation = f"""numbered JOIN (SELECT client_id, {expression} AS value
                       FROM read_parquet('{str(clients_file).replace("'", "''")}')) AS clients USING (client_id)"""
    else:
        known = [*of_rows, *of_clients, "cluster"]
        hint = did_you_mean(column, known)
        raise PartitionError(
            f"there is no column {column[:60]!r} to deal out by; {hint}choose one of {', '.join(known)}"
        )
    found = connection.execute(f"""
        SELECT (dense_rank() OVER (ORDER BY value NULLS FIRST) - 1)::INTEGER AS label
        FROM (SELECT ordinal, {value} AS value FROM {relation}) ORDER BY ordinal
    """)
    return np.asarray(found.fetchnumpy()["label"], np.int32)


def cluster_rows(
    connection: duckdb.DuckDBPyConnection,
    task: Task,
    num_clusters: int,
    encoder: str,
    rng: Generator,
    progress: Callable[[str, int], None],
) -> NDArray[np.int32]:
    """Return the cluster of every row of `numbered`: k-means over embeddings of what the user asked.

    The centres come from a sample of 20,000 rows; then every row is read, embedded and labelled, a batch at a time.

    Args:
        connection: see `column_labels`.
        task: format of the rows.
        num_clusters: how many.
        encoder: a name of `ENCODERS`.
        rng: draws the sample and the starting points.
        progress: called with the step and the number of rows so far.

    Raises:
        PartitionError: if there are fewer rows than clusters.
    """
    num_rows = int(connection.execute("SELECT count(*) FROM numbered").fetchall()[0][0])
    if num_clusters > num_rows:
        raise PartitionError(f"{num_rows} rows cannot make {num_clusters} clusters; ask for fewer")
    encode = ENCODERS[encoder]
    sample = np.sort(rng.choice(num_rows, min(num_rows, _SAMPLE_ROWS), replace=False))
    connection.register("sample", pa.table({"ordinal": sample}))
    parts = [
        (ordinals, vectors) for ordinals, vectors in _embedded(connection, task, encode, "JOIN sample USING (ordinal)")
    ]
    connection.unregister("sample")
    order = np.argsort(np.concatenate([ordinals for ordinals, _ in parts]))
    centres = find_centres(np.concatenate([vectors for _, vectors in parts])[order], num_clusters, rng)
    cluster_N = np.full(num_rows, -1, np.int32)
    num_done = 0
    for ordinals, vectors in _embedded(connection, task, encode, ""):
        cluster_N[ordinals] = nearest_centres(vectors, centres)
        num_done += len(ordinals)
        progress("embedded", num_done)
    return cluster_N


def _embedded(
    connection: duckdb.DuckDBPyConnection, task: Task, encode: Encoder, join: str
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    query = f"""SELECT ordinal, {_INSTRUCTIONS[task]} AS instruction
                FROM parent_rows JOIN numbered USING (split, row_id) {join}"""
    for batch in connection.sql(query).to_arrow_reader(_BATCH_ROWS):
        yield batch.column("ordinal").to_numpy(), encode(batch.column("instruction").to_pylist())


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'
