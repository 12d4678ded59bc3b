"""How often one answer is preferred to another, from preferences that may be soft, tied or missing.

A preference is a number in [0, 1]: 1 where the candidate wins, 0 where the baseline wins, 0.5 for a tie, anything
between for a judge that gives a probability. None or NaN is a verdict that never came: it is left out of the mean and
counted, because leaving it out silently hides a judge that fails on one kind of answer. The interval is over items:
Wilson's score interval (1927) where every verdict is a full win or a full loss, or all agree (which says nothing about
the next one, but has no spread to measure), and Student's for soft verdicts and ties.

A judge that sees both orders of the same two answers (Zheng et al. 2023, section 3.4) has its two verdicts averaged;
how often they disagree, and which position it favours, is counted beside it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.intervals import mean_interval
from fedllm_eval.scoring.proportion import wilson
from fedllm_eval.scoring.rounding import difference_beyond_rounding

__all__ = [
    "Swapped",
    "WinRate",
    "average_swapped",
    "preference_array",
    "win_rate",
]

Array = npt.NDArray[np.float64]
Preferences = Sequence[float | None] | npt.ArrayLike


@dataclass(frozen=True)
class WinRate:
    """Mean preference for the candidate with its interval; NaN where no item has a verdict."""

    win_rate: float
    low: float
    high: float
    standard_error: float
    """Of the mean, over items; NaN for fewer than two."""
    win_fraction: float
    tie_fraction: float
    """Preferences of 0.5, to rounding."""
    num_items: int
    """Items with a verdict."""
    num_missing: int


@dataclass(frozen=True)
class Swapped:
    """Verdicts of a judge that saw both orders of each pair."""

    preferences_N: Array
    """Mean of the two verdicts; NaN where either is missing."""
    consistent_fraction: float
    """Share of items, in [0, 1], whose two verdicts name the same winner or are both ties."""
    first_position_preference: float
    """Mean preference for what is shown first, in [0, 1]: 0.5 for a judge that the order does not move."""
    num_incomplete: int
    """Items where one verdict of two is missing: the other alone would carry the judge's liking for a position."""


def win_rate(preferences: Preferences, *, confidence: float = 0.95) -> WinRate:
    """Return how often the candidate is preferred, a tie counting half.

    Args:
        preferences: N numbers in [0, 1]; None or NaN where no verdict came.
        confidence: level of the two-sided interval, in (0, 1).

    Returns:
        0 when the baseline always wins, 1 when the candidate does, 0.5 for equals. All NaN where every verdict is
        missing.

    Raises:
        MetricError: if there are no items or a preference lies outside [0, 1].

    >>> result = win_rate([1.0, 0.5, 0.0, 1.0, None])  # (1 + .5 + 0 + 1) / 4
    >>> result.win_rate, result.tie_fraction, result.num_items, result.num_missing
    (0.625, 0.25, 4, 1)
    """
    p_all = preference_array(preferences)
    p_N = p_all[~np.isnan(p_all)]
    num_missing = int(p_all.size - p_N.size)
    if p_N.size == 0:
        nan = math.nan
        return WinRate(nan, nan, nan, nan, nan, nan, 0, num_missing)
    mean = float(p_N.mean())
    lead_N = difference_beyond_rounding(0.5, p_N)
    if np.isin(p_N, (0.0, 1.0)).all() or np.ptp(p_N) < 1e-12:
        low, high = wilson(mean, p_N.size, confidence)
    else:
        interval = mean_interval(p_N, confidence=confidence, bounds=(0.0, 1.0))
        low, high = interval.low, interval.high
    return WinRate(
        win_rate=mean,
        low=low,
        high=high,
        standard_error=float(p_N.std(ddof=1) / math.sqrt(p_N.size)) if p_N.size > 1 else math.nan,
        win_fraction=float((lead_N > 0).mean()),
        tie_fraction=float((lead_N == 0).mean()),
        num_items=int(p_N.size),
        num_missing=num_missing,
    )


def average_swapped(shown_first: Preferences, shown_second: Preferences) -> Swapped:
    """Average the verdicts on both orders of each pair; both from the candidate's point of view.

    Args:
        shown_first: N preferences for the candidate where it was answer A.
        shown_second: N preferences for the candidate where it was answer B (so 1 means that B won).

    Raises:
        MetricError: if the lengths differ, there are no items, or a preference lies outside [0, 1].

    >>> swapped = average_swapped([1.0, 1.0, None], [1.0, 0.0, 1.0])
    >>> swapped.preferences_N.tolist(), swapped.consistent_fraction, swapped.first_position_preference
    ([1.0, 0.5, nan], 0.5, 0.75)
    """
    first_N, second_N = preference_array(shown_first), preference_array(shown_second)
    if first_N.shape != second_N.shape:
        raise MetricError(
            f"{first_N.size} verdicts in one order, {second_N.size} in the other; judge every pair twice"
        )
    complete_N = ~np.isnan(first_N) & ~np.isnan(second_N)
    first, second = first_N[complete_N], second_N[complete_N]
    leads = [np.sign(difference_beyond_rounding(0.5, verdicts)) for verdicts in (first, second)]
    return Swapped(
        preferences_N=(first_N + second_N) / 2,
        consistent_fraction=float((leads[0] == leads[1]).mean()) if first.size else math.nan,
        first_position_preference=float((first + 1 - second).mean() / 2) if first.size else math.nan,
        num_incomplete=int((np.isnan(first_N) != np.isnan(second_N)).sum()),
    )


def preference_array(preferences: Preferences) -> Array:
    """Return preferences as an array with NaN for None.

    Raises:
        MetricError: if there are no items or a preference lies outside [0, 1].
    """
    array = np.asarray(preferences, dtype=np.float64)  # None becomes NaN
    if array.ndim != 1 or array.size == 0:
        raise MetricError(f"preferences must be a list of at least one item, got shape {array.shape}")
    bad = np.flatnonzero((array < 0) | (array > 1))
    if bad.size:
        raise MetricError(
            f"preference {array[bad[0]]} at position {bad[0]} is outside [0, 1]; 1 is a win of the candidate, 0.5 a "
            "tie"
        )
    return array
