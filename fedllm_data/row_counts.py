"""How many rows each client has, and where they lie: found in one pass over a sorted column, and kept on disk.

`RowCounts` is a read-only mapping that looks like a dict (`client_index.py`).
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedllm_data.client_index import BLOCK, ClientIds, ClientValues
from fedllm_data.disk_block import Block

__all__ = ["RowCounts", "count_rows", "row_counts"]

Int64s = npt.NDArray[np.int64]


class RowCounts(ClientValues[int]):
    """Rows of each client, and where they begin in the rows of all.

    >>> sizes = count_rows([pa.array(["ann", "bob", "bob"])])
    >>> sizes, sizes["bob"], sizes.span(1), sizes == {"ann": 1, "bob": 2}
    ({'ann': 1, 'bob': 2}, 2, (1, 3), True)
    """

    def __init__(self, ids: ClientIds, ends: Block) -> None:
        """Take the ids, and after how many rows each client's end (int64)."""
        super().__init__(ids)
        self._block = ends
        self._ends = ends.view.cast("q")

    def __getstate__(self) -> tuple[ClientIds, Block]:
        """Return ids and ends."""
        return self.ids, self._block

    def __setstate__(self, state: tuple[ClientIds, Block]) -> None:
        """Take ids and ends."""
        self.__init__(*state)  # type: ignore[misc]

    @property
    def num_rows(self) -> int:
        """Rows of all clients."""
        return self._ends[-1] if len(self._ends) else 0

    def span(self, position: int) -> tuple[int, int]:
        """Return where the rows of the client at a position begin and end."""
        return (self._ends[position - 1] if position else 0), self._ends[position]

    def at(self, position: int) -> int:
        """Return the rows of the client at a position."""
        begin, end = self.span(position)
        return end - begin

    def counts(self, begin: int, end: int) -> Int64s:
        """Return the rows of the clients from one position to another, as an array.

        >>> count_rows([pa.array(["ann", "bob", "bob"])]).counts(0, 2).tolist()
        [1, 2]
        """
        ends = np.frombuffer(self._ends, dtype=np.int64, count=end - begin, offset=8 * begin)
        return np.diff(ends, prepend=self._ends[begin - 1] if begin else 0)

    def in_order(self) -> Iterator[int]:
        """Iterate over the counts in the order of the ids."""
        for begin in range(0, len(self), BLOCK):
            yield from self.counts(begin, min(begin + BLOCK, len(self))).tolist()


def row_counts(ids: ClientIds, counts_K: npt.ArrayLike) -> RowCounts:
    """Return the rows of each client from an array of them.

    Args:
        ids: K ids.
        counts_K: the rows of each, in the order of the ids.

    >>> from fedllm_data.client_index import sorted_ids
    >>> row_counts(sorted_ids(["ann", "bob"]), [3, 1])
    {'ann': 3, 'bob': 1}
    """
    ends = Block()
    ends.append(np.cumsum(counts_K, dtype=np.int64))
    return RowCounts(ids, ends)


def count_rows(
    chunks: Iterable[pa.Array], *, is_unsorted: Callable[[int], Exception] | None = None, folder: Path | None = None
) -> RowCounts:
    """Return the rows of each client of a column of client ids that is sorted, chunk by chunk.

    Args:
        chunks: the column's chunks, in order.
        is_unsorted: called with the row at which the order breaks, or an id is missing; its result is raised.
        folder: where large blocks would lie.

    Raises:
        ValueError: if the order breaks, or what `is_unsorted` makes.

    >>> count_rows([pa.array(["a", "a"]), pa.array(["a", "b"])])
    {'a': 3, 'b': 1}
    >>> count_rows([pa.array(["b", "a"])])
    Traceback (most recent call last):
    ValueError: client ids are not sorted at row 1
    """
    text, ends, row_ends = Block(folder), Block(folder), Block(folder)
    position, end, last, last_end = 0, 0, None, 0
    for chunk in chunks:
        runs = pc.run_end_encode(chunk)
        values = runs.values.cast(pa.large_string())
        stops = np.asarray(runs.run_ends, dtype=np.int64) + position
        starts = np.concatenate([[position], stops[:-1]]).astype(np.int64) if len(stops) else stops
        position += len(chunk)
        if not len(values):
            continue
        if (wrong := _first_break(values, last)) is not None:
            error = is_unsorted or (lambda row: ValueError(f"client ids are not sorted at row {row}"))
            raise error(int(starts[wrong]))
        if values[0].as_py() == last:
            last_end = int(stops[0])
            values, stops = values[1:], stops[1:]
        if not len(values):
            continue
        if last is not None:
            row_ends.append(np.array([last_end], dtype=np.int64))
        row_ends.append(stops[:-1])
        offsets = np.frombuffer(values.buffers()[1], np.int64, len(values) + 1, 8 * values.offset)
        text.append(values.buffers()[2][int(offsets[0]) : int(offsets[-1])] if offsets[-1] > offsets[0] else b"")
        ends.append(offsets[1:] - offsets[0] + end)
        end += int(offsets[-1] - offsets[0])
        last, last_end = values[-1].as_py(), int(stops[-1])
    if last is not None:
        row_ends.append(np.array([last_end], dtype=np.int64))
    return RowCounts(ClientIds(text, ends), row_ends)


def _first_break(values: Any, last: str | None) -> int | None:
    """The position of the first id that is missing, or comes before the one before it; None if there is none."""
    if values.null_count:
        first_null = pc.index(pc.is_null(values), True).as_py()
        before = _first_break(values[:first_null], last) if first_null else None
        return first_null if before is None else before
    if last is not None and len(values) and values[0].as_py() < last:
        return 0
    falls = pc.index(pc.greater(values[:-1], values[1:]), True).as_py() if len(values) > 1 else -1
    return None if falls < 0 else cast(int, falls) + 1
