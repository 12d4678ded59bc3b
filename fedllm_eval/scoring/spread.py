"""Whom a model serves worst: the distribution of a score over clients in a few numbers.

Symbols: K clients; `x_K` one score a client. "Worst" needs a direction: high for a loss, low for an accuracy. The
clients at hand are the population, so the standard deviation divides by K, as in the fairness literature
(Li et al. 2020, q-FFL). Jain (1984) and Gini describe how evenly a non-negative amount is shared and are undefined
where a score is negative.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.safe_scale import power_of_two

__all__ = ["Spread", "client_spread", "gini_coefficient", "jain_index", "num_worst", "worst_decile"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """How a score is spread over clients; all but `jain` and `gini` are in the unit of the score."""

    mean: float
    std: float
    worst: float
    worst_decile: float
    best: float
    best_worst_gap: float
    jain: float
    """NaN where a score is negative or all are 0."""
    gini: float
    """NaN where a score is negative or all are 0."""
    num_clients: int


def client_spread(x_K: npt.ArrayLike, *, higher_is_better: bool) -> Spread:
    """Return mean, standard deviation, worst decile, best-worst gap, Jain's index and the Gini coefficient.

    Args:
        x_K: (K,) finite scores, one per client.
        higher_is_better: False for losses.

    Raises:
        MetricError: if there are no clients or a value is not finite.

    >>> client_spread([0.2, 0.6, 0.7], higher_is_better=True).worst
    0.2
    """
    x = _scores(x_K)
    worst, best = (x.min(), x.max()) if higher_is_better else (x.max(), x.min())
    shareable = x.min() >= 0 and x.max() > 0
    scale = power_of_two(x)
    return Spread(
        mean=float((x / scale).mean() * scale),
        std=float((x / scale).std() * scale),
        worst=float(worst),
        worst_decile=worst_decile(x, higher_is_better=higher_is_better),
        best=float(best),
        best_worst_gap=float(abs(best - worst)),
        jain=jain_index(x) if shareable else float("nan"),
        gini=gini_coefficient(x) if shareable else float("nan"),
        num_clients=int(x.size),
    )


def worst_decile(x_K: npt.ArrayLike, *, higher_is_better: bool) -> float:
    """Return the mean score of the worst-served tenth: the max(1, floor(K / 10)) worst clients.

    Raises:
        MetricError: if there are no clients or a value is not finite.

    >>> worst_decile(range(20), higher_is_better=True)  # clients 0 and 1
    0.5
    >>> worst_decile([1.0, 3.0], higher_is_better=False)
    3.0
    """
    x = np.sort(_scores(x_K))
    num, scale = num_worst(x.size), power_of_two(x)
    return float(((x[:num] if higher_is_better else x[-num:]) / scale).mean() * scale)


def num_worst(num_clients: int) -> int:
    """Return how many clients the worst tenth is: one person below twenty clients.

    >>> num_worst(266), num_worst(19), num_worst(3)
    (26, 1, 1)
    """
    return max(1, num_clients // 10)


def jain_index(x_K: npt.ArrayLike) -> float:
    """Return Jain's fairness index: 1 when all clients have the same score, 1/K when one has everything.

    Raises:
        MetricError: if there are no clients, a score is negative or not finite, or all are 0.

    >>> jain_index([0.0, 4.0])
    0.5
    """
    x = _amounts(x_K)
    # Scaling by the largest keeps tiny scores from squaring to 0.
    scaled = x / x.max()
    return float(scaled.sum() ** 2 / (x.size * (scaled**2).sum()))


def gini_coefficient(x_K: npt.ArrayLike) -> float:
    """Return the Gini coefficient: 0 when all clients have the same score, (K-1)/K when one has everything.

    Half the mean absolute difference of two clients, over the mean.

    Raises:
        MetricError: if there are no clients, a score is negative or not finite, or all are 0.

    >>> gini_coefficient([0.0, 4.0])
    0.5
    """
    x = np.sort(_amounts(x_K))
    x = x / power_of_two(x)
    rank_K = np.arange(1, x.size + 1)
    return float(((2 * rank_K - x.size - 1) * x).sum() / (x.size * x.sum()))


def _amounts(values: npt.ArrayLike) -> Array:
    x = _scores(values)
    if (x < 0).any() or not x.any():
        raise MetricError("Jain's index and Gini's coefficient need non-negative scores that are not all 0")
    return x


def _scores(values: npt.ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise MetricError(f"scores must be a list of at least one client, got shape {array.shape}")
    if not np.isfinite(array).all():
        client = int(np.flatnonzero(~np.isfinite(array))[0])
        raise MetricError(f"client at position {client} has score {array[client]}; drop clients without a score first")
    return array
