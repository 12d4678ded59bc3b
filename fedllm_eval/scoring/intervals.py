"""How far a mean over clients could be off: confidence intervals and paired tests, clients as the unit.

Symbols: K clients; `x_K` one score per client, `p_K` weights that sum to 1. Rows of one person are alike, so clients
are what is counted: an interval over rows would promise more than the data hold. The mean may be weighted (by rows, by
tokens), which makes it a ratio of sums.

The interval is Student's. Its standard error is the delete-one-client jackknife's, which for equal weights is
the ordinary s / sqrt(K) with K - 1 degrees of freedom (for unequal ones nearly HC3, MacKinnon & White 1985). Under
unequal weights a few large clients carry the mean, and the degrees of freedom lie between Kish's effective number of
clients less 1 (Kish 1965), which promises a little too much, and the Satterthwaite value of Bell & McCaffrey (2002),
which takes the rows of large clients to be as noisy as those of small ones and promises too little: a third of the
way up to the latter. `benchmarks/interval_coverage.py` counts how often the truth is inside,
beside bootstraps (percentile, and BCa of Efron 1987), which miss more than 1 in 20 below about 200 clients.

The paired test flips the signs of the K differences (Fisher's randomisation test): exact up to 2^14 sign patterns,
by random patterns above.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.rounding import difference_beyond_rounding
from fedllm_eval.scoring.safe_scale import power_of_two

__all__ = [
    "NUM_SIGN_PATTERNS",
    "Interval",
    "PairedDifference",
    "interval_record",
    "mean_interval",
    "paired_difference",
    "sign_flip_p",
]

Array = npt.NDArray[np.float64]
CHUNK = 2_000_000
"""Signs held at once: 16 MB."""
MAX_EXACT_CLIENTS = 14
NUM_SIGN_PATTERNS = 9_999
SATTERTHWAITE_SHARE = 1 / 3
"""Chosen by simulation: 0 covers 93 to 95 %, 1 covers 95 to 98 %."""


def interval_record(seed: int, confidence: float = 0.95) -> dict[str, float | str | int]:
    """Return what a results file says of its intervals: Student's over clients.

    >>> interval_record(0)
    {'confidence': 0.95, 'method': 't', 'unit': 'client', 'seed': 0}
    """
    return {"confidence": confidence, "method": "t", "unit": "client", "seed": seed}


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
    """Share of clients with b > a; ties, and differences that are rounding, are neither higher nor lower."""
    lower_fraction: float
    num_clients: int


def mean_interval(
    x_K: npt.ArrayLike,
    weights_K: npt.ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Return the (weighted) mean over clients and its confidence interval.

    Args:
        x_K: (K,) finite scores, one per client.
        weights_K: (K,) positive weights, such as rows or tokens; None weighs all clients alike.
        confidence: level of the two-sided interval, in (0, 1).
        bounds: smallest and largest value that a score can have. An interval may reach beyond, where the mean cannot
            be; it is cut there, which takes no true mean out of it.

    Returns:
        Mean and bounds. Equal scores give bounds equal to the mean; a single client gives NaN bounds: one person
        says nothing about the spread between people.

    Raises:
        MetricError: if there are no clients, a value is not finite or out of bounds, or weights do not fit.

    >>> interval = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> interval.mean, 1.0 < interval.low < 3.0 < interval.high < 5.0
    (3.0, True)
    >>> mean_interval([1.0, 1.0, 0.5], bounds=(0.0, 1.0)).high
    1.0
    >>> mean_interval([7.0]).low
    nan
    """
    x = _scores(x_K)
    weights = np.ones_like(x) if weights_K is None else _scores(weights_K)
    if weights.shape != x.shape or not (weights > 0).all():
        raise MetricError(f"{x.size} clients need {x.size} positive weights, got {weights.tolist()[:5]}")
    if not 0 < confidence < 1:
        raise MetricError(f"confidence is {confidence}; it is a number between 0 and 1, such as 0.95")
    if x.min() < bounds[0] or x.max() > bounds[1]:
        raise MetricError(f"scores go from {x.min()} to {x.max()}, beyond their bounds {bounds[0]} and {bounds[1]}")
    scale = power_of_two(x)
    x, weights = x / scale, weights / power_of_two(weights)
    mean = float((x * weights).sum() / weights.sum())
    if x.size == 1:
        return Interval(mean * scale, float("nan"), float("nan"), 1)
    # Differences of equal size come out unequal in the last bit; that is no spread.
    if np.ptp(x) <= 1e-12 * np.abs(x).max():
        return Interval(mean * scale, mean * scale, mean * scale, x.size)
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    std_error, num_degrees = _jackknife(x - mean, weights / weights.sum())
    low, high = np.clip(scale * (mean + std_error * special.stdtrit(num_degrees, tails)), *bounds)
    return Interval(mean * scale, float(low), float(high), x.size)


def paired_difference(
    a_K: npt.ArrayLike,
    b_K: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    seed: int = 0,
    rounding: float = 0.0,
) -> PairedDifference:
    """Compare two scores of the same clients: mean of b - a, its interval, and a sign-flip p-value.

    Args:
        a_K: (K,) finite scores of the baseline.
        b_K: (K,) scores of the other, in the same order of clients.
        confidence: level of the interval.
        seed: seeds the sign flips, where there are too many to try all.
        rounding: an absolute difference that is none, as in `rounding.difference_beyond_rounding`.

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
    d_K = difference_beyond_rounding(a, b, rounding)
    interval = mean_interval(d_K, confidence=confidence)
    return PairedDifference(
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        p_value=sign_flip_p(d_K, seed=seed),
        higher_fraction=float((d_K > 0).mean()),
        lower_fraction=float((d_K < 0).mean()),
        num_clients=int(d_K.size),
    )


def _jackknife(residual_K: Array, p_K: Array) -> tuple[float, float]:
    """Standard error of a weighted mean by leaving out one client at a time, and its degrees of freedom."""
    num_clients = p_K.size
    # Without client k the mean moves by -p_k e_k / (1 - p_k).
    variance = (num_clients - 1) / num_clients * ((p_K * residual_K / (1 - p_K)) ** 2).sum()
    # tr(H)^2 / tr(H^2) of the quadratic form H = D^(1/2) M M' D^(1/2) that the variance is, D = diag(p^2 / (1 - p)),
    # M = I - 1 p', written out because H has rank one terms only beside its diagonal.
    d_K, pp = p_K**2 / (1 - p_K), float(p_K @ p_K)
    s, sp, spp = d_K.sum(), d_K @ p_K, d_K @ p_K**2
    trace = s - 2 * sp + pp * s
    trace_squared = d_K @ d_K - 4 * d_K**2 @ p_K + 2 * pp * d_K @ d_K + 2 * s * spp + 2 * sp**2
    trace_squared += -4 * pp * s * sp + (pp * s) ** 2
    satterthwaite, kish = trace**2 / trace_squared, 1 / pp - 1
    # Below one degree of freedom Student's quantiles explode; one client outweighs all others there.
    return float(np.sqrt(variance)), float(max(1.0, kish + SATTERTHWAITE_SHARE * (satterthwaite - kish)))


def sign_flip_p(d_K: npt.ArrayLike, *, seed: int = 0, num_patterns: int = NUM_SIGN_PATTERNS) -> float:
    """Return the two-sided p-value of a mean difference when every client's sign is a coin toss.

    Args:
        d_K: (K,) finite differences.
        seed: seeds the sign patterns, where there are too many to try all.
        num_patterns: drawn then; the smallest p-value is one over one more.

    Returns:
        A value in (0, 1], 2^(1-K) at least; NaN for one client, whose sign alone says nothing.

    Raises:
        MetricError: if there are no clients or a value is not finite.

    >>> sign_flip_p([1.0, 1.0, 1.0])
    0.25
    """
    d_K = _scores(d_K)
    d_K = d_K / power_of_two(d_K)
    if d_K.size == 1:
        return float("nan")
    rng = np.random.default_rng([seed, 1])
    observed = abs(d_K.sum())
    # Sums of the same numbers in another order differ by rounding; such a pattern counts as equally extreme.
    threshold = observed - 1e-12 * np.abs(d_K).sum()
    if d_K.size <= MAX_EXACT_CLIENTS:
        patterns = np.arange(2**d_K.size)[:, None] >> np.arange(d_K.size) & 1
        return float((np.abs((1 - 2 * patterns) @ d_K) >= threshold).mean())
    num_extreme = 0
    for begin in range(0, num_patterns, step := max(1, CHUNK // d_K.size)):
        signs = 1 - 2 * rng.integers(2, size=(min(step, num_patterns - begin), d_K.size))
        num_extreme += int((np.abs(signs @ d_K) >= threshold).sum())
    return (num_extreme + 1) / (num_patterns + 1)


def _scores(values: npt.ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise MetricError(f"scores must be a list of at least one client, got shape {array.shape}")
    if not np.isfinite(array).all():
        client = int(np.flatnonzero(~np.isfinite(array))[0])
        raise MetricError(f"client at position {client} has score {array[client]}; drop clients without a score first")
    return array
