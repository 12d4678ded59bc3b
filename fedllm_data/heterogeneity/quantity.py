"""Axis `quantity`: how unequally the rows are spread over the clients.

The null is that of equally active clients: row counts are Poisson with one rate. Rows given at random to K clients (a
multinomial with p = 1/K) are this up to the fixed sum, but leave some clients with no row, and a client without rows
is not in any dataset; nor is one below the minimum of a filter. So the counts are drawn from the Poisson distribution
truncated at the smallest size the dataset admits, with the rate that gives the observed mean.
The headline is the coefficient of variation: the variance is what tells clients of different activity from a Poisson
count (the classical dispersion test), also where Lorenz curves cross and the Gini coefficient sees nothing.
Symbols: K clients; `sizes_K` their row counts. numpy and SciPy only.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import gammainc, gammaln

from fedllm_data.heterogeneity.axis import Axis, Columns, Facts, Measure, Reading, Tile, Values
from fedllm_data.heterogeneity.profile import ClientProfile, Counts, CountTable, Stack
from fedllm_data.wording.catalogue import plural_words

__all__ = ["QUANTITY", "gini", "lorenz_curve", "quantity_values", "truncated_poisson"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def gini(sizes_K: IntArray) -> float:
    """Return the Gini coefficient of the client sizes.

    Returns:
        A fraction in [0, (K - 1) / K]: 0 when all clients are equally large, the upper end when one holds all rows.

    >>> gini(np.array([1, 1, 4]))
    0.3333333333333333
    """
    num_clients, ordered_K = len(sizes_K), np.sort(sizes_K)
    rank_K = np.arange(1, num_clients + 1)
    return float(((2 * rank_K - num_clients - 1) * ordered_K).sum() / (num_clients * ordered_K.sum()))


def lorenz_curve(sizes_K: IntArray | FloatArray) -> FloatArray:
    """Return the share of rows that the smallest 0, 1, ..., K clients hold, a (K + 1) array from 0 to 1.

    >>> lorenz_curve(np.array([3, 1])).tolist()
    [0.0, 0.25, 1.0]
    """
    return np.concatenate([[0.0], np.cumsum(np.sort(sizes_K)) / sizes_K.sum()])


def quantity_values(sizes_K: IntArray) -> Values:
    """Return all measures of the axis for clients of these sizes; a size may be 0.

    >>> round(quantity_values(np.array([5, 5]))["effective_clients_simpson"], 6)
    2.0
    """
    num_clients = len(sizes_K)
    p_K = np.sort(sizes_K)[::-1] / sizes_K.sum()
    entropy_nats = float(np.abs(-(p_K * np.log(np.where(p_K > 0, p_K, 1.0))).sum()))
    squares = float((p_K**2).sum())
    return {
        "gini": gini(sizes_K),
        "coefficient_of_variation": float(sizes_K.std() / sizes_K.mean()),
        "normalised_entropy": entropy_nats / np.log(num_clients) if num_clients > 1 else float("nan"),
        "effective_clients_simpson": 1 / squares,
        "effective_clients_entropy": float(np.exp(entropy_nats)),
        "jain": 1 / (num_clients * squares),
        "largest_fraction": float(p_K[0]),
        "top_tenth_fraction": float(p_K[: _tenth(num_clients)].sum()),
    }


def truncated_poisson(mean: float, floor: int) -> tuple[IntArray, FloatArray]:
    """Return the values and cumulative probabilities of a Poisson count that is at least `floor` and has this mean.

    Args:
        mean: mean of the truncated count, at least `floor`.
        floor: smallest possible value, at least 1.

    Returns:
        Values from `floor` up, and the probability of each value or a smaller one; it ends with 1.

    >>> values, cumulative = truncated_poisson(1.0, 1)
    >>> values.tolist(), cumulative.tolist()
    ([1], [1.0])
    """
    if mean <= floor:
        return np.array([floor]), np.array([1.0])
    low, high = 0.0, mean
    for _ in range(100):
        # E[X | X >= m] = rate P(X >= m - 1) / P(X >= m) grows with the rate, and P(X >= m) = gammainc(m, rate).
        rate = (low + high) / 2
        above, above_or_one_less = gammainc(floor, rate), gammainc(floor - 1, rate) if floor > 1 else 1.0
        too_large = above > 0 and rate * above_or_one_less / above > mean
        low, high = (low, rate) if too_large else (rate, high)
    values = np.arange(floor, int(mean + 12 * np.sqrt(mean)) + floor + 20)
    log_p = values * np.log(rate) - gammaln(values + 1)
    p = np.exp(log_p - log_p.max())
    cumulative = p.cumsum() / p.sum()
    cumulative[-1] = 1.0
    return values, cumulative


def _tenth(num_clients: int) -> int:
    return -(-num_clients // 10)


def _count(columns: Columns) -> dict[str, Counts]:
    return {"rows": {"all": len(columns["language"])}}


def _sizes(stack: Stack) -> IntArray:
    return stack.tables["rows"].sizes_K


def _null_sampler(stack: Stack) -> Callable[[Generator], Stack]:
    sizes_K = _sizes(stack)
    values, cumulative = truncated_poisson(float(sizes_K.mean()), _floor(stack))

    def draw(rng: Generator) -> Stack:
        drawn_K = values[np.searchsorted(cumulative, rng.random(len(sizes_K)), side="right")]
        return replace(stack, tables={"rows": CountTable(("all",), drawn_K[:, None])})

    return draw


def _floor(stack: Stack) -> int:
    # A filter may have counted rows that a later step removed: what is there is admitted.
    return max(1, min(stack.min_client_rows, int(_sizes(stack).min())))


def _describe(stack: Stack, pool: ClientProfile) -> Facts:
    sizes_K = _sizes(stack)
    low, median, high = np.quantile(sizes_K, [0.0, 0.5, 1.0])
    return {
        "num_rows": int(sizes_K.sum()),
        "mean_rows": float(sizes_K.mean()),
        "std_rows": float(sizes_K.std()),
        "min_rows": int(low),
        "median_rows": float(median),
        "max_rows": int(high),
        "min_client_rows": _floor(stack),
        "num_clients_in_top_tenth": _tenth(stack.num_clients),
    }


def _sentence(values: Values, facts: Facts) -> str:
    effective = values["effective_clients_simpson"]
    return plural_words(
        "The largest client alone holds {share} of the rows; in weight, this is like {effective} equally large"
        " clients.",
        "The largest {num} clients hold {share} of the rows; in weight, this is like {effective} equally large"
        " clients.",
        facts["num_clients_in_top_tenth"],
        share=f"{values['top_tenth_fraction']:.0%}",
        effective=f"{effective:.{0 if effective >= 10 else 1}f}",
    )


def _per_client(stack: Stack) -> dict[str, list[Any]]:
    return {"num_rows": _sizes(stack).tolist()}


QUANTITY = Axis(
    name="quantity",
    question="Do some clients hold far more rows than others?",
    headline="coefficient_of_variation",
    null="equally active clients: Poisson row counts with the observed mean, none below the smallest size the dataset"
    " admits (min_client_rows)",
    tables=("rows",),
    min_rows=1,
    measures={
        "coefficient_of_variation": Measure(
            title="Coefficient of variation",
            unit="ratio",
            meaning="Population standard deviation of the client sizes over their mean; 0: all are equal.",
        ),
        "gini": Measure(
            title="Gini coefficient",
            unit="fraction",
            meaning="0: all clients hold equally many rows; (K - 1) / K: one client holds them all.",
        ),
        "normalised_entropy": Measure(
            title="Normalised entropy",
            unit="fraction",
            meaning="Entropy of the client shares over log K; 1: all clients are equal, 0: one holds all rows.",
            unequal="low",
        ),
        "effective_clients_simpson": Measure(
            title="Effective clients (inverse Simpson)",
            unit="clients",
            meaning="1 / sum of squared shares: how many equally large clients would be as concentrated; at most K.",
            unequal="low",
        ),
        "effective_clients_entropy": Measure(
            title="Effective clients (exponential of entropy)",
            unit="clients",
            meaning="The same with the entropy of the shares, which gives small clients more say; at most K.",
            unequal="low",
        ),
        "jain": Measure(
            title="Jain's fairness index",
            unit="fraction",
            meaning="1 / (1 + squared coefficient of variation); 1: all are equal, 1 / K: one client holds all rows.",
            unequal="low",
        ),
        "largest_fraction": Measure(
            title="Share of the largest client",
            unit="fraction",
            meaning="1 / K: all are equal; 1: one client holds all rows.",
        ),
        "top_tenth_fraction": Measure(
            title="Share of the largest tenth of clients",
            unit="fraction",
            meaning="Rows held by the largest K / 10 clients (rounded up); 1: they hold all rows.",
        ),
    },
    count=_count,
    measure=lambda stack: quantity_values(_sizes(stack)),
    null_sampler=_null_sampler,
    describe=_describe,
    per_client=_per_client,
    sentence=_sentence,
    reading=Reading(
        means="A few large clients decide what a model weighted by rows learns. Report the mean over clients"
        " beside the mean over rows, try weights between the two, cap the local steps of large clients, and expect"
        " little from models that small clients train alone.",
        alike="Clients are about equally large, so weighting them by rows or equally comes to nearly the same:"
        " keep the simpler one, and no cap on local steps is needed for fairness of sizes.",
        unknown="One client alone has no sizes to compare",
        rests_on=(),
        plot="sizes",
        tiles=(Tile("mean_rows", "rows a client", spread="std_rows"),),
    ),
)
