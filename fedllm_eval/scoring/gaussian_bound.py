"""A lower bound on epsilon from scores that are normal: what one-run audits reach if the mechanism is known.

The bound of `epsilon_bound.py` assumes nothing of the mechanism and pays for it: of a Gaussian mechanism it shows half
to two thirds. Where noise is Gaussian and every unit is in every round, the mechanism is exactly mu-Gaussian private
(Dong, Roth & Su 2022, "Gaussian Differential Privacy"), and the scores of worst-case canaries along orthogonal
directions are independent normals of one spread, whose means lie mu spreads apart. The exact lower confidence limit of
mu follows from the noncentral t distribution; mu and delta give epsilon by Balle & Wang 2018 (arXiv 1805.06530,
theorem 8):

    delta(epsilon) = Phi(mu / 2 - epsilon / mu) - e^epsilon Phi(-mu / 2 - epsilon / mu).

With Poisson cohorts or other scores this is no bound: use `one_run_bound`.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from fedllm_data.errors import MetricError

__all__ = ["gaussian_epsilon", "lowest_separation"]

LARGEST_SEPARATION = 1e3


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return the epsilon of a mu-Gaussian private mechanism at a delta.

    Args:
        mu: sensitivity / standard deviation of the noise, for T rounds with noise z each sqrt(T) / z; 0 or more.
        delta: in (0, 1).

    Raises:
        MetricError: if a number is out of range.

    >>> round(gaussian_epsilon(1.0, 1e-5), 2)  # 100 rounds at z = 10
    4.38
    >>> gaussian_epsilon(0.0, 1e-5)
    0.0
    """
    if not 0 <= mu <= LARGEST_SEPARATION or not 0 < delta < 1:
        raise MetricError(f"mu {mu} and delta {delta}: mu is in [0, {LARGEST_SEPARATION:g}], and delta in (0, 1)")
    if mu == 0:
        return 0.0

    def beyond(epsilon: float) -> float:
        log_second = epsilon + float(stats.norm.logcdf(-mu / 2 - epsilon / mu))
        return float(stats.norm.cdf(mu / 2 - epsilon / mu)) - math.exp(log_second) - delta

    if beyond(0.0) <= 0:
        return 0.0
    high = 1.0
    while beyond(high) > 0:
        high *= 2
    return float(optimize.brentq(beyond, 0.0, high, xtol=1e-9))


def lowest_separation(in_M: npt.ArrayLike, out_N: npt.ArrayLike, *, confidence: float = 0.95) -> float:
    """Return the lower confidence limit of how many spreads apart two normal samples of one spread lie; at least 0.

    Args:
        in_M: (M,) scores, 2 or more.
        out_N: (N,) scores, 2 or more.
        confidence: that the separation is at least the limit.

    Raises:
        MetricError: if there are too few scores, one is not finite, or all are alike.

    >>> lowest_separation([0.0, 1.0, 2.0], [0.0, 1.0, 2.0])
    0.0
    """
    inside, outside = np.asarray(in_M, dtype=np.float64), np.asarray(out_N, dtype=np.float64)
    if min(inside.size, outside.size) < 2 or not (np.isfinite(inside).all() and np.isfinite(outside).all()):
        raise MetricError(f"{inside.size} and {outside.size} scores; give two finite ones a side at least")
    if not 0 < confidence < 1:
        raise MetricError(f"confidence is {confidence}; it is a number between 0 and 1, such as 0.95")
    freedom = inside.size + outside.size - 2
    spread = math.sqrt((inside.var() * inside.size + outside.var() * outside.size) / freedom)
    if spread == 0:
        raise MetricError("all scores of a side are alike, so they are not normal; use the bound that assumes nothing")
    width = math.sqrt(1 / inside.size + 1 / outside.size)
    found = float(inside.mean() - outside.mean()) / spread / width
    # P[t >= found] rises with the noncentrality; the limit is where it is the allowed error.
    error = 1 - confidence
    if stats.t.sf(found, freedom) >= error:
        return 0.0

    def beyond(shift: float) -> float:
        return float(stats.nct.sf(found, freedom, shift)) - error

    return float(optimize.brentq(beyond, 0.0, found + 1.0, xtol=1e-9)) * width
