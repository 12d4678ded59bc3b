"""Clients whose embeddings come from one pool: the null of axis `embedding`, drawn from profiles.

Real embeddings are not normal, and clients of one or two rows show it. So a bank of `BANK_ROWS` rows is made once: a
row takes a client in proportion to its rows, is drawn from the normal distribution with that client's mean and
covariance, and the bank is brought to the pool's mean and covariance. The bank is shuffled and dealt out, as often as
the rows need it, to halves of up to `SMALL` rows; a larger half draws its sums from the normal distribution with the
mean and covariance of the bank's, the central limit. So all clients together stay close to the pool. Fourier features
need less: their figure has, under the null, mean 0 and a spread that depends on tr(C^2) alone (C: covariance of the
features), so they are drawn from a normal distribution with as many dimensions, tr(C)^2 / tr(C^2), as chance sees.
Both halves of every client have the sizes they have. Second moments are drawn for `moment_clients` only; those of
dealt rows are not made where a client has fewer rows than dimensions, for the rows' Gram matrix has their eigenvalues.
Symbols: K clients, D dimensions, M = D (D + 1) / 2, B bank rows, A = D + 1 + M statistics of a row, U clients of
`moment_clients`. numpy and SciPy.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fedllm_data.heterogeneity.centroids import directions, spread_positions
from fedllm_data.heterogeneity.embedding_sums import (
    FRECHET_MIN_ROWS,
    MAX_HALF_CLIENTS,
    Moments,
    Observed,
    Sample,
    moment_clients,
    observed,
)
from fedllm_data.heterogeneity.mmd import CentredSums, trace_of_squared_covariance
from fedllm_data.heterogeneity.profile import SCALE, Stack
from fedllm_data.heterogeneity.vendi import eigenvalue_entropy, moment_matrices, upper_triangle

__all__ = ["embedding_sampler"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BANK_ROWS = 8192
BANK_CLIENTS = 1024
SMALL = 32
_STEPS = 4


def embedding_sampler(stack: Stack) -> Callable[[Generator], Stack]:
    """Return a function that draws clients of these sizes from one pool; what it draws stands under `derived`.

    Args:
        stack: the observed clients; the vectors' names are those of `fedllm_data.heterogeneity.embedding`.
    """
    found = observed(stack) if stack.derived is None else stack.derived
    sizes_K2, sizes_K = found.sizes_K2, found.rows.sizes_K
    used = moment_clients(sizes_K)
    bank = _Bank.of(_bank_rows(found), needs_moments=bool(sizes_K2[used].max(initial=0) > SMALL))
    halves = _Halves.of(sizes_K2)
    dealt = _Dealt.of(halves, used)
    large_U = np.flatnonzero((sizes_K2[used] > SMALL).any(axis=1))
    with_both = np.flatnonzero(sizes_K2.min(axis=1) > 0)
    half_H = with_both[spread_positions(len(with_both), MAX_HALF_CLIENTS)]
    every_row = np.arange(len(bank.rows_BA), dtype=np.int32)
    num_times, num_over = divmod(int(halves.small_K2.sum()), len(every_row))
    draw_features = _feature_sampler(stack, sizes_K)
    copies_K, copies_H = np.ones(len(sizes_K)), np.ones(len(half_H))

    def draw(rng: Generator) -> Stack:
        stock = np.concatenate([np.tile(every_row, num_times), rng.permutation(every_row)[:num_over]])
        row_N = rng.permutation(stock)
        sums_2KA, large_LDD = bank.draw(halves, used[large_U], row_N, rng)
        sums_KA = sums_2KA[0] + sums_2KA[1]
        rows_ND = bank.rows_BA[row_N[dealt.place_N], :-1]
        one_HD, two_HD = (sums_2KA[half, half_H, :-1] / sizes_K2[half_H, half, None] for half in range(2))
        sample = Sample(
            copies_K,
            sizes_K,
            CentredSums.of(sums_KA[:, :-1], sums_KA[:, -1], sizes_K),
            sums_KA[:, :-1],
            draw_features(rng),
            one_HD,
            two_HD,
            copies_H,
            _moments(sums_KA[used, :-1], sizes_K[used], rows_ND, dealt, large_U, large_LDD),
        )
        return replace(stack, vectors={}, derived=sample)

    return draw


class _Halves(NamedTuple):
    """Where the small halves of all clients find their rows among those that are dealt: first halves first."""

    sizes_K2: IntArray
    small_K2: IntArray
    """Sizes of the small halves; 0 for the others."""
    starts_K2: IntArray

    @classmethod
    def of(cls, sizes_K2: IntArray) -> "_Halves":
        small_K2 = np.where(sizes_K2 <= SMALL, sizes_K2, 0)
        ends = np.cumsum(small_K2.T.ravel()).reshape(2, -1).T
        return cls(sizes_K2, small_K2, ends - small_K2)


class _Dealt(NamedTuple):
    """The clients of `used` both of whose halves are dealt, by size, and where their rows are."""

    groups: tuple[tuple[IntArray, slice], ...]
    """Positions in `used` of the clients of one size, and where their rows lie in `place_N`, client by client."""
    place_N: IntArray

    @classmethod
    def of(cls, halves: _Halves, used: IntArray) -> "_Dealt":
        is_dealt_U = (halves.sizes_K2[used] <= SMALL).all(axis=1)
        sizes_U = halves.sizes_K2[used].sum(axis=1)
        groups, places, start = [], [np.zeros(0, np.int64)], 0
        for size in np.unique(sizes_U[is_dealt_U]).tolist():
            members = np.flatnonzero(is_dealt_U & (sizes_U == size))
            first_U1 = halves.small_K2[used[members], :1]
            starts_U2 = halves.starts_K2[used[members]]
            row = np.arange(size)
            place_Un = np.where(row < first_U1, starts_U2[:, :1] + row, starts_U2[:, 1:] + row - first_U1)
            places.append(place_Un.ravel())
            groups.append((members, slice(start, start + place_Un.size)))
            start += place_Un.size
        return cls(tuple(groups), np.concatenate(places))


def _moments(
    sums_UD: FloatArray,
    sizes_U: IntArray,
    rows_ND: FloatArray,
    dealt: _Dealt,
    large_U: IntArray,
    large_LDD: FloatArray,
) -> Moments:
    """What the figures need of second moments: of clients whose rows are dealt, and of large ones that are drawn."""
    num_dimensions = sums_UD.shape[1]
    values_UD, weight_U = np.zeros((len(sizes_U), num_dimensions)), np.empty(len(sizes_U))
    is_enough_L = sizes_U[large_U] >= FRECHET_MIN_ROWS
    positions, matrices = [large_U[is_enough_L]], [large_LDD[is_enough_L]]
    values_UD[large_U], weight_U[large_U] = np.linalg.eigvalsh(large_LDD), np.trace(large_LDD, axis1=1, axis2=2)
    squares_N = np.einsum("nd,nd->n", rows_ND, rows_ND)
    for members, rows in dealt.groups:
        rows_UnD = rows_ND[rows].reshape(len(members), -1, num_dimensions)
        size = rows_UnD.shape[1]
        if size < num_dimensions:
            values_UD[members, :size] = np.linalg.eigvalsh(rows_UnD @ rows_UnD.transpose(0, 2, 1))
        weight_U[members] = squares_N[rows].reshape(len(members), size).sum(axis=1)
        if size >= min(num_dimensions, FRECHET_MIN_ROWS):
            moments_UDD = rows_UnD.transpose(0, 2, 1) @ rows_UnD
            if size >= num_dimensions:
                values_UD[members] = np.linalg.eigvalsh(moments_UDD)
            if size >= FRECHET_MIN_ROWS:
                positions.append(members)
                matrices.append(moments_UDD)
    return Moments(
        eigenvalue_entropy(values_UD),
        weight_U,
        sums_UD,
        sizes_U,
        large_LDD.sum(axis=0) + rows_ND.T @ rows_ND,
        np.concatenate(positions),
        np.concatenate(matrices),
    )


class _Bank(NamedTuple):
    """Rows that stand for the pool, and the normal distributions of large sums of them."""

    rows_BA: FloatArray
    """Vector and squared length of every row: A = D + 1."""
    moments_BM: FloatArray
    mean: FloatArray
    """Mean of all statistics: vector, squared length, second moments."""
    root: FloatArray
    """Square root of the covariance of vector and squared length."""
    full_root: FloatArray | None
    """The same of all statistics; made where a client of `moment_clients` is large."""

    @classmethod
    def of(cls, rows_BD: FloatArray, *, needs_moments: bool) -> "_Bank":
        upper, lower = upper_triangle(rows_BD.shape[1])
        # In rows, as a sparse product reads it: other layouts are copied at every draw.
        moments_BM = np.ascontiguousarray(rows_BD[:, upper] * rows_BD[:, lower])
        rows_BA = np.ascontiguousarray(np.concatenate([rows_BD, (rows_BD**2).sum(axis=1, keepdims=True)], axis=1))
        full_root = _root(np.concatenate([rows_BA, moments_BM], axis=1)) if needs_moments else None
        mean = np.concatenate([rows_BA.mean(axis=0), moments_BM.mean(axis=0)])
        return cls(rows_BA, moments_BM, mean, _root(rows_BA), full_root)

    def draw(self, halves: _Halves, large: IntArray, row_N: IntArray, rng: Generator) -> tuple[FloatArray, FloatArray]:
        """Sums of vectors and squared lengths of both halves of all clients, and second moments of the large ones.

        `row_N` are the rows of the bank that the small halves take, one after the other.
        """
        num_clients, (num_rows, num_sums) = len(halves.sizes_K2), self.rows_BA.shape
        num_dimensions = num_sums - 1
        ends = np.concatenate([[0], np.cumsum(halves.small_K2.T.ravel())])
        picked = csr_matrix((np.ones(len(row_N)), row_N, ends), shape=(2 * num_clients, num_rows))
        sums_2KA = np.asarray(picked @ self.rows_BA).reshape(2, num_clients, num_sums)
        moments_LM = np.zeros((len(large), self.moments_BM.shape[1]))
        for half in range(2):
            sizes_K = halves.sizes_K2[:, half]
            drawn = np.flatnonzero(sizes_K > SMALL)
            if not len(drawn):
                continue
            sums_2KA[half, drawn] = _normal(sizes_K[drawn], self.mean[:num_sums], self.root, int(sizes_K.sum()), rng)
            is_drawn_L = sizes_K[large] > SMALL
            with_moments = large[is_drawn_L]
            if len(with_moments) and self.full_root is not None:
                sums = _normal(sizes_K[with_moments], self.mean, self.full_root, int(sizes_K.sum()), rng)
                sums_2KA[half, with_moments] = sums[:, :num_sums]
                moments_LM[is_drawn_L] += sums[:, num_sums:]
            dealt = half * num_clients + large[~is_drawn_L]
            moments_LM[~is_drawn_L] += picked[dealt] @ self.moments_BM
        return sums_2KA, moment_matrices(moments_LM, num_dimensions)


def _normal(sizes_K: IntArray, mean: FloatArray, root: FloatArray, num_rows: int, rng: Generator) -> FloatArray:
    """Sums over the rows of some of the clients, who have `num_rows` with all others."""
    noise = np.sqrt(sizes_K)[:, None] * (rng.standard_normal((len(sizes_K), len(root))) @ root)
    # All clients together are the pool: what is too much in all is taken from each by its rows, as far as the large
    # ones are the pool. (Taken whole, it would leave a single large client no noise, and two equal halves.)
    noise -= sizes_K[:, None] * (noise.sum(axis=0) / num_rows)
    return np.asarray(sizes_K[:, None] * mean + noise)


def _root(statistics_BA: FloatArray) -> FloatArray:
    """A matrix whose product with standard normal rows has the covariance of the statistics."""
    centred = statistics_BA - statistics_BA.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = values > 1e-12
    return np.asarray((axes[:, kept] * np.sqrt(values[kept])).T)


def _bank_rows(found: Observed) -> FloatArray:
    """Rows that are distributed as the pool's, as far as the clients' means and second moments tell."""
    rng = np.random.default_rng(0)
    sizes_K, sums_KD = found.rows.sizes_K, found.sums_KD
    num_dimensions = sums_KD.shape[1]
    p_K = sizes_K / sizes_K.sum()
    moments_DD = moment_matrices(found.moments_KM.sum(axis=0)[None] / SCALE, num_dimensions)[0]
    mean_D = sums_KD.sum(axis=0) / sizes_K.sum()
    pool_DD = moments_DD / sizes_K.sum() - np.outer(mean_D, mean_D)

    clients = (
        np.unique(rng.choice(len(sizes_K), BANK_CLIENTS, p=p_K)) if len(p_K) > BANK_CLIENTS else np.arange(len(p_K))
    )
    means_CD = sums_KD[clients] / sizes_K[clients, None]
    matrices_CDD = moment_matrices(found.moments_KM[clients] / SCALE, num_dimensions)
    matrices_CDD = matrices_CDD / sizes_K[clients, None, None] - means_CD[:, :, None] * means_CD[:, None, :]
    values_CD, axes_CDD = np.linalg.eigh(matrices_CDD)
    roots_CDD = axes_CDD * np.sqrt(np.maximum(values_CD, 0.0))[:, None, :]
    num_bank = min(BANK_ROWS, int(sizes_K.sum()))
    share_C = p_K[clients] / p_K[clients].sum()
    client_B = np.repeat(np.arange(len(clients)), rng.multinomial(num_bank, share_C))
    noise_BD = rng.standard_normal((num_bank, num_dimensions))
    rows_BD = means_CD[client_B] + np.einsum("bij,bj->bi", roots_CDD[client_B], noise_BD)
    for _ in range(_STEPS):
        rows_BD = _matched(directions(rows_BD), mean_D, pool_DD)
    return np.asarray(rows_BD)


def _matched(rows_BD: FloatArray, mean_D: FloatArray, covariance_DD: FloatArray) -> FloatArray:
    """The rows, moved and stretched so that they have this mean and covariance."""
    centred_BD = rows_BD - rows_BD.mean(axis=0)
    own_values_D, own_axes_DD = np.linalg.eigh(centred_BD.T @ centred_BD / len(rows_BD))
    values_D, axes_DD = np.linalg.eigh(covariance_DD)
    inverse_D = np.where(own_values_D > 1e-9, 1 / np.sqrt(np.maximum(own_values_D, 1e-9)), 0.0)
    white_BD = centred_BD @ (own_axes_DD * inverse_D) @ own_axes_DD.T
    return np.asarray(mean_D + white_BD @ (axes_DD * np.sqrt(np.maximum(values_D, 0.0))) @ axes_DD.T)


def _feature_sampler(stack: Stack, sizes_K: IntArray) -> Callable[[Generator], CentredSums]:
    num_rows = sizes_K.sum()
    mean_R = stack.vectors["rff"].sum(axis=0) / SCALE / num_rows
    sketch_S = stack.vectors["rff_sketch"].sum(axis=0) / SCALE / num_rows
    trace = float(stack.vectors["rff_square"].sum() / SCALE / num_rows - mean_R @ mean_R)
    squared_trace = trace_of_squared_covariance(mean_R, sketch_S)
    num_dimensions = max(1, round(trace**2 / squared_trace)) if squared_trace > 0 else 1
    num_dimensions = min(num_dimensions, len(mean_R))
    variance = float(np.sqrt(squared_trace / num_dimensions))
    spread_K1 = np.sqrt(sizes_K * variance)[:, None]

    def draw(rng: Generator) -> CentredSums:
        sums_KR = rng.standard_normal((len(sizes_K), num_dimensions))
        sums_KR *= spread_K1
        norms_K = np.einsum("kr,kr->k", sums_KR, sums_KR)
        # Squares of n normal rows: that of their sum over n, and, independent of it, chi-squared with n - 1.
        own_K = variance * 2 * rng.standard_gamma(num_dimensions * (sizes_K - 1) / 2)
        return CentredSums(sums_KR, norms_K, norms_K / sizes_K + own_K, sizes_K)

    return draw
