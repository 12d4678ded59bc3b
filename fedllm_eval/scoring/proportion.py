"""A share of items that are one thing or the other, with Wilson's interval (Wilson 1927) or Clopper and Pearson's.

The Wald interval has no width where all items agree and leaves [0, 1] elsewhere; Wilson's does neither, and keeps its
coverage at small numbers on average; Clopper-Pearson's (1934) is never narrower than it claims. Both take the items as
independent: prompts that are variants of one another tell less.
"""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

from fedllm_data.errors import MetricError

__all__ = ["Proportion", "clopper_pearson", "wilson", "wilson_interval"]


@dataclass(frozen=True)
class Proportion:
    """A fraction with its interval, all in [0, 1]."""

    fraction: float
    low: float
    high: float
    num_items: int


def wilson_interval(num_hits: int, num_items: int, *, confidence: float = 0.95) -> Proportion:
    """Return the share of hits and its two-sided interval.

    Args:
        num_hits: from 0 to `num_items`.
        num_items: at least 1.
        confidence: in (0, 1).

    Returns:
        Fraction and bounds; the bounds hold the fraction, and have width even at 0 and 1.

    Raises:
        MetricError: if there are no items, the hits do not fit, or the confidence is not in (0, 1).

    >>> interval = wilson_interval(0, 10)
    >>> interval.fraction, interval.low, round(interval.high, 4)
    (0.0, 0.0, 0.2775)
    """
    if num_items < 1:
        raise MetricError("no items to score: a share of nothing is undefined; give at least one item")
    if not 0 <= num_hits <= num_items:
        raise MetricError(f"{num_hits} hits among {num_items} items; hits lie between 0 and the number of items")
    if not 0 < confidence < 1:
        raise MetricError(f"confidence is {confidence}; it lies in (0, 1), such as 0.95")
    from scipy import stats

    bounds = stats.binomtest(num_hits, num_items).proportion_ci(confidence, method="wilson")
    return Proportion(num_hits / num_items, float(bounds.low), float(bounds.high), num_items)


def wilson(share: float, num_items: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's bounds for a share that need not be a whole number of items, since a tie may count a half.

    SciPy's interval, which `wilson_interval` takes, is for whole numbers only.

    Raises:
        MetricError: if the share is outside [0, 1] or there are no items.

    >>> [round(bound, 4) for bound in wilson(1.0, 10)]  # 10 / (10 + 1.96^2)
    [0.7225, 1.0]
    """
    if num_items < 1 or not 0 <= share <= 1:
        raise MetricError(
            f"share {share} of {num_items} items has no interval; give a share in [0, 1] of at least one"
        )
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p, n = share, num_items
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At 0 and 1 one bound is the share itself; rounding must not leave 1e-17 there.
    return (0.0 if p == 0 else max(0.0, centre - half)), (1.0 if p == 1 else min(1.0, centre + half))


def clopper_pearson(num_hits: int, num_trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided Clopper-Pearson (1934) interval of a proportion: never narrower than it claims.

    Raises:
        MetricError: if there are no trials, more hits than trials, or the confidence is none.

    >>> low, high = clopper_pearson(0, 100)
    >>> low, round(high, 4)  # 1 - .025^(1/100)
    (0.0, 0.0362)
    """
    if num_trials < 1 or not 0 <= num_hits <= num_trials:
        raise MetricError(f"{num_hits} of {num_trials} is no proportion; count hits among at least one trial")
    if not 0 < confidence < 1:
        raise MetricError(f"confidence is {confidence}; it is a number between 0 and 1, such as 0.95")
    from scipy import stats

    bounds = stats.binomtest(num_hits, num_trials).proportion_ci(confidence, method="exact")
    return float(bounds.low), float(bounds.high)
