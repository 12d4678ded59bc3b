"""How far a mean over clients could be off: bootstrap intervals and paired tests, clients as the unit.

Symbols: K clients, B resamples; `x_K` one score a client. Clients are resampled, not rows: rows of one person are
alike, and resampling rows would promise more than the data hold. The interval is BCa (Efron 1987; Efron & Tibshirani
1993, ch. 14) unless the plain percentile interval is asked for. The mean may be weighted (by rows, by tokens), which
makes it a ratio of sums and is resampled as one.

The paired test flips the signs of the K differences (Fisher's randomisation test): exact up to 2^14 sign patterns,
by random patterns above. Intervals from fewer than about ten clients are narrower than they should be, whatever the
method.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from fedllm_data.errors import MetricError

__all__ = ["Interval", "PairedDifference", "mean_interval", "paired_difference"]

Array = npt.NDArray[np.float64]
Method = Literal["bca", "percentile"]
CHUNK = 2_000_000
"""Resampled values held at once: 16 MB."""
MAX_EXACT_CLIENTS = 14
NUM_SIGN_PATTERNS = 9_999


@dataclass(frozen=True)
class Interval:
    """A mean over clients with its confidence interval; NaN bounds where one client is all there is."""

    mean: float
    low: float
    high: float
    num_clients: int


@dataclass(frozen=True)
class PairedDifference:
    """Mean of `b - a` over the same clients."""

    difference: float
    low: float
    high: float
    p_value: float
    """Two-sided; NaN for fewer than two clients."""
    higher_fraction: float
    """Share of clients with b > a; ties are neither higher nor lower."""
    lower_fraction: float
    num_clients: int


def mean_interval(
    x_K: npt.ArrayLike,
    weights_K: npt.ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2_000,
    seed: int = 0,
    method: Method = "bca",
) -> Interval:
    """Return the (weighted) mean over clients and its bootstrap interval.

    Args:
        x_K: (K,) finite scores, one a client.
        weights_K: (K,) positive weights, such as rows or tokens; None weighs all clients alike.
        confidence: of the two-sided interval, in (0, 1).
        num_resamples: B; the bounds' own noise is a few hundredths of the width at 2,000.
        seed: of the resampling; equal seeds and inputs give equal bounds.
        method: `bca` corrects for bias and skewness, `percentile` does not.

    Returns:
        Mean and bounds. Equal scores give bounds equal to the mean; a single client gives NaN bounds: one person
        says nothing about the spread between people.

    Raises:
        MetricError: if there are no clients, a value is not finite, or weights do not fit.

    >>> interval = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> interval.mean, 1.0 < interval.low < 3.0 < interval.high < 5.0
    (3.0, True)
    >>> mean_interval([7.0]).low
    nan
    """
    x = _scores(x_K)
    weights = np.ones_like(x) if weights_K is None else _scores(weights_K)
    if weights.shape != x.shape or not (weights > 0).all():
        raise MetricError(f"{x.size} clients need {x.size} positive weights, got {weights.tolist()[:5]}")
    if method not in ("bca", "percentile"):
        raise MetricError(f"interval method {method!r} is unknown; use bca or percentile")
    numerator, denominator = x * weights, weights
    mean = float(numerator.sum() / denominator.sum())
    if x.size == 1:
        return Interval(mean, float("nan"), float("nan"), 1)
    # Differences of equal size come out unequal in the last bit; that is no spread.
    if np.ptp(x) <= 1e-12 * np.abs(x).max():
        return Interval(mean, mean, mean, x.size)
    resampled_B = _resampled_ratios(numerator, denominator, num_resamples, np.random.default_rng(seed))
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if method == "bca":
        leave_one_out_K = (numerator.sum() - numerator) / (denominator.sum() - denominator)
        tails = _bca_tails(mean, resampled_B, leave_one_out_K, tails)
    low, high = np.quantile(resampled_B, tails)
    return Interval(mean, float(low), float(high), x.size)


def paired_difference(
    a_K: npt.ArrayLike,
    b_K: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2_000,
    seed: int = 0,
    method: Method = "bca",
) -> PairedDifference:
    """Compare two scores of the same clients: mean of b - a, its interval, and a sign-flip p-value.

    Args:
        a_K: (K,) finite scores of the baseline.
        b_K: (K,) scores of the other, in the same order of clients.
        confidence: of the interval.
        num_resamples: of the bootstrap.
        seed: of bootstrap and sign flips.
        method: as in `mean_interval`.

    Returns:
        Difference, bounds, p-value (the smallest that K clients can give is 2^(1-K)), shares of clients higher and
        lower under b.

    Raises:
        MetricError: if there are no clients, lengths differ, or a value is not finite.

    >>> paired_difference([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]).p_value  # all of one sign: 2 of 8 patterns
    0.25
    """
    a, b = _scores(a_K), _scores(b_K)
    if a.shape != b.shape:
        raise MetricError(f"{a.size} clients against {b.size}; pair the scores of the same clients")
    d_K = b - a
    interval = mean_interval(d_K, confidence=confidence, num_resamples=num_resamples, seed=seed, method=method)
    return PairedDifference(
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        p_value=_sign_flip_p(d_K, np.random.default_rng([seed, 1])) if d_K.size > 1 else float("nan"),
        higher_fraction=float((d_K > 0).mean()),
        lower_fraction=float((d_K < 0).mean()),
        num_clients=int(d_K.size),
    )


def _resampled_ratios(numerator: Array, denominator: Array, num_resamples: int, rng: np.random.Generator) -> Array:
    num_clients = numerator.size
    ratios = []
    # Chunks bound the memory; the stream of indices is the same whatever their size.
    for begin in range(0, num_resamples, step := max(1, CHUNK // num_clients)):
        index = rng.integers(num_clients, size=(min(step, num_resamples - begin), num_clients))
        ratios.append(numerator[index].sum(axis=1) / denominator[index].sum(axis=1))
    return np.concatenate(ratios)


def _bca_tails(mean: float, resampled_B: Array, leave_one_out_K: Array, tails: Array) -> Array:
    """Return the tail probabilities that BCa reads off instead of the nominal ones."""
    below = ((resampled_B < mean).mean() + (resampled_B <= mean).mean()) / 2
    # 0 or 1 would send the bias correction to infinity; half a resample is as sure as B resamples can be.
    below = np.clip(below, 0.5 / resampled_B.size, 1 - 0.5 / resampled_B.size)
    bias = special.ndtri(below)
    deviation_K = leave_one_out_K.mean() - leave_one_out_K
    deviation_K /= np.abs(deviation_K).max()  # the ratio below has no scale; cubes of tiny numbers would vanish
    acceleration = (deviation_K**3).sum() / (6 * (deviation_K**2).sum() ** 1.5)
    shifted = bias + special.ndtri(tails)
    adjusted: Array = special.ndtr(bias + shifted / (1 - acceleration * shifted))
    return adjusted


def _sign_flip_p(d_K: Array, rng: np.random.Generator) -> float:
    """Two-sided p-value of the mean difference when every client's sign is a coin toss."""
    observed = abs(d_K.sum())
    # Sums of the same numbers in another order differ by rounding; such a pattern counts as equally extreme.
    threshold = observed - 1e-12 * np.abs(d_K).sum()
    if d_K.size <= MAX_EXACT_CLIENTS:
        patterns = np.arange(2**d_K.size)[:, None] >> np.arange(d_K.size) & 1
        return float((np.abs((1 - 2 * patterns) @ d_K) >= threshold).mean())
    num_extreme = 0
    for begin in range(0, NUM_SIGN_PATTERNS, step := max(1, CHUNK // d_K.size)):
        signs = 1 - 2 * rng.integers(2, size=(min(step, NUM_SIGN_PATTERNS - begin), d_K.size))
        num_extreme += int((np.abs(signs @ d_K) >= threshold).sum())
    return (num_extreme + 1) / (NUM_SIGN_PATTERNS + 1)


def _scores(values: npt.ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise MetricError(f"scores must be a list of at least one client, got shape {array.shape}")
    if not np.isfinite(array).all():
        client = int(np.flatnonzero(~np.isfinite(array))[0])
        raise MetricError(f"client at position {client} has score {array[client]}; drop clients without a score first")
    return array
