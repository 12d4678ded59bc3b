"""How many different things a set of rows holds: the Vendi score, within clients, of the pool, and between.

The Vendi score (Friedman & Dieng 2023, eq. 1) is the exponential of the entropy of the eigenvalues of the kernel
matrix over N. For the linear kernel of vectors of length one, these are the eigenvalues of their D x D second
moments, so a profile is enough, and the score is at most min(N, D). Entropies of a pool and its parts split as in
ecology (gamma = alpha * beta): pool = within * between, where `within` is the exponential of the mean entropy,
clients weighted by their rows. Symbols: K clients, D dimensions, M = D (D + 1) / 2. numpy only.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "VendiSplit",
    "eigenvalue_entropy",
    "moment_matrices",
    "upper_triangle",
    "vendi_entropy",
    "vendi_score",
    "vendi_split",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class VendiSplit(NamedTuple):
    """The Vendi scores of clients; pool = within * between."""

    pool: float
    within: float
    """Exponential of the clients' mean entropy, weighted by rows."""
    between: float
    """From 1, when all clients have the same second moments, to the exponential of the entropy of their sizes."""


@lru_cache(maxsize=8)
def upper_triangle(num_dimensions: int) -> tuple[IntArray, IntArray]:
    """Return the rows and columns of the upper triangle with the diagonal: the order of M second moments.

    >>> [part.tolist() for part in upper_triangle(2)]
    [[0, 0, 1], [0, 1, 1]]
    """
    return np.triu_indices(num_dimensions)


@lru_cache(maxsize=8)
def _places(num_dimensions: int) -> IntArray:
    """Where each entry of a matrix stands in its upper triangle."""
    place_DD = np.zeros((num_dimensions, num_dimensions), np.int64)
    rows, columns = upper_triangle(num_dimensions)
    place_DD[rows, columns] = place_DD[columns, rows] = np.arange(len(rows))
    return place_DD.ravel()


def moment_matrices(moments_KM: FloatArray, num_dimensions: int) -> FloatArray:
    """Return symmetric (K, D, D) matrices from their upper triangles.

    >>> moment_matrices(np.array([[1.0, 2.0, 3.0]]), 2).tolist()
    [[[1.0, 2.0], [2.0, 3.0]]]
    """
    place = _places(num_dimensions)
    return np.take(moments_KM, place, axis=1).reshape(len(moments_KM), num_dimensions, num_dimensions)


def vendi_score(matrices_KDD: FloatArray) -> FloatArray:
    """Return the Vendi score of every matrix of summed second moments.

    Args:
        matrices_KDD: sums (or means) of x x' over rows x; the trace is positive.

    Returns:
        (K,) numbers from 1, when all rows are equal, to min(rows, D), when rows are orthogonal.

    >>> vendi_score(np.array([np.eye(3), np.diag([5.0, 0.0, 0.0])])).round(12).tolist()
    [3.0, 1.0]
    """
    return np.exp(vendi_entropy(matrices_KDD))


def vendi_split(pool: float, entropy_K: FloatArray, weight_K: FloatArray) -> VendiSplit:
    """Return the Vendi score of all rows, and its split into within and between clients.

    Args:
        pool: the `vendi_entropy` of the sum of the clients' matrices.
        entropy_K: that of every client's.
        weight_K: traces of the clients' matrices: of vectors of length one, the number of rows.

    >>> matrices = np.array([np.diag([2.0, 0.0]), np.diag([0.0, 2.0])])
    >>> split = vendi_split(float(vendi_entropy(matrices.sum(axis=0))), vendi_entropy(matrices), np.array([2.0, 2.0]))
    >>> [round(score, 12) for score in split]
    [2.0, 1.0, 2.0]
    """
    within = float(weight_K @ entropy_K / weight_K.sum())
    # Entropy is concave, so between >= 1; rounding can leave 1 - 1e-16, hence the max.
    return VendiSplit(float(np.exp(pool)), float(np.exp(within)), float(np.exp(max(0.0, pool - within))))


def vendi_entropy(matrices: FloatArray) -> FloatArray:
    """Return the entropy of the eigenvalues as shares of the trace, in nats.

    Args:
        matrices: (..., D, D) second moments, or the Gram matrices of the rows, which have the same eigenvalues but
            for zeros; the trace is positive.

    >>> vendi_entropy(np.array([np.eye(4), np.diag([1.0, 1.0, 0.0, 0.0])])) / np.log(2)
    array([2., 1.])
    """
    return eigenvalue_entropy(np.asarray(np.linalg.eigvalsh(matrices), np.float64))


def eigenvalue_entropy(values: FloatArray) -> FloatArray:
    """Return the entropy of eigenvalues as shares of their sum, in nats; what is below 0 by rounding counts as 0.

    Args:
        values: (..., D) eigenvalues; some are above 0. Zeros may be left out or added.

    >>> eigenvalue_entropy(np.array([3.0, 3.0, 0.0])) / np.log(2)
    np.float64(1.0)
    """
    values = np.maximum(values, 0.0)
    p = values / values.sum(axis=-1, keepdims=True)
    return np.asarray(np.abs(-(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)))
