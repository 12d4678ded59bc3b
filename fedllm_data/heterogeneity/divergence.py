"""How far clients' label distributions lie from their pool and from one another.

Symbols: R sets of clients (draws of the null, resamples), K clients, L labels; `counts_RKL` are row counts, where R
stands for any number of leading axes, none included: a (K, L) array gives one number, an (R, K, L) array R numbers.
`p_RKL` are the clients' label fractions; the pool is the size-weighted mixture. All measures are 0 for identical
clients, and a client without rows takes no part in them. numpy only.
"""

from math import prod

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "divergence_values",
    "entropy_bits",
    "hellinger_to_pool",
    "jensen_shannon_bits",
    "label_fractions",
    "pairwise_total_variation",
    "total_variation_to_pool",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def divergence_values(counts_RKL: IntArray, origin_RK: IntArray) -> dict[str, FloatArray]:
    """Return how different the clients' mixes of labels are; what the measures share is computed once.

    Args:
        counts_RKL: row counts.
        origin_RK: which client each entry is (a bootstrap resample holds some several times).

    Returns:
        The generalised Jensen-Shannon divergence in `bits` and as a `fraction` of the labels' entropy, the mean
        `total_variation_to_pool` and `hellinger_to_pool`, and the mean `total_variation_pairwise` between two clients,
        (R,) each; all are 0 for equal mixes, and all are NaN where all rows have one label or only one client has any.

    >>> float(divergence_values(np.array([[10, 0], [0, 30]]), np.arange(2))["fraction"])
    1.0
    """
    rows_RK, labels_RL = counts_RKL.sum(axis=-1), counts_RKL.sum(axis=-2)
    num_clients_R = np.count_nonzero(rows_RK, axis=-1)
    is_defined_R = (np.count_nonzero(labels_RL, axis=-1) > 1) & (num_clients_R > 1)
    pool_RL = labels_RL / np.maximum(labels_RL.sum(axis=-1, keepdims=True), 1)
    p_RKL = counts_RKL.astype(np.float64)
    p_RKL /= np.maximum(rows_RK, 1)[..., None]
    entropy_R = entropy_bits(pool_RL)
    bits_R = _divergence_bits(counts_RKL, rows_RK, entropy_R)
    shares_R = np.maximum(num_clients_R, 1)
    values = {
        "fraction": np.minimum(1.0, bits_R / np.where(is_defined_R, entropy_R, 1.0)),
        "bits": bits_R,
        "total_variation_to_pool": (_total_variation(p_RKL, pool_RL) * (rows_RK > 0)).sum(axis=-1) / shares_R,
        "hellinger_to_pool": (_hellinger(p_RKL, pool_RL) * (rows_RK > 0)).sum(axis=-1) / shares_R,
        "total_variation_pairwise": _pairwise(p_RKL, rows_RK > 0, origin_RK),
    }
    return {name: np.where(is_defined_R, value_R, np.nan) for name, value_R in values.items()}


def entropy_bits(p: FloatArray) -> FloatArray:
    """Return the Shannon entropy over the last axis in bits, with 0 log 0 = 0.

    >>> entropy_bits(np.array([[0.5, 0.5], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    return np.asarray(np.abs(-(p * np.log2(np.where(p > 0, p, 1.0))).sum(axis=-1)))


def label_fractions(counts_RKL: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return every client's label fractions (R, K, L), zeros for a client without rows, and the pool's (R, L).

    >>> p_KL, pool_L = label_fractions(np.array([[1, 1], [6, 0]]))
    >>> p_KL.tolist(), pool_L.tolist()
    ([[0.5, 0.5], [1.0, 0.0]], [0.875, 0.125])
    """
    labels_RL, rows_RK1 = counts_RKL.sum(axis=-2), counts_RKL.sum(axis=-1, keepdims=True)
    pool_RL = labels_RL / np.maximum(labels_RL.sum(axis=-1, keepdims=True), 1)
    return counts_RKL / np.maximum(rows_RK1, 1), pool_RL


def jensen_shannon_bits(counts_RKL: IntArray) -> FloatArray:
    """Return the divergence among clients, each weighted by its number of rows.

    The generalised Jensen-Shannon divergence (Lin 1991, eq. 5.1), which equals the mutual information between a
    row's client and its label.

    Returns:
        Bits in [0, H(label)], (R,): 0 when all clients share one distribution, the entropy of the pool's labels when
        no client has rows of more than one label.

    >>> float(jensen_shannon_bits(np.array([[10, 0], [0, 10]])))
    1.0
    """
    labels_RL = counts_RKL.sum(axis=-2)
    entropy_R = entropy_bits(labels_RL / np.maximum(labels_RL.sum(axis=-1, keepdims=True), 1))
    return _divergence_bits(counts_RKL, counts_RKL.sum(axis=-1), entropy_R)


def total_variation_to_pool(counts_RKL: IntArray) -> FloatArray:
    """Return every client's total variation distance to the pool, 1/2 sum |p - q|, in [0, 1].

    Zhao et al. (2018) call sum |p - q| "earth mover's distance": it is twice this.

    >>> total_variation_to_pool(np.array([[10, 0], [0, 10]])).tolist()
    [0.5, 0.5]
    """
    return _total_variation(*label_fractions(counts_RKL))


def hellinger_to_pool(counts_RKL: IntArray) -> FloatArray:
    """Return every client's Hellinger distance to the pool, sqrt(1 - sum sqrt(p q)), in [0, 1].

    >>> hellinger_to_pool(np.array([[3, 1], [6, 2]])).tolist()
    [0.0, 0.0]
    """
    return _hellinger(*label_fractions(counts_RKL))


def pairwise_total_variation(counts_RKL: IntArray, origin_RK: IntArray) -> FloatArray:
    """Return the mean total variation distance over all pairs of different clients, each pair counted once.

    Args:
        counts_RKL: row counts.
        origin_RK: which client each entry is. Entries of one client (in a bootstrap resample) are no pair.

    Returns:
        Fractions in [0, 1], (R,): 1 when no two clients share a label. NaN where there are not two clients.

    >>> float(pairwise_total_variation(np.array([[10, 0], [0, 10]]), np.arange(2)))
    1.0
    """
    return _pairwise(label_fractions(counts_RKL)[0], counts_RKL.sum(axis=-1) > 0, origin_RK)


def _divergence_bits(counts_RKL: IntArray, rows_RK: IntArray, entropy_R: FloatArray) -> FloatArray:
    within_R = _n_log_n(rows_RK).sum(axis=-1) - _n_log_n(counts_RKL).sum(axis=(-2, -1))
    # Concavity of entropy makes this >= 0; rounding can leave 1e-16 on either side, which is no divergence.
    bits_R = entropy_R - within_R / np.maximum(rows_RK.sum(axis=-1), 1)
    return np.where(bits_R > 1e-14, bits_R, 0.0)


def _n_log_n(counts: IntArray) -> FloatArray:
    """Return n log2 n of every count, with 0 log 0 = 0: looked up where there are fewer numbers than counts."""
    largest = int(counts.max(initial=0))
    n = np.arange(largest + 1, dtype=np.float64) if largest < counts.size else counts.astype(np.float64)
    table = n * np.log2(np.maximum(n, 1))
    return np.asarray(np.take(table, counts) if largest < counts.size else table)


def _total_variation(p_RKL: FloatArray, pool_RL: FloatArray) -> FloatArray:
    difference_RKL = p_RKL - pool_RL[..., None, :]
    # A product with ones is the faster sum along a short axis.
    return np.asarray(0.5 * np.abs(difference_RKL, out=difference_RKL) @ np.ones(p_RKL.shape[-1]))


def _hellinger(p_RKL: FloatArray, pool_RL: FloatArray) -> FloatArray:
    overlap_RK = (np.sqrt(p_RKL) @ np.sqrt(pool_RL)[..., None])[..., 0]
    # Rounding leaves overlaps of 1 + 1e-16, whose distance would be NaN, and 1 - 1e-16, whose distance would be 1e-8.
    return np.sqrt(np.where(overlap_RK > 1 - 1e-14, 0.0, 1 - overlap_RK))


def _pairwise(p_RKL: FloatArray, has_rows_RK: NDArray[np.bool_], origin_RK: IntArray) -> FloatArray:
    """The mean in O(L K log K): over pairs, sum |x_i - x_j| is sum (2i - K - 1) x_(i), x in rising order."""
    num_entries = p_RKL.shape[-2]
    num_clients_R = np.count_nonzero(has_rows_RK, axis=-1)
    num_pairs_R = (num_clients_R**2 - (_copies(has_rows_RK, origin_RK) ** 2).sum(axis=-1)) / 2
    # Clients without rows come first and weigh nothing.
    rank_RK = np.arange(1, num_entries + 1) - (num_entries - num_clients_R)[..., None]
    weight_RK = np.where(rank_RK > 0, 2.0 * rank_RK - num_clients_R[..., None] - 1, 0.0)
    if not has_rows_RK.all():
        p_RKL = np.where(has_rows_RK[..., None], p_RKL, -1.0)
    # Labels in rows: sorting along the memory takes half the time.
    ordered_RLK = np.swapaxes(p_RKL, -1, -2).copy()
    ordered_RLK.sort(axis=-1)
    sum_R = (ordered_RLK @ weight_RK[..., None]).sum(axis=(-2, -1))
    mean_R = np.maximum(0.0, 0.5 * sum_R / np.maximum(num_pairs_R, 1))
    return np.where(num_pairs_R > 0, mean_R, np.nan)


def _copies(has_rows_RK: NDArray[np.bool_], origin_RK: IntArray) -> IntArray:
    """How often each observed client is there, (R, clients)."""
    *leading, num_entries = origin_RK.shape
    flat_RK, num_observed = origin_RK.reshape(prod(leading), num_entries), int(origin_RK.max(initial=0)) + 1
    place_RK = flat_RK + num_observed * np.arange(len(flat_RK))[:, None]
    copies_RO = np.bincount(place_RK[has_rows_RK.reshape(flat_RK.shape)], minlength=num_observed * len(flat_RK))
    return copies_RO.reshape(*leading, num_observed)
