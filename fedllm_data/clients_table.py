"""The `clients` config of a repo, a batch of clients at a time: restricted to a split, or one column of it in order.

What is kept of it lies on disk (`client_index.py`), so that memory does not grow with the clients.
"""

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedllm_data.client_index import BLOCK, ClientIds, ClientValues, sorted_ids
from fedllm_data.disk_block import Block
from fedllm_data.row_counts import RowCounts, count_rows, row_counts

if TYPE_CHECKING:
    from fedllm_data.repo import ClientRepo

__all__ = ["LabelOfClient", "client_batches", "counts_of_split", "labels_of", "places_of", "table_of_clients"]


class LabelOfClient(ClientValues[str]):
    """One of few labels for each client, such as its main language."""

    def __init__(self, ids: ClientIds, labels: Sequence[str], codes: Block) -> None:
        """Take the labels, and the position of each client's among them (int32)."""
        super().__init__(ids)
        self._state = labels, codes
        self._labels, self._codes = labels, codes.view.cast("i")

    def __getstate__(self) -> Any:
        """Return what it is made of."""
        return self.ids, self._state

    def __setstate__(self, state: Any) -> None:
        """Take what it is made of."""
        ids, (labels, codes) = state
        self.__init__(ids, labels, codes)  # type: ignore[misc]

    def at(self, position: int) -> str:
        """Return the label of the client at a position."""
        return self._labels[self._codes[position]]


def client_batches(repo: "ClientRepo", columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the `clients` config in batches.

    Args:
        repo: from `open_repo`.
        columns: those wanted; all if not given.
    """
    with repo.open_clients() as parquet:
        yield from parquet.iter_batches(batch_size=BLOCK, columns=columns, use_threads=False)


def table_of_clients(repo: "ClientRepo", ids: ClientIds) -> pa.Table:
    """Return the `clients` config restricted to some clients, in its order; a large one lies on disk.

    Args:
        repo: from `open_repo`.
        ids: the clients wanted.
    """
    with repo.open_clients() as parquet:
        schema = parquet.schema_arrow
        kept = Block()
        with pa.ipc.new_stream(_Sink(kept), schema) as out:
            for batch in parquet.iter_batches(batch_size=BLOCK, use_threads=False):
                part = batch.filter(pa.array(places_of(batch["client_id"], ids) >= 0))
                if part.num_rows:
                    out.write_batch(part)
    return pa.ipc.open_stream(pa.py_buffer(kept.view)).read_all()


def counts_of_split(repo: "ClientRepo", column: str) -> RowCounts:
    """Return the rows of each client by a column of the `clients` config; clients with none are left out.

    Args:
        repo: from `open_repo`.
        column: such as `num_train_rows`.
    """
    ends, total = Block(), 0

    def client_ids() -> Iterator[pa.Array]:
        nonlocal total
        for batch in client_batches(repo, ["client_id", column]):
            part = batch.filter(pc.greater(batch[column], 0))
            ends_K = np.cumsum(np.asarray(part[column], dtype=np.int64)) + total
            ends.append(ends_K)
            total = int(ends_K[-1]) if len(ends_K) else total
            yield part["client_id"]

    try:
        found = count_rows(client_ids())
    except ValueError:
        found = None
    if found is not None and found.num_rows == len(found):
        return RowCounts(found.ids, ends)
    # A table that is not sorted, or names a client twice: the last row counts, and memory grows with the clients.
    pairs = [batch.to_pydict() for batch in client_batches(repo, ["client_id", column])]
    counts = {
        client_id: num_rows
        for part in pairs
        for client_id, num_rows in zip(part["client_id"], part[column], strict=True)
        if num_rows
    }
    ids = sorted_ids(counts)
    return row_counts(ids, [counts[client_id] for client_id in ids])


def labels_of(table: pa.Table, column: str, ids: ClientIds, missing: str) -> LabelOfClient:
    """Return a text column of a clients table as a mapping from the clients.

    Args:
        table: with `client_id`; of a client that it names twice the last row counts.
        column: the column's name.
        ids: the clients.
        missing: the label of a client without a row, or whose value is null or empty.

    >>> from fedllm_data.client_index import sorted_ids
    >>> table = pa.table({"client_id": ["bob", "ann"], "main_language": ["fr", None]})
    >>> labels_of(table, "main_language", sorted_ids(["ann", "bob", "eve"]), "und")
    {'ann': 'und', 'bob': 'fr', 'eve': 'und'}
    """
    labels = {missing: 0}
    codes = Block.of_zeros(4 * len(ids))
    codes_K = np.frombuffer(codes.view, dtype=np.int32)
    for batch in table.select(["client_id", column]).to_batches(max_chunksize=BLOCK):
        places = places_of(batch["client_id"], ids)
        encoded = batch[column].cast(pa.string()).dictionary_encode()
        new = [labels.setdefault(label or missing, len(labels)) for label in encoded.dictionary.to_pylist()]
        codes_N = np.array([*new, 0], dtype=np.int32)[np.asarray(encoded.indices.fill_null(len(new)))]
        codes_K[places[places >= 0]] = codes_N[places >= 0]
    return LabelOfClient(ids, [*labels], codes)


def places_of(column: Any, ids: ClientIds) -> npt.NDArray[np.int64]:
    """Return the positions of some ids among the clients, -1 where they have none.

    Args:
        column: N ids as an Arrow array; fast where they lie close together.
        ids: the clients.

    >>> places_of(pa.array(["zoe", "ann"]), sorted_ids(["ann", "bob"])).tolist()
    [-1, 0]
    """
    ends = pc.min_max(column).as_py()
    if ends["min"] is None:
        return np.full(len(column), -1, dtype=np.int64)
    begin, end = ids.first_from(ends["min"]), ids.first_from(ends["max"])
    end += end < len(ids) and ids[end] == ends["max"]
    found = pc.index_in(column.cast(pa.string()), value_set=ids.arrow(begin, end))
    return np.where(np.asarray(found.is_valid()), np.asarray(found.fill_null(0)).astype(np.int64) + begin, -1)


class _Sink(io.RawIOBase):
    """A block as a file that is written to."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self._block = block

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._block.append(content)
        return len(content)
