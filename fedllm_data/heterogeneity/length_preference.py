"""How much more likely a longer answer is chosen: one logistic coefficient for the pool and one for each client.

P(the longer of two answers is chosen) = 1 / (1 + exp(-coefficient * log_ratio)), without an intercept: neither answer
comes first. With lengths in bins the likelihood is exact at the bins' middles. A coefficient of 1 says that an answer
twice as long has odds of 2 to 1; 0 that length does not matter. Nearly separable choices have no finite coefficient,
so a prior holds it: a wide one for the pool, the pool for a client.
Symbols: K clients, B bins; `longer_KB` times the longer was chosen out of `trials_KB`. numpy and SciPy only.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fedllm_data.heterogeneity.meta_analysis import Dispersion, dersimonian_laird

__all__ = ["client_coefficients", "coefficient_dispersion", "length_coefficient"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

POOL_PRIOR_STD = 10.0
"""Wide: an odds ratio of 2^10 for a doubling lies within one standard deviation."""


def length_coefficient(longer_B: IntArray, trials_B: IntArray, log_ratio_B: FloatArray) -> float:
    """Return the coefficient of the pool; NaN if no two answers differ in length.

    >>> round(length_coefficient(np.array([200]), np.array([300]), np.log([2.0])), 2)
    1.0
    """
    if not trials_B.sum():
        return float("nan")
    pooled_K, _ = _modes(longer_B[None, :], trials_B[None, :], log_ratio_B, 0.0, POOL_PRIOR_STD**-2)
    return float(pooled_K[0])


def coefficient_dispersion(longer_KB: IntArray, trials_KB: IntArray, log_ratio_B: FloatArray) -> Dispersion:
    """Return how much the clients' coefficients differ beyond sampling.

    A client's effect is its one-step estimate from the pool's coefficient, score over information, which exists also
    where it always chose alike.

    >>> coefficient_dispersion(np.array([[9], [0]]), np.array([[9], [9]]), np.log([2.0])).tau_squared > 1
    True
    """
    pooled = length_coefficient(longer_KB.sum(axis=0), trials_KB.sum(axis=0), log_ratio_B)
    if np.isnan(pooled):
        return dersimonian_laird(np.zeros(0), np.zeros(0))
    p_B = expit(pooled * log_ratio_B)
    score_K = longer_KB @ log_ratio_B - trials_KB @ (p_B * log_ratio_B)
    information_K = trials_KB @ (p_B * (1 - p_B) * log_ratio_B**2)
    known_K = information_K > 1e-12
    return dersimonian_laird(score_K[known_K] / information_K[known_K], 1 / information_K[known_K])


def client_coefficients(
    longer_KB: IntArray, trials_KB: IntArray, log_ratio_B: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return every client's coefficient, shrunk to the pool, and the standard error its own rows would give.

    The prior is normal around the pool's coefficient with the variance tau squared of `coefficient_dispersion`; where
    that is not above 0, every client has the pool's. The error is infinite for a client whose answers never differ in
    length.

    >>> client_coefficients(np.array([[2], [2]]), np.array([[3], [3]]), np.log([2.0]))[0].round(2).tolist()
    [0.98, 0.98]
    """
    pooled = length_coefficient(longer_KB.sum(axis=0), trials_KB.sum(axis=0), log_ratio_B)
    tau_squared = coefficient_dispersion(longer_KB, trials_KB, log_ratio_B).tau_squared
    if not tau_squared > 0:
        information_K = _information(np.full(len(longer_KB), pooled), trials_KB, log_ratio_B)
        return np.full(len(longer_KB), pooled), _error(information_K)
    coefficient_K, information_K = _modes(longer_KB, trials_KB, log_ratio_B, pooled, 1 / tau_squared)
    return coefficient_K, _error(information_K)


def _error(information_K: FloatArray) -> FloatArray:
    return np.where(information_K > 1e-12, 1 / np.sqrt(np.maximum(information_K, 1e-12)), np.inf)


def _information(coefficient_K: FloatArray, trials_KB: IntArray, log_ratio_B: FloatArray) -> FloatArray:
    p_KB = expit(coefficient_K[:, None] * log_ratio_B)
    return np.asarray((trials_KB * p_KB * (1 - p_KB)) @ log_ratio_B**2)


def _modes(
    longer_KB: IntArray, trials_KB: IntArray, log_ratio_B: FloatArray, centre: float, precision: float
) -> tuple[FloatArray, FloatArray]:
    """Find the posterior modes by bisection of the decreasing derivative, and the likelihood's information there."""
    won_K = longer_KB @ log_ratio_B
    # At the mode, precision * |mode - centre| is at most the largest score that is possible.
    reach_K = (trials_KB @ log_ratio_B) / precision + 1e-12
    low_K, high_K = centre - reach_K, centre + reach_K
    mode_K = (low_K + high_K) / 2
    for _ in range(200):
        p_KB = expit(mode_K[:, None] * log_ratio_B)
        slope_K = won_K - (trials_KB * p_KB) @ log_ratio_B - precision * (mode_K - centre)
        low_K, high_K = np.where(slope_K > 0, mode_K, low_K), np.where(slope_K > 0, high_K, mode_K)
        # Newton's step where it stays between the bounds, else their middle.
        newton_K = mode_K + slope_K / (_information(mode_K, trials_KB, log_ratio_B) + precision)
        inside_K = (newton_K > low_K) & (newton_K < high_K)
        next_K = np.where(inside_K, newton_K, (low_K + high_K) / 2)
        done = np.abs(next_K - mode_K).max(initial=0.0) < 1e-12 * (1 + np.abs(next_K).max(initial=0.0))
        mode_K = next_K
        if done:
            break
    return mode_K, _information(mode_K, trials_KB, log_ratio_B)
