"""Client ids and numbers of clients, kept sorted on disk, so that memory does not grow with the clients.

`ClientIds` is a sorted sequence of distinct ids, `RowCounts` the mapping from them to their numbers of rows: both are
read-only, look like a list and a dict, and make a Python object only of what is asked for. Ids are UTF-8 in one block
with an offset each; a lookup halves the block (UTF-8 sorts as text does). Small blocks are held in memory, larger ones
in unnamed temporary files that are memory-mapped: their pages belong to the system's page cache, which takes them back
when memory is scarce. Imports no `datasets`.
"""

import mmap
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "BLOCK",
    "Block",
    "ClientIds",
    "ClientValues",
    "RowCounts",
    "SortedIds",
    "count_rows",
    "row_counts",
    "sorted_ids",
    "values_of",
    "without",
]

BLOCK = 16_384
"""Clients that are looked at together where all are gone through."""
IN_MEMORY_BYTES = 1 << 16
"""Blocks up to this size are held in memory."""
_SHOWN = 20

Value = TypeVar("Value")
Int64s = npt.NDArray[np.int64]


class Block:
    """Bytes that are appended once and then read: in memory while they are few, else in a file without a name."""

    def __init__(self, folder: Path | None = None) -> None:
        """Begin an empty block.

        Args:
            folder: where a file would lie; the system's temporary folder if not given, or if nothing can be written
                there.
        """
        self._folder = folder
        self._few = bytearray()
        self._file: Any = None
        self._view: memoryview | None = None

    @classmethod
    def of_zeros(cls, num_bytes: int, folder: Path | None = None) -> "Block":
        """Return a block of zeros whose view can be written to."""
        block = cls(folder)
        if num_bytes <= IN_MEMORY_BYTES:
            block._view = memoryview(bytearray(num_bytes))
        else:
            with _unnamed_file(folder) as file:
                file.truncate(num_bytes)
                block._view = memoryview(mmap.mmap(file.fileno(), num_bytes))
        return block

    def append(self, content: Any) -> None:
        """Append bytes, or an array's."""
        if not len(content):
            return
        more = memoryview(content).cast("B")
        if self._file is None and len(self._few) + len(more) > IN_MEMORY_BYTES:
            self._file = _unnamed_file(self._folder)
            self._file.write(self._few)
            self._few = bytearray()
        if self._file is None:
            self._few += more
        else:
            self._file.write(more)

    @property
    def view(self) -> memoryview:
        """All bytes; nothing can be appended after the first look."""
        if self._view is None:
            if self._file is None:
                self._view = memoryview(bytes(self._few))
            else:
                self._file.flush()
                self._view = memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))
                self._file.close()
            self._few, self._file = bytearray(), None
        return self._view

    def __getstate__(self) -> bytes:
        """Return the bytes: another process keeps them in a file of its own."""
        return self.view.tobytes()

    def __setstate__(self, content: bytes) -> None:
        """Take the bytes."""
        self.__init__()  # type: ignore[misc]
        self.append(content)


def _unnamed_file(folder: Path | None) -> Any:
    """A file that is gone when it is closed and no longer mapped."""
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError:
        return tempfile.TemporaryFile()


class SortedIds(Sequence[str]):
    """Distinct client ids in sorted order, wherever they are kept."""


class ClientIds(SortedIds):
    """Distinct client ids in sorted order, kept on disk where they are many.

    >>> ids = sorted_ids(["bob", "ann", "zoe"])
    >>> ids[1], ids.find("zoe"), "eve" in ids, len(ids)
    ('bob', 2, False, 3)
    >>> ids == ["ann", "bob", "zoe"], ids
    (True, ['ann', 'bob', 'zoe'])
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, text: Block, ends: Block) -> None:
        """Wrap what `count_rows` or `sorted_ids` made: the ids one after the other, and where each ends (int64)."""
        self._blocks = text, ends
        self._read()

    def _read(self) -> None:
        text, ends = self._blocks
        self._text, self._ends = text.view, ends.view.cast("q")

    def __getstate__(self) -> tuple[Block, Block]:
        """Return the blocks."""
        return self._blocks

    def __setstate__(self, blocks: tuple[Block, Block]) -> None:
        """Take the blocks."""
        self._blocks = blocks
        self._read()

    def _bytes(self, position: int) -> bytes:
        begin = self._ends[position - 1] if position else 0
        return self._text[begin : self._ends[position]].tobytes()

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self._ends)

    @overload
    def __getitem__(self, position: int) -> str: ...

    @overload
    def __getitem__(self, position: slice) -> list[str]: ...

    def __getitem__(self, position: int | slice) -> str | list[str]:
        """Return the id at a position, or a list of several."""
        if isinstance(position, slice):
            return [self[each] for each in range(*position.indices(len(self)))]
        place = range(len(self))[position]
        return self._bytes(place).decode()

    def __iter__(self) -> Iterator[str]:
        """Iterate in sorted order."""
        begin = 0
        for end in self._ends:
            yield self._text[begin:end].tobytes().decode()
            begin = end

    def find(self, client_id: object) -> int | None:
        """Return the position of an id; None if it is not among them."""
        if not isinstance(client_id, str):
            return None
        place = self.first_from(client_id)
        return place if place < len(self) and self[place] == client_id else None

    def first_from(self, client_id: str) -> int:
        """Return the position of the first id that does not come before a text; the number of ids if all do."""
        return bisect_left(range(len(self)), client_id.encode(errors="surrogatepass"), key=self._bytes)

    def arrow(self, begin: int, end: int) -> pa.Array:
        """Return the ids from one position to another as an Arrow array of strings.

        >>> sorted_ids(["ann", "bob", "zoe"]).arrow(1, 3).to_pylist()
        ['bob', 'zoe']
        """
        first = (self._ends[begin - 1] if begin else 0) if end > begin else 0
        ends = np.frombuffer(self._ends, np.int64, end - begin, 8 * begin) if end > begin else np.empty(0, np.int64)
        text = self._text[first : int(ends[-1])] if end > begin else b""
        offsets = pa.py_buffer(np.concatenate([[0], ends - first]).astype(np.int64))
        made = pa.LargeStringArray.from_buffers(end - begin, offsets, pa.py_buffer(text))
        return made.cast(pa.string())

    def index(self, client_id: Any, start: int = 0, stop: int | None = None) -> int:
        """Return the position of an id.

        Raises:
            ValueError: if it is not among them.
        """
        place = self.find(client_id)
        if place is None or place not in range(*slice(start, stop).indices(len(self))):
            raise ValueError(f"{client_id!r} is not among the {len(self)} clients")
        return place

    def __contains__(self, client_id: object) -> bool:
        """Return whether an id is among them."""
        return self.find(client_id) is not None

    def __eq__(self, other: object) -> bool:
        """Return whether another sequence holds the same ids in the same order."""
        if self is other:
            return True
        if isinstance(other, ClientIds):
            return self._ends == other._ends and self._text == other._text
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        """Return the ids if they are few, else the first and how many there are."""
        if len(self) <= _SHOWN:
            return repr(list(self))
        return f"[{', '.join(map(repr, self[:3]))}, ... {len(self):,} clients]"


class _Others(SortedIds):
    """Ids without a few of them."""

    def __init__(self, ids: ClientIds, left_out: Iterable[str]) -> None:
        """Take the ids, and those to leave out."""
        self.ids = ids
        self.places = sorted({place for client_id in left_out if (place := ids.find(client_id)) is not None})
        self._before = [place - count for count, place in enumerate(self.places)]

    def __len__(self) -> int:
        return len(self.ids) - len(self.places)

    @overload
    def __getitem__(self, position: int) -> str: ...

    @overload
    def __getitem__(self, position: slice) -> list[str]: ...

    def __getitem__(self, position: int | slice) -> str | list[str]:
        if isinstance(position, slice):
            return [self[each] for each in range(*position.indices(len(self)))]
        place = range(len(self))[position]
        return self.ids[place + bisect_right(self._before, place)]

    def __iter__(self) -> Iterator[str]:
        return self.skip(self.ids)

    def skip(self, values: Iterable[Value]) -> Iterator[Value]:
        """Iterate over values that belong to all ids, without those of the ids that are left out."""
        left_out = set(self.places)
        return (value for place, value in enumerate(values) if place not in left_out)


def without(client_ids: Sequence[str], left_out: Collection[str]) -> Sequence[str]:
    """Return the ids without some of them, in the same order; of `ClientIds` none is copied.

    >>> list(without(sorted_ids("abcd"), {"b", "x"})), without(["d", "b"], ["b"])
    (['a', 'c', 'd'], ['d'])
    """
    if isinstance(client_ids, ClientIds):
        return _Others(client_ids, left_out)
    return [client_id for client_id in client_ids if client_id not in left_out]


class ClientValues(Mapping[str, Value], Generic[Value]):
    """A read-only mapping from sorted client ids to what is known of each; a subclass says what stands at a position.

    Equal to a dict of the same content; `|` gives a dict.
    """

    def __init__(self, ids: ClientIds) -> None:
        """Take the ids."""
        self.ids = ids

    def at(self, position: int) -> Value:
        """Return the value of the client at a position."""
        raise NotImplementedError

    def in_order(self) -> Iterator[Value]:
        """Iterate over the values in the order of the ids."""
        return map(self.at, range(len(self.ids)))

    def __getitem__(self, client_id: str) -> Value:
        """Return the value of a client."""
        position = self.ids.find(client_id)
        if position is None:
            raise KeyError(client_id)
        return self.at(position)

    def __contains__(self, client_id: object) -> bool:
        """Return whether there is such a client."""
        return client_id in self.ids

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ids in sorted order."""
        return iter(self.ids)

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self.ids)

    def values(self) -> Any:
        """Return a view of the values in the order of the ids, without a lookup for each."""
        return _Values(self)

    def items(self) -> Any:
        """Return a view of ids and values, without a lookup for each."""
        return _Items(self)

    def __or__(self, other: Mapping[str, Value]) -> dict[str, Value]:
        """Return a dict of both; the other's values count."""
        return dict(self.items()) | dict(other)

    def __ror__(self, other: Mapping[str, Value]) -> dict[str, Value]:
        """Return a dict of both; these values count."""
        return dict(other) | dict(self.items())

    def __repr__(self) -> str:
        """Return what a dict would show if there are few clients, else the first and how many there are."""
        if len(self) <= _SHOWN:
            return repr(dict(self.items()))
        first = ", ".join(f"{client_id!r}: {self[client_id]!r}" for client_id in self.ids[:3])
        return f"{{{first}, ... {len(self):,} clients}}"


class _Values:
    """What `values()` returns: a collection in order that can be gone through again."""

    def __init__(self, of: ClientValues[Any]) -> None:
        self._of = of

    def __len__(self) -> int:
        return len(self._of)

    def __iter__(self) -> Iterator[Any]:
        return self._of.in_order()

    def __contains__(self, value: object) -> bool:
        return any(value == each for each in self)

    def __repr__(self) -> str:
        return f"values of {self._of!r}"


class _Items(_Values):
    """What `items()` returns."""

    def __iter__(self) -> Iterator[Any]:
        return zip(self._of.ids, self._of.in_order(), strict=True)


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


def sorted_ids(client_ids: Iterable[str], folder: Path | None = None) -> ClientIds:
    """Return ids in order; as they are if they are `ClientIds`.

    Args:
        client_ids: distinct ids in any order; they are sorted in memory.
        folder: where a large block of them would lie.
    """
    if isinstance(client_ids, ClientIds):
        return client_ids
    ids = sorted(set(client_ids))
    text, ends, end = Block(folder), Block(folder), 0
    for begin in range(0, len(ids), BLOCK):
        encoded = [client_id.encode() for client_id in ids[begin : begin + BLOCK]]
        text.append(b"".join(encoded))
        lengths = np.cumsum([end, *map(len, encoded)], dtype=np.int64)
        ends.append(lengths[1:])
        end = int(lengths[-1])
    return ClientIds(text, ends)


def row_counts(ids: ClientIds, counts_K: npt.ArrayLike) -> RowCounts:
    """Return the rows of each client from an array of them.

    Args:
        ids: K ids.
        counts_K: the rows of each, in the order of the ids.

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


def values_of(mapping: Mapping[str, Value], client_ids: Sequence[str]) -> Iterator[Value]:
    """Iterate over the values of some clients, without a lookup for each where the mapping lies in their order.

    >>> list(values_of({"a": 1, "b": 2}, ["b", "a"]))
    [2, 1]
    """
    if isinstance(mapping, ClientValues) and mapping.ids is client_ids:
        return cast("Iterator[Value]", mapping.in_order())
    if isinstance(mapping, ClientValues) and isinstance(client_ids, _Others) and mapping.ids is client_ids.ids:
        return client_ids.skip(mapping.in_order())
    return (mapping[client_id] for client_id in client_ids)


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
