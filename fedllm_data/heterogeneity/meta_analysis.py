"""How much clients' effects differ beyond sampling: DerSimonian and Laird's moments, and shrinkage of small clients.

A client with few rows has an extreme share by chance. Meta-analysis separates the two: Q is the sum of squared
deviations in units of their sampling variance, about its degrees of freedom if nothing differs; what is above gives
tau squared, the variance of the clients' true effects, and I squared, the share of Q beyond sampling (DerSimonian and
Laird 1986, eq. 6 to 8; Higgins and Thompson 2002). We do not cut either off at 0: a value just below 0 is what chance
gives, and a cut would hide on which side of it a null lies.
Symbols: R draws, K clients, S strata (kinds of choices with two outcomes each). Functions of draws take arrays of
one draw, too, without the first axis. numpy only.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Dispersion", "beta_binomial_shares", "dersimonian_laird", "stratified_dispersion"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NAN = float("nan")


@dataclass(frozen=True)
class Dispersion:
    """What Q says, (R,) each; all parts are NaN with fewer than two clients that carry information."""

    q: FloatArray
    degrees: FloatArray
    """Expected Q if the clients do not differ."""
    tau_squared: FloatArray
    """Variance of the clients' effects beyond sampling; 0 if they do not differ, below if less than chance."""
    i_squared: FloatArray
    """(Q - degrees) / Q: the share of the spread that is not sampling; at most 1."""


def _dispersion(
    q_R: FloatArray, degrees_R: FloatArray, scale_R: FloatArray, is_known_R: NDArray[np.bool_]
) -> Dispersion:
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = q_R, degrees_R, (q_R - degrees_R) / scale_R, np.where(q_R > 0, (q_R - degrees_R) / q_R, 0.0)
    return Dispersion(*(np.where(is_known_R, part_R, NAN) for part_R in parts))


def dersimonian_laird(effect_RK: FloatArray, variance_RK: FloatArray) -> Dispersion:
    """Return how much effects of known sampling variance differ.

    Args:
        effect_RK: one estimate a client, in every draw, or (K,) of one.
        variance_RK: its sampling variance, above 0; infinite for a client that knows nothing, which is left out.

    >>> round(float(dersimonian_laird(np.array([0.0, 2.0]), np.array([1.0, 1.0])).tau_squared), 6)
    1.0
    """
    weight_RK = 1 / variance_RK
    num_known_R = np.count_nonzero(weight_RK, axis=-1)
    total_R = weight_RK.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_R = (weight_RK * effect_RK).sum(axis=-1) / total_R
        scale_R = total_R - (weight_RK**2).sum(axis=-1) / total_R
    q_R = (weight_RK * (effect_RK - mean_R[..., None]) ** 2).sum(axis=-1)
    return _dispersion(q_R, num_known_R - 1.0, scale_R, num_known_R > 1)


def stratified_dispersion(successes_RKS: IntArray, trials_RKS: IntArray) -> Dispersion:
    """Return how much the clients' log odds of success differ, given which choices they met.

    A client's effect is Peto's one-step log odds ratio (O - E) / V: O its successes, E what the rates of the pool give
    for the strata it met, V the binomial variance of that. It needs no correction for clients who always chose alike;
    in return it is a first-order estimate, which understates a large spread (a true 0.36 reads as 0.27 or so).
    With one stratum these are DerSimonian and Laird's moments; with many, a stratum in which a client is nearly alone
    tells nothing about how it differs, so the degrees of freedom and the scale take the hypergeometric variance,
    V (N - n) / (N - 1), which is exact when outcomes are shuffled among the clients of a stratum.

    Args:
        successes_RKS: times each client chose the first outcome, in every draw, or (K, S) of one.
        trials_RKS: times it met the choice.

    >>> even = stratified_dispersion(np.array([[5], [5]]), np.array([[10], [10]]))
    >>> float(even.q), round(float(even.tau_squared), 4)
    (0.0, -0.4)
    """
    met_RKS = trials_RKS.astype(np.float64)
    total_RS, chosen_RS = met_RKS.sum(axis=-2), successes_RKS.sum(axis=-2)
    # A stratum in which all chose alike has no variance and excess 0 for every client.
    rate_RS = chosen_RS / np.maximum(total_RS, 1)
    unit_RS = rate_RS * (1 - rate_RS)
    others_RS = np.maximum(total_RS - 1, 1)
    excess_RK = successes_RKS.sum(axis=-1) - _over_strata(met_RKS, rate_RS)
    variance_RK = _over_strata(met_RKS, unit_RS)
    # sum of n unit (N - n) / (N - 1), without another (R, K, S) array.
    exact_RK = _over_strata(met_RKS, unit_RS * total_RS / others_RS)
    exact_RK -= _over_strata(np.square(met_RKS, out=met_RKS), unit_RS / others_RS)
    is_informed_RK = variance_RK > 0
    exact_RK = np.where(is_informed_RK, exact_RK, 0.0)
    scale_R = exact_RK.sum(axis=-1)
    known_RK = np.where(is_informed_RK, variance_RK, 1.0)
    q_R = (np.where(is_informed_RK, excess_RK**2, 0.0) / known_RK).sum(axis=-1)
    is_known_R = (np.count_nonzero(is_informed_RK, axis=-1) > 1) & (scale_R > 1e-9)
    return _dispersion(q_R, (exact_RK / known_RK).sum(axis=-1), scale_R, is_known_R)


def _over_strata(met_RKS: FloatArray, value_RS: FloatArray) -> FloatArray:
    return np.asarray((met_RKS @ value_RS[..., None])[..., 0])


def beta_binomial_shares(successes_K: IntArray, trials_K: IntArray) -> tuple[FloatArray, float]:
    """Return every client's share of successes, shrunk to the pool as far as the spread of the clients asks for.

    The clients' probabilities are taken to be Beta(m p, m (1 - p)); the prior's weight m, in rows, is
    (1 - rho) / rho with the analysis-of-variance estimate of rho (Kleinman 1973; Ridout et al. 1999), and a client's
    share is (s + m p) / (n + m). If rho is 0 or less, every client gets the share of the pool.

    Returns:
        (K,) shares, and rho: 0 when the clients do not differ, 1 when each always chooses alike, NaN if unknown.

    >>> shares, rho = beta_binomial_shares(np.array([4, 0]), np.array([4, 4]))
    >>> shares.tolist(), rho
    ([1.0, 0.0], 1.0)
    """
    has_K = trials_K > 0
    num_clients, num_rows = int(np.count_nonzero(has_K)), int(trials_K.sum())
    if num_rows == 0:
        return np.full(len(trials_K), NAN), NAN
    pooled = float(successes_K.sum() / num_rows)
    unshrunk_K = successes_K / np.maximum(trials_K, 1)
    if num_clients < 2 or num_rows <= num_clients or not 0 < pooled < 1:
        return np.full(len(trials_K), pooled), NAN
    between = float(trials_K @ (unshrunk_K - pooled) ** 2) / (num_clients - 1)
    within = float(trials_K @ (unshrunk_K * (1 - unshrunk_K))) / (num_rows - num_clients)
    typical = (num_rows - float(trials_K @ trials_K) / num_rows) / (num_clients - 1)
    rho = (between - within) / (between + (typical - 1) * within)
    if rho <= 0:
        return np.full(len(trials_K), pooled), rho
    weight = (1 - rho) / rho
    return np.where(has_K, (successes_K + weight * pooled) / np.maximum(trials_K + weight, 1e-300), pooled), rho
