"""Differences between two methods: over clients and rows (two levels), over seeds, and corrected for many tests.

Symbols: K clients, N rows, S and T seeds of the two methods. Two things make a difference uncertain that a mean over
clients does not show: other clients would have come, and another seed would have trained another adapter. Each is a
`Source` of error with its own degrees of freedom, and the interval is difference -+ sqrt(sum t_i^2 e_i^2), Student's
quantile t_i of each source by itself (Banerjee 1960): under normal errors it covers at least what it says, whatever
the sources' sizes, where Satterthwaite's degrees of freedom do not (two seeds each: 88 %), because two or three seeds
estimate them badly. It is wide with two seeds, as it must be: t with one degree of freedom is 12.7. The variances over
clients and over seeds both hold the interaction of the two, so their sum errs on the safe side.

A trained method of one seed shows no spread between seeds. Beside one of several it is taken to vary as that one does,
but nothing shows that it does, so such an interval does not claim to cover other seeds.

Two levels (clients resampled, then rows within each): Davison & Hinkley 1997, section 3.8; rows counted twice make it
a little wider than it need be where clients have few. Holm's correction (1979) keeps the chance of any false claim
among all tests at the stated level.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from fedllm_data.errors import MetricError
from fedllm_data.heterogeneity import null
from fedllm_eval.scoring.intervals import NUM_SIGN_PATTERNS, sign_flip_p
from fedllm_eval.scoring.rounding import difference_beyond_rounding
from fedllm_eval.scoring.safe_scale import power_of_two

__all__ = ["MethodDifference", "Source", "holm", "method_difference", "two_level_std_error"]

Array = npt.NDArray[np.float64]
SMALLEST_LOG_P = -300.0
"""Below 1e-130 a p-value is as good as 0, and Student's quantiles with one degree of freedom are still numbers."""


@dataclass(frozen=True)
class Source:
    """One thing that makes a difference uncertain."""

    std_error: float
    """Of the difference by this alone; NaN where one client is all there is."""
    num_degrees: float


@dataclass(frozen=True, kw_only=True)
class MethodDifference:
    """Mean over clients and seeds of b - a, and how far off it may be."""

    difference: float
    sources: tuple[Source, ...]
    """Clients first, then the seeds of each trained method, or of both together where they are paired."""
    low: float
    high: float
    p_value: float
    """Two-sided. Sign flips of clients for one seed each, else where the interval ends at 0; NaN for one client."""
    by_sign_flips: bool
    """Whether `p_value` is of sign flips, which K clients cannot bring below 2^(1-K)."""
    higher_fraction: float
    lower_fraction: float
    """Shares of clients; a difference that is rounding is neither higher nor lower."""
    num_clients: int
    num_seeds: tuple[int, int]
    covers_seeds: bool
    """Whether the interval holds for other seeds of the same methods, too: every trained one has several."""

    @property
    def std_error(self) -> float:
        """NaN for one client."""
        return math.hypot(*(source.std_error for source in self.sources))

    def bounds(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided interval at another confidence."""
        half = _half_width(self.sources, (1 - confidence) / 2)
        return self.difference - half, self.difference + half

    def detectable(self, confidence: float = 0.95, power: float = 0.8) -> float:
        """Return the true difference that four in five such comparisons would show; NaN for one client."""
        return _half_width(self.sources, (1 - confidence) / 2) + _half_width(self.sources, 1 - power)


def method_difference(
    a_SK: npt.ArrayLike,
    b_TK: npt.ArrayLike,
    *,
    paired_seeds: bool = False,
    a_fixed: bool = False,
    b_fixed: bool = False,
    std_error: float | None = None,
    rounding: float = 0.0,
    confidence: float = 0.95,
    num_patterns: int = NUM_SIGN_PATTERNS,
    seed: int = 0,
) -> MethodDifference:
    """Compare two methods over the same clients, each trained with one or more seeds.

    Args:
        a_SK: (S, K) finite scores of the baseline, a row a seed, a column a client.
        b_TK: (T, K) scores of the other, clients in the same order.
        paired_seeds: row s of both was trained with the same seed (same cohorts, same order of rows).
        a_fixed: the baseline is no trained method (a base model): another seed would change nothing.
        b_fixed: the same of the other.
        std_error: standard error of the difference where two levels were resampled; by default over clients alone.
        rounding: an absolute difference that is none, as in `rounding.difference_beyond_rounding`.
        confidence: level of the interval.
        num_patterns: patterns of sign flips that are drawn, where there are too many to try all.
        seed: seeds the sign flips.

    Returns:
        Where both methods have one seed, what `paired_difference` gives.

    Raises:
        MetricError: if a side is empty, the clients differ in number, or a score is not finite.

    >>> found = method_difference([[1.0, 2.0, 3.0]], [[2.0, 3.0, 5.0]])
    >>> round(found.difference, 2), found.covers_seeds
    (1.33, False)
    """
    a, b = _scores(a_SK), _scores(b_TK)
    if a.shape[1] != b.shape[1]:
        raise MetricError(f"{a.shape[1]} clients against {b.shape[1]}; pair the scores of the same clients")
    if paired_seeds and a.shape != b.shape:
        raise MetricError(f"{a.shape[0]} seeds against {b.shape[0]} cannot be paired; score both methods' seeds")
    num_clients, num_seeds = a.shape[1], (a.shape[0], b.shape[0])
    scale = power_of_two(a, b)
    a, b = a / scale, b / scale
    d_K = difference_beyond_rounding(a.mean(axis=0), b.mean(axis=0), rounding / scale)
    difference = float(d_K.mean()) * scale
    # Equal differences come out unequal in the last bit; that is no spread.
    flat = bool(np.ptp(d_K) <= 1e-12 * np.abs(d_K).max()) if num_clients > 1 else False
    if num_clients == 1:
        over_clients = float("nan")
    elif std_error is not None:
        over_clients = std_error
    else:
        over_clients = 0.0 if flat else scale * math.sqrt(d_K.var(ddof=1) / num_clients)
    seeds, covers = _seed_sources(a.mean(axis=1), b.mean(axis=1), paired_seeds, a_fixed, b_fixed)
    seeds = tuple(Source(source.std_error * scale, source.num_degrees) for source in seeds)
    sources = (Source(over_clients, max(1, num_clients - 1)), *seeds)
    by_sign_flips = not any(source.std_error > 0 for source in seeds) and not std_error
    half = _half_width(sources, (1 - confidence) / 2)
    return MethodDifference(
        difference=difference,
        sources=sources,
        low=difference - half,
        high=difference + half,
        p_value=sign_flip_p(d_K, seed=seed, num_patterns=num_patterns) if by_sign_flips else _p(difference, sources),
        by_sign_flips=by_sign_flips,
        higher_fraction=float((d_K > 0).mean()),
        lower_fraction=float((d_K < 0).mean()),
        num_clients=num_clients,
        num_seeds=num_seeds,
        covers_seeds=covers,
    )


def two_level_std_error(
    a_values_N: npt.ArrayLike,
    b_values_N: npt.ArrayLike,
    weights_N: npt.ArrayLike,
    client_N: npt.ArrayLike,
    *,
    num_resamples: int = 1_000,
    seed: int = 0,
) -> float:
    """Return the standard error of a mean difference over clients, clients resampled and rows within clients.

    Args:
        a_values_N: (N,) finite scores of the rows under the baseline.
        b_values_N: (N,) scores of the same rows under the other.
        weights_N: (N,) positive weights of rows within their client, such as tokens.
        client_N: (N,) client of each row, any labels.
        num_resamples: resamples of the bootstrap; 1,000 leave 2 % of noise.
        seed: seeds the bootstrap.

    Returns:
        The spread of the resampled means, times sqrt(K / (K - 1)), which a bootstrap of K clients lacks; NaN for one
        client.

    Raises:
        MetricError: if there are no rows, lengths differ, or values or weights make no sense.

    >>> bool(two_level_std_error([0.0] * 4, [1.0, 2.0, 3.0, 4.0], [1.0] * 4, ["a", "a", "b", "b"]) > 0.5)
    True
    """
    d_N = np.asarray(b_values_N, dtype=np.float64) - np.asarray(a_values_N, dtype=np.float64)
    weights = np.asarray(weights_N, dtype=np.float64)
    clients = np.asarray(client_N)
    if d_N.ndim != 1 or d_N.size == 0 or not (d_N.shape == weights.shape == clients.shape):
        raise MetricError(f"rows need a value under both, a weight and a client each, got shapes {d_N.shape}")
    if not (np.isfinite(d_N).all() and (weights > 0).all()):
        raise MetricError("rows need finite values and positive weights; drop rows without a score first")
    # Sorted by client and value, so that the order of rows changes nothing.
    order = np.lexsort((weights, d_N, clients))
    d_N, weights, clients = d_N[order], weights[order], clients[order]
    starts = np.flatnonzero(np.r_[True, clients[1:] != clients[:-1]])
    sizes = np.diff(np.r_[starts, d_N.size])
    num_clients = starts.size
    if num_clients == 1:
        return float("nan")
    rng = np.random.default_rng(seed)
    scale = power_of_two(d_N)
    d_N, weights = d_N / scale, weights / power_of_two(weights)
    means = np.empty(num_resamples)
    for resample in range(num_resamples):
        drawn = rng.integers(num_clients, size=num_clients)
        counts = sizes[drawn]
        rows = np.repeat(starts[drawn], counts) + (rng.random(counts.sum()) * np.repeat(counts, counts)).astype(int)
        edges = np.r_[0, np.cumsum(counts)[:-1]]
        sums = np.add.reduceat(d_N[rows] * weights[rows], edges)
        means[resample] = (sums / np.add.reduceat(weights[rows], edges)).mean()
    return float(means.std(ddof=1) * np.sqrt(num_clients / (num_clients - 1))) * scale


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given; NaN stays NaN and counts as no test.

    Raises:
        MetricError: if a value is outside [0, 1].

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p))
    if ((p[tested] < 0) | (p[tested] > 1)).any():
        raise MetricError(f"p-values lie in [0, 1], got {p.tolist()[:5]}")
    adjusted = p.copy()
    adjusted[tested] = null.holm(p[tested].tolist())
    return [float(value) for value in adjusted]


def _half_width(sources: Sequence[Source], tail: float) -> float:
    """Half of the interval that leaves `tail` on either side: sqrt(sum t_i^2 e_i^2)."""
    # The inverse of Student's distribution itself: `stats.t.isf` is the same, ten times as slow on single numbers.
    halves = [-float(special.stdtrit(source.num_degrees, tail)) * source.std_error for source in sources]
    return math.hypot(*halves)


def _p(difference: float, sources: Sequence[Source]) -> float:
    """One minus the confidence at which the interval ends at 0; NaN where there is no interval."""
    if any(math.isnan(source.std_error) for source in sources):
        return float("nan")

    if difference == 0:
        return 1.0
    scale = power_of_two(difference)
    difference = difference / scale
    sources = [Source(source.std_error / scale, source.num_degrees) for source in sources]

    def beyond(log_p: float) -> float:
        half = _half_width(sources, math.exp(log_p) / 2)
        # On a log scale it is nearly straight; at p = 1 the interval has no width.
        return math.log(half / abs(difference)) if half > 0 else -1.0

    if beyond(SMALLEST_LOG_P) <= 0:
        return math.exp(SMALLEST_LOG_P)
    from scipy import optimize

    return math.exp(optimize.brentq(beyond, SMALLEST_LOG_P, 0.0, xtol=1e-10))


def _seed_sources(
    a_S: Array, b_T: Array, paired: bool, a_fixed: bool, b_fixed: bool
) -> tuple[tuple[Source, ...], bool]:
    """The variance of the difference between seeds as far as it is known, and whether all of it is."""
    if paired and a_S.size > 1:
        return (Source(_spread(b_T - a_S) / math.sqrt(a_S.size), a_S.size - 1),), True
    trained = [x_S for x_S, fixed in ((a_S, a_fixed), (b_T, b_fixed)) if not fixed]
    several = [x_S for x_S in trained if x_S.size > 1]
    if len(several) == 1 and len(trained) == 2:
        # One estimate serves for both: a single source, not two that would seem to be known independently.
        (x_S,) = several
        return (Source(_spread(x_S) * math.sqrt(1 / a_S.size + 1 / b_T.size), x_S.size - 1),), False
    found = tuple(Source(_spread(x_S) / math.sqrt(x_S.size), x_S.size - 1) for x_S in several)
    return found, len(several) == len(trained)


def _spread(x_S: Array) -> float:
    """Standard deviation between seeds; 0 where they differ in the last bit alone."""
    return 0.0 if np.ptp(x_S) <= 1e-12 * np.abs(x_S).max() else float(x_S.std(ddof=1))


def _scores(values: npt.ArrayLike) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or array.size == 0:
        raise MetricError(f"scores must be a table of seeds by clients, got shape {array.shape}")
    if not np.isfinite(array).all():
        at = np.argwhere(~np.isfinite(array))[0].tolist()
        raise MetricError(f"seed {at[0]}, client {at[1]} has no finite score; drop clients without a score first")
    return array
