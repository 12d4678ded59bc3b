"""What chance would show, and how sure a figure is: parametric bootstrap, p-values, Holm, bootstrap over clients.

Small clients look different by chance alone, so every measure is compared with clients of the same sizes whose rows
come from one common pool: the parametric bootstrap from the pooled profile (Efron and Tibshirani 1993, ch. 6).
Symbols: K clients, L labels. numpy only.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fedllm_data.heterogeneity.profile import CountTable, Stack

__all__ = ["count_sampler", "holm", "one_sided_p", "percentile_interval", "pool_sampler"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ROWS_PER_LABEL = 8
"""Above this many rows a label, one multinomial draw is cheaper than a draw for every row (measured)."""


def count_sampler(sizes_K: IntArray, pooled_L: IntArray) -> Callable[[Generator], IntArray]:
    """Return a function that draws (K, L) counts: client k draws its rows from the pool, with replacement.

    Args:
        sizes_K: rows of each client.
        pooled_L: rows of the pool with each label; at least one row where any client has one.

    >>> draw = count_sampler(np.array([2, 3]), np.array([0, 7]))
    >>> draw(np.random.default_rng(0)).tolist()
    [[0, 2], [0, 3]]
    """
    num_clients, num_labels = len(sizes_K), len(pooled_L)
    num_rows = int(pooled_L.sum())
    large_K = sizes_K > ROWS_PER_LABEL * num_labels
    first_cell = np.repeat(np.flatnonzero(~large_K) * num_labels, sizes_K[~large_K])
    label_of_row = np.repeat(np.arange(num_labels, dtype=np.int32), pooled_L)
    share_L = pooled_L / max(1, num_rows)

    def draw(rng: Generator) -> IntArray:
        picked = label_of_row[rng.integers(num_rows, size=len(first_cell))] if len(first_cell) else first_cell
        cells = np.bincount(first_cell + picked, minlength=num_clients * num_labels)
        counts_KL = cells.reshape(num_clients, num_labels)
        if large_K.any():
            counts_KL[large_K] = rng.multinomial(sizes_K[large_K], share_L)
        return counts_KL

    return draw


def pool_sampler(stack: Stack) -> Callable[[Generator], Stack]:
    """Return a function that draws clients of the observed sizes, each table from its own pool.

    >>> table = CountTable(("en", "fr"), np.array([[2, 0], [0, 2]]))
    >>> stack = Stack(("a", "b"), {"language": table}, np.arange(2))
    >>> pool_sampler(stack)(np.random.default_rng(0)).tables["language"].sizes_K.tolist()
    [2, 2]
    """
    samplers = {
        name: (table.labels, count_sampler(table.sizes_K, table.counts_KL.sum(axis=0)))
        for name, table in stack.tables.items()
    }

    def draw(rng: Generator) -> Stack:
        tables = {name: CountTable(labels, sampler(rng)) for name, (labels, sampler) in samplers.items()}
        return replace(stack, tables=tables)

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
