"""Strengths and win rates of models, for the pool and, shrunk towards it, for every client.

P(a is preferred to b) = 1 / (1 + exp(strength_b - strength_a)) (Bradley and Terry 1952). A client has judged few
pairs of models and often no chain of them connects all; its strengths are those of highest posterior density under a
normal prior around the strengths of the pool, which exist whatever it judged and equal the pool's if it judged
nothing. All clients are solved together by Newton's method with halved steps; the objective is concave.
Symbols: N clients (of one set or of several draws), R draws, K clients of a draw, M models, P pairs of models; `wins`
are the times the first model of a pair won. numpy and SciPy only.
"""

from functools import reduce
from typing import NamedTuple

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
SURE_STEP = 1.75
"""A step that changes no margin by more than this leads up."""
CHUNK_ENTRIES = 1 << 17
"""Entries of the clients' (M, M) matrices that are in memory at a time: 1 MB, which stays near the processor."""


def client_strengths(
    wins_NP: IntArray,
    trials_NP: IntArray,
    pairs: tuple[IntArray, IntArray],
    centre_M: FloatArray,
    *,
    prior_std: float,
    start_NM: FloatArray | None = None,
    order_only: bool = False,
) -> FloatArray:
    """Return (N, M) strengths of highest posterior density, one row a client.

    Args:
        wins_NP: times the first model of the pair was preferred.
        trials_NP: times the client judged the pair.
        pairs: positions of every pair's first models and of its second models.
        centre_M: strengths around which the prior lies: the same for all, or (N, M).
        prior_std: how far, in log odds, a client's strengths may be expected to lie from the centre.
        start_NM: strengths near the sought ones, if any are known; by default the centre. They change how long it
            takes, and the result within its accuracy.
        order_only: stop as soon as the order of a client's models is proven; its strengths are then near the mode and
            in the mode's order.

    >>> one = np.array([0]), np.array([1])
    >>> strengths = client_strengths(np.array([[0]]), np.array([[0]]), one, np.array([0.5, -0.5]), prior_std=1.0)
    >>> strengths.tolist()
    [[0.5, -0.5]]
    """
    num_models = centre_M.shape[-1]
    centre_NM = np.broadcast_to(centre_M, (len(wins_NP), num_models))
    strengths_NM = centre_NM.copy()
    if not num_models or not len(pairs[0]):
        return strengths_NM
    judged = np.flatnonzero(trials_NP.any(axis=1))
    chunk = max(1, CHUNK_ENTRIES // num_models**2)
    for first in range(0, len(judged), chunk):
        part = judged[first : first + chunk]
        posterior = _Posterior.of(wins_NP[part], trials_NP[part], pairs, centre_NM[part], prior_std**-2)
        at_NM = (centre_NM if start_NM is None else start_NM)[part]
        strengths_NM[part] = _modes(posterior, at_NM, order_only=order_only)
    return strengths_NM


class _Posterior(NamedTuple):
    """The log posterior densities of N clients. C cells: the pairs that a client has judged, few of all there are."""

    client_C: IntArray
    first_C: IntArray
    """Places of the pair's first models in N x M entries."""
    second_C: IntArray
    wins_C: FloatArray
    trials_C: FloatArray
    centre_NM: FloatArray
    precision: float

    @classmethod
    def of(
        cls,
        wins_NP: IntArray,
        trials_NP: IntArray,
        pairs: tuple[IntArray, IntArray],
        centre_NM: FloatArray,
        precision: float,
    ) -> "_Posterior":
        client_C, pair_C = np.nonzero(trials_NP)
        first_C, second_C = (client_C * centre_NM.shape[1] + side_P[pair_C] for side_P in pairs)
        wins_C, trials_C = (np.asarray(part[client_C, pair_C], np.float64) for part in (wins_NP, trials_NP))
        return cls(client_C, first_C, second_C, wins_C, trials_C, centre_NM, precision)

    def of_clients(self, is_kept_N: NDArray[np.bool_]) -> "_Posterior":
        """Return those of some of the clients."""
        num_models = self.centre_NM.shape[1]
        is_kept_C = is_kept_N[self.client_C]
        client_C = self.client_C[is_kept_C]
        position_C = (np.cumsum(is_kept_N) - 1)[client_C]
        shift_C = (position_C - client_C) * num_models
        first_C, second_C = self.first_C[is_kept_C] + shift_C, self.second_C[is_kept_C] + shift_C
        wins_C, trials_C = self.wins_C[is_kept_C], self.trials_C[is_kept_C]
        return _Posterior(position_C, first_C, second_C, wins_C, trials_C, self.centre_NM[is_kept_N], self.precision)

    def densities(self, at_NM: FloatArray) -> FloatArray:
        """Return the (N,) logarithms, up to a constant."""
        margin_C = self._margins(at_NM)
        value_C = self.trials_C * log_expit(-margin_C) + self.wins_C * margin_C
        likelihood_N = np.bincount(self.client_C, value_C, len(at_NM))
        return np.asarray(likelihood_N - self.precision / 2 * ((at_NM - self.centre_NM) ** 2).sum(axis=1))

    def slopes(self, at_NM: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the (N, M) gradients, and how often each cell's first model would win."""
        p_C = expit(self._margins(at_NM))
        surprise_C = self.wins_C - self.trials_C * p_C
        flat = np.bincount(self.first_C, surprise_C, at_NM.size) - np.bincount(self.second_C, surprise_C, at_NM.size)
        return flat.reshape(at_NM.shape) - self.precision * (at_NM - self.centre_NM), p_C

    def steps(self, gradient_NM: FloatArray, p_C: FloatArray) -> FloatArray:
        """Return Newton's (N, M) steps."""
        num_clients, num_models = gradient_NM.shape
        weight_C = self.trials_C * p_C * (1 - p_C)
        hessian_NMM = np.zeros((num_clients, num_models, num_models))
        # A cell stands at (first, second) and (second, first); the rows of the likelihood's part add up to 0.
        row_NM = hessian_NMM.reshape(num_clients * num_models, num_models)
        row_NM[self.first_C, self.second_C % num_models] = -weight_C
        row_NM[self.second_C, self.first_C % num_models] = -weight_C
        diagonal = np.arange(num_models)
        hessian_NMM[:, diagonal, diagonal] = self.precision - (row_NM @ np.ones(num_models)).reshape(gradient_NM.shape)
        return np.asarray(np.linalg.solve(hessian_NMM, gradient_NM[:, :, None])[:, :, 0])

    def _margins(self, at_NM: FloatArray) -> FloatArray:
        flat = at_NM.ravel()
        return np.asarray(flat[self.first_C] - flat[self.second_C])


def _modes(posterior: _Posterior, start_NM: FloatArray, *, order_only: bool) -> FloatArray:
    """Newton's method for all clients together; one that is done is left as it is."""
    found_NM, at_NM = start_NM.copy(), start_NM
    active = np.arange(len(start_NM))
    for _ in range(MAX_STEPS):
        gradient_NM, p_C = posterior.slopes(at_NM)
        if order_only:
            is_open_N = ~_is_order_proven(at_NM, gradient_NM, posterior.precision)
            if not is_open_N.all():
                p_C = p_C[is_open_N[posterior.client_C]]
                posterior, active = posterior.of_clients(is_open_N), active[is_open_N]
                at_NM, gradient_NM = at_NM[is_open_N], gradient_NM[is_open_N]
                if not len(active):
                    break
        step_NM = _ascending(posterior, at_NM, posterior.steps(gradient_NM, p_C))
        at_NM = at_NM + step_NM
        found_NM[active] = at_NM
        is_open_N = _largest(np.abs(step_NM)) > TOLERANCE
        if not is_open_N.any():
            break
        if not is_open_N.all():
            posterior, active, at_NM = posterior.of_clients(is_open_N), active[is_open_N], at_NM[is_open_N]
    return found_NM


def _largest(values_NM: FloatArray) -> FloatArray:
    """The largest of every row, -inf of an empty one: column by column, since the rows are many and short."""
    return reduce(np.maximum, values_NM.T, np.full(len(values_NM), -np.inf))


def _is_order_proven(at_NM: FloatArray, gradient_NM: FloatArray, precision: float) -> NDArray[np.bool_]:
    """Whether the order of a client's strengths is that of the mode.

    The log density less `precision` / 2 times the squared length is concave, so the mode is at most
    |gradient| / precision away, and the difference of two strengths changes by at most sqrt(2) times as much.
    """
    ordered_NM = np.sort(at_NM, axis=1)
    gap_N = -_largest(ordered_NM[:, :-1] - ordered_NM[:, 1:])
    length_N = np.sqrt(np.einsum("nm,nm->n", gradient_NM, gradient_NM))
    return np.asarray(gap_N > 1.001 * 2**0.5 * length_N / precision)


def _ascending(posterior: _Posterior, at_NM: FloatArray, step_NM: FloatArray) -> FloatArray:
    """Halve the steps that lead down.

    Only steps that change a margin by more than `SURE_STEP` are looked at. Where no margin changes by more than d, a
    cell's curvature changes by at most exp(d), and with it Newton's step raises the log density by at least
    g' H^-1 g (1 - (exp(d) - 1 - d) / d^2), which is above 0 up to d = 1.79.
    """
    long = np.flatnonzero(_largest(step_NM) + _largest(-step_NM) > SURE_STEP)
    if not len(long):
        return step_NM
    is_long_N = np.zeros(len(at_NM), bool)
    is_long_N[long] = True
    some, from_NM, part_NM = posterior.of_clients(is_long_N), at_NM[long], step_NM[long]
    before_N = some.densities(from_NM)
    for _ in range(30):
        is_worse_N = some.densities(from_NM + part_NM) < before_N - 1e-12 * np.abs(before_N)
        if not is_worse_N.any():
            break
        part_NM[is_worse_N] /= 2
    step_NM[long] = part_NM
    return step_NM


def kendall_tau(strengths_NM: FloatArray, reference_NM: FloatArray) -> FloatArray:
    """Return Kendall's tau-b of each client's ranking and a reference.

    Args:
        strengths_NM: what the client ranks by.
        reference_NM: what the reference ranks by: (M,) for all clients, or one row a client.

    Returns:
        (N,) in [-1, 1]: 1 for the same order, -1 for the reverse; NaN where either ranks nothing.

    >>> kendall_tau(np.array([[3.0, 2.0, 1.0], [2.0, 3.0, 1.0]]), np.array([9.0, 5.0, 1.0])).round(4).tolist()
    [1.0, 0.3333]
    """
    first_P, second_P = np.triu_indices(reference_NM.shape[-1], 1)
    order_NP = np.sign(reference_NM[..., first_P] - reference_NM[..., second_P])
    own_NP = np.sign(strengths_NM[:, first_P] - strengths_NM[:, second_P])
    scale_N = np.sqrt(np.count_nonzero(own_NP, axis=1) * np.count_nonzero(order_NP, axis=-1).astype(np.float64))
    return np.where(scale_N > 0, (own_NP * order_NP).sum(axis=1) / np.maximum(scale_N, 1), np.nan)


def win_rate_distance(wins_RKP: IntArray, trials_RKP: IntArray) -> FloatArray:
    """Return how far each client's win rates lie from the pool's; NaN for a client that judged no two models.

    A client's rate on a pair of models is (wins + 2 p) / (trials + 2) with the pool's rate p; the distance is the mean
    of |rate - p| over the pairs of models, weighted by the client's votes.

    Args:
        wins_RKP: times the first model of the pair was preferred, in every draw, or (K, P) of one.
        trials_RKP: times the client judged the pair.

    Returns:
        (R, K) fractions, 0 at the pool's rates.

    >>> win_rate_distance(np.array([[2], [0]]), np.array([[2], [2]])).tolist()
    [0.25, 0.25]
    """
    rate_RP = wins_RKP.sum(axis=-2) / np.maximum(trials_RKP.sum(axis=-2), 1)
    shift_RKP = np.abs(wins_RKP - trials_RKP * rate_RP[..., None, :]) / (trials_RKP + PRIOR_VOTES)
    votes_RK = trials_RKP.sum(axis=-1)
    return np.where(votes_RK > 0, (trials_RKP * shift_RKP).sum(axis=-1) / np.maximum(votes_RK, 1), np.nan)
