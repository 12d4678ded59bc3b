"""What chance would show, and how sure a figure is: dealing, p-values, Holm, bootstrap over clients.

Small clients look different by chance alone, so every measure is compared with clients of the same sizes to whom the
rows of all are dealt at random. This is a permutation test (Pitman 1937; Lehmann and Romano 2005, ch. 15.2): under an
IID partition every dealing is as likely as the one observed, so that p <= 0.05 in at most 5 % of such partitions,
whatever the pool is like. Draws with replacement would not do: they lose rare labels and the last row of the pool.
Symbols: K clients, L labels, N rows. numpy only.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fedllm_data.heterogeneity.profile import CountTable, Stack

__all__ = ["count_dealer", "deal_sampler", "holm", "one_sided_p", "percentile_interval"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ROWS_PER_CELL = 12
"""Above this many rows a cell, one hypergeometric draw a cell is cheaper than shuffling all rows (measured)."""


def count_dealer(sizes_K: IntArray, pooled_L: IntArray) -> Callable[[Generator], IntArray]:
    """Return a function that draws (K, L) counts: the pool's rows are dealt to the clients, without replacement.

    Both margins are those given, and every dealing of single rows is equally likely: the counts have the multivariate
    hypergeometric distribution.

    Args:
        sizes_K: rows of each client.
        pooled_L: rows of the pool with each label; they add up to the clients' rows.

    >>> deal = count_dealer(np.array([2, 3]), np.array([1, 0, 4]))
    >>> counts_KL = deal(np.random.default_rng(0))
    >>> counts_KL.sum(axis=1).tolist(), counts_KL.sum(axis=0).tolist()
    ([2, 3], [1, 0, 4])
    """
    assert sizes_K.sum() == pooled_L.sum()
    shape = (len(sizes_K), len(pooled_L))
    if pooled_L.sum() > ROWS_PER_CELL * shape[0] * shape[1]:
        return lambda rng: _deal_labels(sizes_K, pooled_L, rng)
    # As wide as an address: NumPy shuffles such entries in two thirds of the time, in the same order.
    label_N = np.repeat(np.arange(shape[1], dtype=np.intp), pooled_L)
    first_cell_N = np.repeat(np.arange(shape[0]) * shape[1], sizes_K)

    def deal(rng: Generator) -> IntArray:
        return np.bincount(first_cell_N + rng.permutation(label_N), minlength=shape[0] * shape[1]).reshape(shape)

    return deal


def _deal_labels(sizes_K: IntArray, pooled_L: IntArray, rng: Generator) -> IntArray:
    """One label after the other falls on places that are still free."""
    counts_KL = np.zeros((len(sizes_K), len(pooled_L)), np.int64)
    free_K = sizes_K.copy()
    *order, last = np.argsort(pooled_L, kind="stable").tolist()
    for label in order:
        counts_KL[:, label] = rng.multivariate_hypergeometric(free_K, pooled_L[label], method="marginals")
        free_K -= counts_KL[:, label]
    counts_KL[:, last] = free_K
    return counts_KL


def deal_sampler(stack: Stack) -> Callable[[Generator], Stack]:
    """Return a function that draws clients of the observed sizes, to whom the labels of each table are dealt again.

    >>> table = CountTable(("en", "fr"), np.array([[2, 0], [0, 2]]))
    >>> stack = Stack(("a", "b"), {"language": table}, np.arange(2))
    >>> deal_sampler(stack)(np.random.default_rng(0)).tables["language"].counts_KL.sum(axis=0).tolist()
    [2, 2]
    """
    dealers = {
        name: (table.labels, count_dealer(table.sizes_K, table.counts_KL.sum(axis=0)))
        for name, table in stack.tables.items()
    }

    def draw(rng: Generator) -> Stack:
        return replace(stack, tables={name: CountTable(labels, deal(rng)) for name, (labels, deal) in dealers.items()})

    return draw


def one_sided_p(value: float, null_R: FloatArray, *, unequal: str) -> float:
    """Return how often chance gives clients that differ at least as much, in [1 / (R + 1), 1].

    The observed clients are counted among the R + 1, so that p is never 0 and the test keeps its level
    (Phipson and Smyth 2010).

    Args:
        value: the observed measure.
        null_R: the measure on R draws of the null.
        unequal: "high" if a high value means that clients differ, "low" if a low one does.

    >>> one_sided_p(3.0, np.array([1.0, 2.0, 3.0]), unequal="high")
    0.5
    """
    # A relative slack keeps ties that differ by rounding alone (a null without spread) from looking significant.
    slack = 1e-12 * max(1.0, abs(value))
    as_extreme = null_R >= value - slack if unequal == "high" else null_R <= value + slack
    return float((1 + np.count_nonzero(as_extreme)) / (1 + len(null_R)))


def percentile_interval(values_R: FloatArray, confidence: float = 0.95) -> tuple[float, float]:
    """Return the middle part of bootstrap values as (low, high).

    >>> percentile_interval(np.arange(101.0), 0.5)
    (25.0, 75.0)
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(values_R, [tail, 1 - tail])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, so that the chance of any false finding keeps its level (Holm 1979).

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    corrected = [1.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = largest
    return corrected
