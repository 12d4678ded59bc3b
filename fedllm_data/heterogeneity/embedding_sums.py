"""What axis `embedding` works out of the clients' sums once, so that a resample or a draw of the null costs little.

`Observed` holds every client in floating point: sums about the pool's mean, the entropy of its second moments.
A `Sample` is what the figures are functions of: the observed clients, each as often as a resample holds it, or the
clients that the null draws. Second moments enter for `moment_clients`, the largest, since little can be said of the
others'; halves for `MAX_HALF_CLIENTS`, evenly spread where there are more.
Symbols: K clients, D dimensions, R Fourier features, M = D (D + 1) / 2; U entries used. numpy only.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedllm_data.heterogeneity.centroids import spread_positions
from fedllm_data.heterogeneity.mmd import CentredSums
from fedllm_data.heterogeneity.profile import SCALE, Stack
from fedllm_data.heterogeneity.vendi import moment_matrices, upper_triangle, vendi_entropy

__all__ = ["HALVES", "Moments", "Observed", "Sample", "half_sizes", "moment_clients", "observed"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

HALVES = ("0", "1")
MAX_HALF_CLIENTS = 1000
MAX_MOMENT_CLIENTS = 256
"""Figures from second moments need eigenvalues for every client at every draw: the largest 256 stand for all."""
FRECHET_AXES = 8
FRECHET_MIN_ROWS = 5 * FRECHET_AXES
_CHUNK = 1024


class Moments(NamedTuple):
    """Second moments of the entries used."""

    entropy_U: FloatArray
    """Entropy of the eigenvalues as shares of the trace, in nats."""
    weight_U: FloatArray
    """Traces: for vectors of length one, the number of rows."""
    sums_UD: FloatArray
    sizes_U: IntArray
    total_DD: FloatArray
    """Sum of x x' over the rows of all entries used."""
    large: IntArray
    """Which of the entries have `FRECHET_MIN_ROWS` rows."""
    large_LDD: FloatArray


class Sample(NamedTuple):
    """Clients, each with the number of its copies."""

    copies_K: FloatArray
    sizes_K: IntArray
    rows: CentredSums
    sums_KD: FloatArray
    features: CentredSums
    one_HD: FloatArray
    """Mean vectors of first halves, different clients."""
    two_HD: FloatArray
    copies_H: FloatArray
    moments: Moments


class Observed(NamedTuple):
    """The clients of a stack in floating point."""

    sizes_K2: IntArray
    halves: tuple[FloatArray, FloatArray]
    sums_KD: FloatArray
    rows: CentredSums
    features: CentredSums
    entropy_K: FloatArray
    trace_K: FloatArray
    moments_KM: IntArray
    """In fixed point, as the profiles have them."""

    def sample(self, index_E: IntArray) -> Sample:
        """Return the clients at these positions, with repeats."""
        sizes_K = self.rows.sizes_K
        with_both = index_E[self.sizes_K2[index_E].min(axis=1) > 0]
        half_H, copies_H = np.unique(with_both[spread_positions(len(with_both), MAX_HALF_CLIENTS)], return_counts=True)
        one_HD, two_HD = (
            sums_KD[half_H] / self.sizes_K2[half_H, half, None] for half, sums_KD in enumerate(self.halves)
        )
        return Sample(
            np.bincount(index_E, minlength=len(sizes_K)).astype(np.float64),
            sizes_K,
            self.rows,
            self.sums_KD,
            self.features,
            one_HD,
            two_HD,
            copies_H.astype(np.float64),
            self._moments(index_E[moment_clients(sizes_K[index_E])]),
        )

    def _moments(self, used: IntArray) -> Moments:
        sizes_U, num_dimensions = self.rows.sizes_K[used], self.sums_KD.shape[1]
        large = np.flatnonzero(sizes_U >= FRECHET_MIN_ROWS)
        moments_UM = self.moments_KM[used]
        return Moments(
            self.entropy_K[used],
            self.trace_K[used],
            self.sums_KD[used],
            sizes_U,
            moment_matrices(moments_UM.sum(axis=0)[None] / SCALE, num_dimensions)[0],
            large,
            moment_matrices(moments_UM[large] / SCALE, num_dimensions),
        )


def observed(stack: Stack) -> Observed:
    """Return the clients of a stack in floating point.

    Args:
        stack: at least one client; the vectors' names are those of `fedllm_data.heterogeneity.embedding`.
    """
    sizes_K2 = half_sizes(stack)
    sizes_K = sizes_K2.sum(axis=1)
    one_KD, two_KD = (stack.vectors[f"embedding_half_{label}"] / SCALE for label in HALVES)
    moments_KM, num_dimensions = stack.vectors["embedding_moments"], one_KD.shape[1]
    rows, columns = upper_triangle(num_dimensions)
    entropy_K = np.empty(len(sizes_K))
    for start in range(0, len(sizes_K), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        entropy_K[chunk] = vendi_entropy(moment_matrices(moments_KM[chunk] / SCALE, num_dimensions))
    return Observed(
        sizes_K2,
        (one_KD, two_KD),
        one_KD + two_KD,
        CentredSums.of(one_KD + two_KD, stack.vectors["embedding_square"].sum(axis=1) / SCALE, sizes_K),
        CentredSums.of(stack.vectors["rff"] / SCALE, stack.vectors["rff_square"].sum(axis=1) / SCALE, sizes_K),
        entropy_K,
        moments_KM[:, rows == columns].sum(axis=1) / SCALE,
        moments_KM,
    )


def half_sizes(stack: Stack) -> IntArray:
    """Return the rows of both halves of every client, (K, 2).

    >>> from fedllm_data.heterogeneity.profile import CountTable
    >>> half_sizes(Stack(("a",), {"embedded": CountTable(("1",), np.array([[3]]))}, np.arange(1))).tolist()
    [[0, 3]]
    """
    table = stack.tables["embedded"]
    sizes_K2 = np.zeros((len(table.counts_KL), 2), np.int64)
    for column, label in enumerate(table.labels):
        sizes_K2[:, HALVES.index(label)] = table.counts_KL[:, column]
    return sizes_K2


def moment_clients(sizes_K: IntArray) -> IntArray:
    """Return the positions of the clients whose second moments are used: those with the most rows, ascending.

    >>> moment_clients(np.array([3, 9, 1])).tolist(), len(moment_clients(np.arange(20_000)))
    ([0, 1, 2], 256)
    """
    return np.sort(np.argsort(-sizes_K, kind="stable")[:MAX_MOMENT_CLIENTS])
