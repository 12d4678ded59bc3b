"""How much more likely a longer answer is chosen: one logistic coefficient for the pool and one for each client.

P(the longer of two answers is chosen) = 1 / (1 + exp(-coefficient * log_ratio)), without an intercept: neither answer
comes first. With lengths in bins the likelihood is exact at the bins' middles. A coefficient of 1 says that an answer
twice as long has odds of 2 to 1; 0 that length does not matter. Nearly separable choices have no finite coefficient,
so a prior holds it: a wide one for the pool, the pool for a client.
Symbols: R draws, K clients, B bins; `longer_KB` times the longer was chosen out of `trials_KB`. numpy and SciPy only.
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


def length_coefficient(longer_RB: IntArray, trials_RB: IntArray, log_ratio_B: FloatArray) -> FloatArray:
    """Return the coefficient of the pool in every draw, (R,); NaN if no two answers differ in length.

    >>> round(float(length_coefficient(np.array([200]), np.array([300]), np.log([2.0]))), 2)
    1.0
    """
    longer_1RB, trials_1RB = np.atleast_2d(longer_RB), np.atleast_2d(trials_RB)
    pooled_1R, _ = _modes(longer_1RB, trials_1RB, log_ratio_B, 0.0, POOL_PRIOR_STD**-2)
    return np.where(trials_RB.any(axis=-1), pooled_1R.reshape(trials_RB.shape[:-1]), np.nan)


def coefficient_dispersion(longer_RKB: IntArray, trials_RKB: IntArray, log_ratio_B: FloatArray) -> Dispersion:
    """Return how much the clients' coefficients differ beyond sampling, in every draw, or of one (K, B).

    A client's effect is its one-step estimate from the pool's coefficient, score over information, which exists also
    where it always chose alike.

    >>> bool(coefficient_dispersion(np.array([[9], [0]]), np.array([[9], [9]]), np.log([2.0])).tau_squared > 1)
    True
    """
    pooled_R = length_coefficient(longer_RKB.sum(axis=-2), trials_RKB.sum(axis=-2), log_ratio_B)
    p_RB = expit(np.nan_to_num(pooled_R)[..., None] * log_ratio_B)
    score_RK = longer_RKB @ log_ratio_B - (trials_RKB @ (p_RB * log_ratio_B)[..., None])[..., 0]
    information_RK = (trials_RKB @ (p_RB * (1 - p_RB) * log_ratio_B**2)[..., None])[..., 0]
    is_known_RK = information_RK > 1e-12
    information_RK = np.where(is_known_RK, information_RK, 1.0)
    return dersimonian_laird(score_RK / information_RK, np.where(is_known_RK, 1 / information_RK, np.inf))


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
    pooled = float(length_coefficient(longer_KB.sum(axis=0), trials_KB.sum(axis=0), log_ratio_B))
    tau_squared = float(coefficient_dispersion(longer_KB, trials_KB, log_ratio_B).tau_squared)
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
        is_done_K = np.abs(next_K - mode_K) < 1e-12 * (1 + np.abs(next_K))
        mode_K = next_K
        if is_done_K.all():
            break
    return mode_K, _information(mode_K, trials_KB, log_ratio_B)
