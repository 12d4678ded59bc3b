"""Whether different clients give the same verdict on the same thing: opposite votes, Krippendorff's alpha.

Two questions have two nulls. Do votes on one item agree more than votes on different ones? Then a draw deals all votes
out again to all items. Do some clients contradict the others more than other clients do? Then it deals the votes on
items with equally many votes out to these items and their voters, so that as many items stay as divided. Shuffling
votes within an item alone would change nothing if items have two votes.

Symbols: I items, C categories, V votes, K clients; `votes_IC` how many clients put the item into the category,
`item_V`, `client_V` and `side_V` one entry a vote, sorted by item. numpy only.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fedllm_data.heterogeneity.profile import Counts

__all__ = [
    "SharedVotes",
    "gather_votes",
    "krippendorff_alpha",
    "opposite_by_chance",
    "opposite_spread",
    "opposite_weighted",
    "vote_samplers",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class SharedVotes:
    """The votes on items that two clients or more judged."""

    item_V: IntArray
    """Number of the item, from 0; the votes on an item lie together."""
    client_V: IntArray
    """Position of the client among those that were gathered."""
    side_V: IntArray
    """0 or 1: which of the two answers."""

    @property
    def votes_IC(self) -> IntArray:
        """How many clients preferred either answer of each item, (I, 2)."""
        num_items = int(self.item_V.max(initial=-1)) + 1
        return np.bincount(2 * self.item_V + self.side_V, minlength=2 * num_items).reshape(-1, 2)


def gather_votes(tables: Iterable[Counts]) -> SharedVotes:
    """Return the votes on every pair that two clients or more judged.

    A client that judged a pair several times alike has one vote, and one that contradicted itself has none.

    Args:
        tables: one `preference_votes` a client.

    >>> gather_votes([{"k1/0": 1, "k2/1": 1}, {"k1/1": 2}, {"k2/0": 1, "k2/1": 1}]).votes_IC.tolist()
    [[1, 1]]
    """
    keys: list[bytes] = []
    clients: list[int] = []
    sides: list[int] = []
    for client, table in enumerate(tables):
        side_of: dict[str, int] = {}
        for label in table:
            key, _, side = label.rpartition("/")
            side_of[key] = -1 if key in side_of else int(side)
        own = {key: side for key, side in side_of.items() if side >= 0}
        keys += (key.encode() for key in own)
        sides += own.values()
        clients += [client] * len(own)
    _, item_V, votes_I = np.unique(np.array(keys, "S"), return_inverse=True, return_counts=True)
    order_V = np.lexsort((np.array(clients, np.int64), item_V))
    order_V = order_V[votes_I[item_V[order_V]] > 1]
    _, shared_V = np.unique(item_V[order_V], return_inverse=True)
    return SharedVotes(
        np.asarray(shared_V, np.int64), np.array(clients, np.int64)[order_V], np.array(sides, np.int64)[order_V]
    )


def opposite_weighted(votes: SharedVotes, weight_K: IntArray) -> float:
    """Return the share of pairs of votes on one item that differ, where clients count several times or not at all.

    Args:
        votes: the votes of the observed clients.
        weight_K: how often each of them counts: a resample holds some several times. A client is never compared with
            itself.

    >>> votes = gather_votes([{"k/0": 1}, {"k/1": 1}, {"k/0": 1}])
    >>> opposite_weighted(votes, np.array([1, 1, 1])), opposite_weighted(votes, np.array([3, 0, 1]))
    (0.6666666666666666, 0.0)
    """
    weight_V = weight_K[votes.client_V]
    zeros_I = np.bincount(votes.item_V, weight_V * (votes.side_V == 0))
    all_I = np.bincount(votes.item_V, weight_V)
    num_pairs = float((all_I**2).sum() - (weight_V**2).sum()) / 2
    return float((zeros_I * (all_I - zeros_I)).sum()) / num_pairs if num_pairs else float("nan")


def opposite_by_chance(votes_IC: IntArray) -> float:
    """Return the share of pairs of votes that differ if votes fall on items at random: 1 - Krippendorff's agreement.

    >>> opposite_by_chance(np.array([[2, 0], [0, 2]])) == 2 * 2 * 2 / (4 * 3)
    True
    """
    votes_C = votes_IC[votes_IC.sum(axis=1) > 1].sum(axis=0)
    total = int(votes_C.sum())
    return (total**2 - int((votes_C**2).sum())) / (total * (total - 1)) if total > 1 else float("nan")


def opposite_spread(votes: SharedVotes, weight_K: IntArray) -> float:
    """Return by how much clients differ in how often others contradict them.

    Args:
        votes: the votes of the observed clients.
        weight_K: how often each of them counts.

    Returns:
        The standard deviation over clients, weighted by their votes' comparisons, of the share of the others' votes on
        the same items that are opposite: from 0, all are contradicted equally often, to 1/2; NaN without two clients.

    >>> lone = gather_votes([{"k/0": 1, "l/0": 1}, {"k/0": 1}, {"l/1": 1}])
    >>> round(opposite_spread(lone, np.ones(3, int)), 4)  # shares 1/2, 0 and 1; weights 2, 1 and 1
    0.3536
    """
    weight_V = weight_K[votes.client_V]
    zeros_I = np.bincount(votes.item_V, weight_V * (votes.side_V == 0))
    all_I = np.bincount(votes.item_V, weight_V)
    opposite_V = np.where(votes.side_V == 0, (all_I - zeros_I)[votes.item_V], zeros_I[votes.item_V])
    others_K = np.bincount(votes.client_V, all_I[votes.item_V] - weight_V, minlength=len(weight_K))
    opposite_K = np.bincount(votes.client_V, opposite_V, minlength=len(weight_K))
    compared_K = (others_K > 0) & (weight_K > 0)
    if np.count_nonzero(compared_K) < 2:
        return float("nan")
    weights_K = (others_K * weight_K)[compared_K]
    share_K = opposite_K[compared_K] / others_K[compared_K]
    mean = np.average(share_K, weights=weights_K)
    return float(np.sqrt(np.average((share_K - mean) ** 2, weights=weights_K)))


def vote_samplers(
    votes: SharedVotes,
) -> tuple[Callable[[Generator], SharedVotes], Callable[[Generator], SharedVotes]]:
    """Return what draws the votes of either null: dealt out to all items, and to items with equally many votes.

    >>> votes = gather_votes([{"k/0": 1, "l/0": 1}, {"k/0": 1, "l/1": 1}])
    >>> anyhow, divided = vote_samplers(votes)
    >>> sorted(divided(np.random.default_rng(1)).votes_IC.tolist())
    [[1, 1], [2, 0]]
    """
    size_I = np.bincount(votes.item_V)
    first_I = np.cumsum(size_I) - size_I
    positions = [first_I[size_I == size][:, None] + np.arange(size) for size in np.unique(size_I)]

    def anyhow(rng: Generator) -> SharedVotes:
        return replace(votes, side_V=rng.permutation(votes.side_V))

    def divided(rng: Generator) -> SharedVotes:
        side_V = np.empty_like(votes.side_V)
        for position_JS in positions:
            side_V[position_JS] = rng.permuted(rng.permutation(votes.side_V[position_JS]), axis=1)
        return replace(votes, side_V=side_V)

    return anyhow, divided


def krippendorff_alpha(votes_IC: IntArray) -> float:
    """Return Krippendorff's alpha for nominal categories, with any number of votes an item (Krippendorff 2004, 11.3).

    Returns:
        1 when votes on one item never differ, 0 when they differ as often as votes on different items, below 0 when
        more often; NaN if no item has two votes or all votes fall into one category.

    >>> krippendorff_alpha(np.array([[2, 0], [0, 2]]))
    1.0
    """
    votes_IC = votes_IC[votes_IC.sum(axis=1) > 1]
    votes_I, votes_C = votes_IC.sum(axis=1), votes_IC.sum(axis=0)
    total = int(votes_C.sum())
    by_chance = total**2 - int((votes_C**2).sum())
    if by_chance == 0:
        return float("nan")
    differing_I = votes_I**2 - (votes_IC**2).sum(axis=1)
    observed = float((differing_I / (votes_I - 1)).sum())
    return 1 - (total - 1) * observed / by_chance
