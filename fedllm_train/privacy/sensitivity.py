"""How far one client can move C x, where its clipped updates stand in some rounds of x.

Symbols: n rounds; C a matrix with n columns; b the least distance between two rounds of one client; k the most rounds
that it takes part in; G = C' C. A participation pattern is a set of at most k rounds, any two at least b apart. With
updates u_i of norm at most 1 in the rounds of a pattern P, || sum_i C[:, i] u_i' ||^2 = sum_ij G_ij <u_i, u_j>, so

    sens(C)^2 <= max over P of sum over i, j in P of |G_ij|,

with equality if no entry of G is negative (all u_i alike). Updates may depend on all that was released before: for
Gaussian noise and a lower triangular C that costs nothing (Denisov et al. 2022, arXiv 2202.08312, theorem 2.1).

exact      columns at least b apart do not overlap, as in a matrix of at most b bands (Choquette-Choo et al. 2023,
           arXiv 2306.08153): the largest sum of G_ii over patterns, by dynamic programming
exact      Toeplitz with coefficients that are not negative and never rise: the pattern 0, b, 2b, ... (Kalinin and
           Lampert 2024, arXiv 2405.13763, theorem 2)
bound      any other matrix: r_i the most that sum_j |G_ij| can be over patterns that hold i, then the largest sum of
           r_i over patterns. It is never less than the maximum
bound      the binary tree: level by level, as many rounds of the pattern in one node as fit. Exact for k = 1, and for
           b = 1 where n is a power of two

NumPy alone; imports no torch.
"""

import numpy as np
import numpy.typing as npt

__all__ = [
    "heaviest_pattern",
    "matrix_sensitivity",
    "most_rounds",
    "toeplitz_matrix",
    "toeplitz_sensitivity",
    "tree_sensitivity",
]

Array = npt.NDArray[np.float64]


def most_rounds(num_rounds: int, min_separation: int, max_participations: int) -> int:
    """Return how many rounds a client can be in.

    >>> most_rounds(10, 4, 99), most_rounds(10, 4, 2)
    (3, 2)
    """
    return min(max_participations, -(-num_rounds // min_separation))


def heaviest_pattern(weights: Array, min_separation: int, max_participations: int) -> Array:
    """Return the largest sum of weights over participation patterns.

    Args:
        weights: (..., n), not negative.
        min_separation: b, at least 1.
        max_participations: k, at least 1.

    Returns:
        (...), one value for each row of weights.

    >>> float(heaviest_pattern(np.array([3.0, 4.0, 3.0, 1.0]), 2, 2))
    6.0
    """
    n = weights.shape[-1]
    best = np.zeros(weights.shape)
    for _ in range(most_rounds(n, min_separation, max_participations)):
        before = np.zeros(weights.shape)  # best of the rounds that end at least b before
        before[..., min_separation:] = best[..., : max(n - min_separation, 0)]
        best = np.maximum.accumulate(weights + before, axis=-1)
    return best[..., -1]


def toeplitz_sensitivity(
    coefficients: Array, num_rounds: int, *, min_separation: int, max_participations: int
) -> float:
    """Return the sensitivity of a lower triangular Toeplitz matrix, or a bound on it where no exact rule is known.

    Args:
        coefficients: its first column, or the part of it that is not zero.
        num_rounds: n.
        min_separation: b, at least 1.
        max_participations: k, at least 1.

    >>> round(toeplitz_sensitivity(np.array([1.0, 0.5]), 6, min_separation=2, max_participations=3) ** 2, 6)
    3.75
    >>> toeplitz_sensitivity(np.ones(1), 4, min_separation=1, max_participations=4)
    2.0
    """
    column = np.zeros(num_rounds)
    column[: len(coefficients)] = coefficients[:num_rounds]
    if (column < 0).any() or (np.diff(column) > 0).any():
        return matrix_sensitivity(
            toeplitz_matrix(column), min_separation=min_separation, max_participations=max_participations
        )
    total = np.zeros(num_rounds)
    for turn in range(most_rounds(num_rounds, min_separation, max_participations)):
        start = turn * min_separation
        total[start:] += column[: num_rounds - start]
    return float(np.sqrt(total @ total))


def toeplitz_matrix(column: Array) -> Array:
    """Return the lower triangular matrix whose columns are one column, shifted.

    >>> toeplitz_matrix(np.array([1.0, 0.5])).tolist()
    [[1.0, 0.0], [0.5, 1.0]]
    """
    n = len(column)
    padded = np.concatenate([np.zeros(n), column])
    return padded[n + np.arange(n)[:, None] - np.arange(n)]


def matrix_sensitivity(matrix: Array, *, min_separation: int, max_participations: int) -> float:
    """Return a bound on the sensitivity of any matrix; exact where columns at least b apart do not overlap.

    Args:
        matrix: (m, n), a column a round.
        min_separation: b, at least 1.
        max_participations: k, at least 1.

    >>> round(matrix_sensitivity(np.eye(4), min_separation=2, max_participations=9) ** 2, 6)
    2.0
    """
    gram = np.abs(matrix.T @ matrix)
    own = np.diagonal(gram).copy()
    n = len(own)
    most = most_rounds(n, min_separation, max_participations)
    if most > 1:
        rounds = np.arange(n)
        others = np.where(np.abs(rounds[:, None] - rounds) >= min_separation, gram, 0.0)
        own += heaviest_pattern(others, min_separation, most - 1)
    return float(np.sqrt(heaviest_pattern(own, min_separation, most)))


def tree_sensitivity(num_rounds: int, *, min_separation: int, max_participations: int) -> float:
    """Return a bound on the sensitivity of the binary tree over the rounds, of which complete nodes are used.

    Args:
        num_rounds: n, at least 1.
        min_separation: b, at least 1.
        max_participations: k, at least 1.

    >>> round(tree_sensitivity(1000, min_separation=1000, max_participations=1) ** 2, 6)
    10.0
    >>> round(tree_sensitivity(4, min_separation=1, max_participations=4) ** 2, 6)  # 4 * 1 + 2 * 4 + 16
    28.0
    """
    most, total, size = most_rounds(num_rounds, min_separation, max_participations), 0, 1
    while size <= num_rounds:
        in_node = min(-(-size // min_separation), most)
        full, rest = divmod(min(most, in_node * (num_rounds // size)), in_node)
        total += full * in_node**2 + rest**2
        size *= 2
    return float(np.sqrt(total))
