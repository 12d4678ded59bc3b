"""Ranks that are worked out when they are asked for, so that memory does not grow with the clients.

`RanksByRows` gives each rank to equally many clients, the lowest to those with the fewest rows, and keeps where one
rank ends and the next begins. `DrawnRanks` draws a client's rank from (seed, "rank", client). `RanksOfColumn` holds
what a column says, on disk. Imports no torch.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedllm_data.client_index import ClientIds, ClientValues, values_of
from fedllm_data.disk_block import Block
from fedllm_train.seeds import stream_rng

__all__ = ["DrawnRanks", "RanksByRows", "RanksOfColumn"]


class RanksByRows(ClientValues[int]):
    """Each rank for equally many clients, by their rows; of clients with equally many, by their ids.

    >>> from fedllm_data.client_index import sorted_ids
    >>> RanksByRows(sorted_ids("abcd"), {"a": 10, "b": 1, "c": 5, "d": 7}, [8, 2])
    {'a': 8, 'b': 2, 'c': 2, 'd': 8}
    """

    def __init__(self, ids: ClientIds, sizes: Mapping[str, int], ranks: Sequence[int]) -> None:
        """Find where each rank begins in the order of the rows.

        Args:
            ids: the clients that ranks are dealt to.
            sizes: rows of each.
            ranks: in any order; one may be named twice.
        """
        super().__init__(ids)
        self._sizes, self._ranks = sizes, sorted(ranks)
        clients_of = Counter(values_of(sizes, ids))
        before, begins = 0, list[tuple[int, int]]()
        wanted = [-(-step * len(ids) // len(ranks)) for step in range(1, len(ranks))]
        for num_rows in sorted(clients_of):
            here = [place - before for place in wanted if before <= place < before + clients_of[num_rows]]
            begins += [(num_rows, offset) for offset in here]
            before += clients_of[num_rows]
        self._begins = self._as_positions(begins)

    def _as_positions(self, begins: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """From (rows, how many clients with these rows come before) to (rows, position in the order of the ids)."""
        seen, made = Counter[int](), dict[tuple[int, int], int]()
        wanted = set(begins)
        sizes = {num_rows for num_rows, _ in begins}
        for position, num_rows in enumerate(values_of(self._sizes, self.ids)):
            if num_rows in sizes:
                if (num_rows, seen[num_rows]) in wanted:
                    made[num_rows, seen[num_rows]] = position
                seen[num_rows] += 1
        return [(num_rows, made[num_rows, offset]) for num_rows, offset in begins]

    def at(self, position: int) -> int:
        """Return the rank of the client at a position."""
        return self._ranks[bisect_right(self._begins, (self._sizes[self.ids[position]], position))]


class DrawnRanks(ClientValues[int]):
    """A rank for each client that depends on seed and id alone, whatever other clients there are."""

    def __init__(self, ids: ClientIds, ranks: Sequence[int], seed: int) -> None:
        """Take the ranks that are drawn from, and the run seed."""
        super().__init__(ids)
        self._ranks, self._seed = ranks, seed

    def at(self, position: int) -> int:
        """Return the rank of the client at a position."""
        rng = stream_rng(self._seed, "rank", client_id=self.ids[position])
        return self._ranks[int(rng.integers(len(self._ranks)))]


class RanksOfColumn(ClientValues[int]):
    """Ranks that were read from a column."""

    def __init__(self, ids: ClientIds, ranks: Block) -> None:
        """Take the ranks in the order of the ids (int64)."""
        super().__init__(ids)
        self._block, self._ranks = ranks, np.frombuffer(ranks.view, dtype=np.int64)

    def __getstate__(self) -> Any:
        """Return what it is made of."""
        return self.ids, self._block

    def __setstate__(self, state: Any) -> None:
        """Take what it is made of."""
        self.__init__(*state)  # type: ignore[misc]

    def at(self, position: int) -> int:
        """Return the rank of the client at a position."""
        return int(self._ranks[position])
