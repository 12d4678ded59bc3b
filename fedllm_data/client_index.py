"""Client ids and numbers of clients, kept sorted on disk, so that memory does not grow with the clients.

`ClientIds` is a sorted sequence of distinct ids, `ClientValues` a mapping from them to what is known of each (row
counts, languages, ranks): both are read-only, look like a list and a dict, and make a Python object only of what is
asked for. Ids are UTF-8 in one block (`disk_block.py`) with an offset each; a lookup halves the block, since UTF-8
sorts as text does. Imports no `datasets`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, overload

import numpy as np
import pyarrow as pa

from fedllm_data.disk_block import Block

__all__ = [
    "BLOCK",
    "ClientIds",
    "ClientValues",
    "SortedIds",
    "sorted_ids",
    "values_of",
    "without",
]

BLOCK = 16_384
"""Clients that are looked at together where all are gone through."""
_SHOWN = 20

Value = TypeVar("Value")


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
        """Wrap the ids one after the other, as UTF-8, and where each ends (int64); use `sorted_ids` instead."""
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
