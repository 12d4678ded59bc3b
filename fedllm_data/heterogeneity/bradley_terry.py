"""Strengths and win rates of models, for the pool and, shrunk towards it, for every client.

P(a is preferred to b) = 1 / (1 + exp(strength_b - strength_a)) (Bradley and Terry 1952). A client has judged few
pairs of models and often no chain of them connects all; its strengths are those of highest posterior density under a
normal prior around the strengths of the pool, which exist whatever it judged and equal the pool's if it judged
nothing. All clients are solved together by Newton's method with halved steps; the objective is concave.
Symbols: K clients, M models, P pairs of models; `wins_KP` times the first model of a pair won. numpy and SciPy only.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

__all__ = ["client_strengths", "kendall_tau", "win_rate_distance"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

TOLERANCE = 1e-6
"""Largest last step: what remains after it is about its square."""
MAX_STEPS = 100
PRIOR_VOTES = 2.0
"""Votes of the pool that are added to a client's votes on one pair of models before its win rate is compared."""
CHUNK_ENTRIES = 1 << 22
"""Entries of the clients' (M, M) matrices that are in memory at a time."""


def client_strengths(
    wins_KP: IntArray,
    trials_KP: IntArray,
    first_P: IntArray,
    second_P: IntArray,
    centre_M: FloatArray,
    *,
    prior_std: float,
) -> FloatArray:
    """Return (K, M) strengths of highest posterior density, one row a client.

    Args:
        wins_KP: times the first model of the pair was preferred.
        trials_KP: times the client judged the pair.
        first_P: position of the pair's first model.
        second_P: position of its second model.
        centre_M: strengths around which the prior lies.
        prior_std: how far, in log odds, a client's strengths may be expected to lie from the centre.

    >>> one = np.array([0]), np.array([1])
    >>> strengths = client_strengths(np.array([[0]]), np.array([[0]]), *one, np.array([0.5, -0.5]), prior_std=1.0)
    >>> strengths.tolist()
    [[0.5, -0.5]]
    """
    num_clients, num_models = len(wins_KP), len(centre_M)
    strengths_KM = np.tile(centre_M, (num_clients, 1))
    if not num_models or not len(first_P):
        return strengths_KM
    judged = np.flatnonzero(trials_KP.any(axis=1))
    chunk = max(1, CHUNK_ENTRIES // num_models**2)
    for start in range(0, len(judged), chunk):
        part = judged[start : start + chunk]
        strengths_KM[part] = _newton(wins_KP[part], trials_KP[part], first_P, second_P, centre_M, prior_std)
    return strengths_KM


def _newton(
    wins_KP: IntArray,
    trials_KP: IntArray,
    first_P: IntArray,
    second_P: IntArray,
    centre_M: FloatArray,
    prior_std: float,
) -> FloatArray:
    num_clients, num_models = len(wins_KP), len(centre_M)
    precision = prior_std**-2
    strengths_KM = np.tile(centre_M, (num_clients, 1))
    # C cells: the pairs that a client has judged, few of all there are.
    client_C, pair_C = np.nonzero(trials_KP)
    wins_C, trials_C = wins_KP[client_C, pair_C], trials_KP[client_C, pair_C]
    first_C, second_C = first_P[pair_C], second_P[pair_C]
    diagonal = np.arange(num_models)

    def per_client(values_C: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(client_C, values_C, num_clients), np.float64)

    def objective(at_KM: FloatArray) -> FloatArray:
        margin_C = at_KM[client_C, first_C] - at_KM[client_C, second_C]
        likelihood_K = per_client(trials_C * log_expit(-margin_C) + wins_C * margin_C)
        return np.asarray(likelihood_K - precision / 2 * ((at_KM - centre_M) ** 2).sum(axis=1))

    before_K = objective(strengths_KM)
    for _ in range(MAX_STEPS):
        p_C = expit(strengths_KM[client_C, first_C] - strengths_KM[client_C, second_C])
        surprise_C, weight_C = wins_C - trials_C * p_C, trials_C * p_C * (1 - p_C)
        gradient_KM = -precision * (strengths_KM - centre_M)
        np.add.at(gradient_KM, (client_C, first_C), surprise_C)
        np.add.at(gradient_KM, (client_C, second_C), -surprise_C)
        hessian_KMM = np.zeros((num_clients, num_models, num_models))
        hessian_KMM[:, diagonal, diagonal] += precision
        hessian_KMM[client_C, first_C, second_C] -= weight_C
        hessian_KMM[client_C, second_C, first_C] -= weight_C
        np.add.at(hessian_KMM, (client_C, first_C, first_C), weight_C)
        np.add.at(hessian_KMM, (client_C, second_C, second_C), weight_C)
        step_KM = np.linalg.solve(hessian_KMM, gradient_KM[:, :, None])[:, :, 0]
        after_K = objective(strengths_KM + step_KM)
        for _ in range(30):
            worse_K = after_K < before_K - 1e-12 * np.abs(before_K)
            if not worse_K.any():
                break
            step_KM[worse_K] /= 2
            after_K = objective(strengths_KM + step_KM)
        strengths_KM += step_KM
        before_K = after_K
        if np.abs(step_KM).max(initial=0.0) <= TOLERANCE:
            break
    return strengths_KM


def kendall_tau(strengths_KM: FloatArray, reference_M: FloatArray) -> FloatArray:
    """Return Kendall's tau-b of each client's ranking and a reference.

    Returns:
        (K,) in [-1, 1]: 1 for the same order, -1 for the reverse; NaN where either ranks nothing.

    >>> kendall_tau(np.array([[3.0, 2.0, 1.0], [2.0, 3.0, 1.0]]), np.array([9.0, 5.0, 1.0])).round(4).tolist()
    [1.0, 0.3333]
    """
    first_P, second_P = np.triu_indices(len(reference_M), 1)
    order_P = np.sign(reference_M[first_P] - reference_M[second_P])
    order_KP = np.sign(strengths_KM[:, first_P] - strengths_KM[:, second_P])
    scale_K = np.sqrt(np.count_nonzero(order_KP, axis=1) * float(np.count_nonzero(order_P)))
    return np.where(scale_K > 0, order_KP @ order_P / np.maximum(scale_K, 1), np.nan)


def win_rate_distance(wins_KP: IntArray, trials_KP: IntArray) -> FloatArray:
    """Return how far each client's win rates lie from the pool's, (K,); NaN for a client that judged no two models.

    A client's rate on a pair of models is (wins + 2 p) / (trials + 2) with the pool's rate p; the distance is the mean
    of |rate - p| over the pairs of models, weighted by the client's votes.

    >>> win_rate_distance(np.array([[2], [0]]), np.array([[2], [2]])).tolist()
    [0.25, 0.25]
    """
    rate_P = wins_KP.sum(axis=0) / np.maximum(trials_KP.sum(axis=0), 1)
    shift_KP = np.abs(wins_KP - trials_KP * rate_P) / (trials_KP + PRIOR_VOTES)
    votes_K = trials_KP.sum(axis=1)
    return np.where(votes_K > 0, (trials_KP * shift_KP).sum(axis=1) / np.maximum(votes_K, 1), np.nan)
