"""Which noise of different rounds is related, and how: forms of the matrix C of A = B C, and what they cost.

Symbols: A the (n, n) matrix of ones on and below its diagonal, which adds up rounds; x the clipped sums of n rounds;
Z independent standard normal noise; C a lower triangular matrix and B = A C^-1. The server releases

    B (C x + z Z) = A (x + z C^-1 Z),

so that round t adds w_t = (C^-1 Z)_t, in units of z times the clip: noise that later rounds partly take back (Kairouz
et al. 2021, arXiv 2103.00039; Denisov et al. 2022, arXiv 2202.08312). The privacy is that of one Gaussian mechanism on
C x (`sensitivity.py`), the noise on what was learned by round t has deviation ||row t of B||.

Toeplitz   C[t, t - j] = c_j for j below the number of bands; w_t from the bands - 1 rounds before (Choquette-Choo et
           al. 2023, arXiv 2306.08153; Kalinin and Lampert 2024, arXiv 2405.13763)
Banded     the same with coefficients of their own for each round: rows[t][j] = C[t, t - j]
Blt        buffered linear Toeplitz (McMahan et al. 2024, arXiv 2404.16706): c_0 = 1 and
           c_j = sum_i omega_i theta_i^(j-1); one buffer for each i, however many rounds
Tree       a node's noise for each complete node of the binary tree over the rounds; the sum up to t has those of its
           decomposition into nodes. C has a row for each node. Plain: nodes below are not used to steady a node

NumPy alone; imports no torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from fedllm_train.privacy.sensitivity import (
    matrix_sensitivity,
    toeplitz_sensitivity,
    tree_sensitivity,
)

__all__ = ["Banded", "Blt", "NoiseForm", "Recurrence", "Toeplitz", "Tree", "nodes_of_sum", "sensitivity_of"]

Array = npt.NDArray[np.float64]


class NoiseForm(Protocol):
    """A form of C."""

    name: ClassVar[str]

    def sensitivity(self, num_rounds: int, min_separation: int, max_participations: int) -> float:
        """Return the most that a client moves C x in the first rounds, in clips."""
        ...

    def round_deviations(self, num_rounds: int) -> Array:
        """Return the deviation of each round's noise, in units of z times the clip."""
        ...

    def sum_deviations(self, num_rounds: int) -> Array:
        """Return the deviation of the noise on the sum of the rounds up to each, in units of z times the clip."""
        ...

    @property
    def num_buffers(self) -> int:
        """Return how many noises of the adapter's size are kept between rounds."""
        ...


class Recurrence(NoiseForm, Protocol):
    """A form whose noise follows from the noise before by a recurrence."""

    def next_noise(self, step: int, fresh: Array, buffers: list[Array]) -> Array:
        """Return w_t, and bring the buffers up to date in place.

        Args:
            step: t, from 0; buffers are empty then.
            fresh: Z_t, which may be overwritten.
            buffers: what the rounds before left.
        """
        ...


class _Invariant:
    """What is calculated from a recurrence that is the same in every round: its inverse is Toeplitz, too."""

    def next_noise(self, step: int, fresh: Array, buffers: list[Array]) -> Array:
        raise NotImplementedError

    def round_deviations(self, num_rounds: int) -> Array:
        return np.sqrt(np.cumsum(self._inverse_column(num_rounds) ** 2))

    def sum_deviations(self, num_rounds: int) -> Array:
        return np.sqrt(np.cumsum(np.cumsum(self._inverse_column(num_rounds)) ** 2))

    def _inverse_column(self, num_rounds: int) -> Array:
        """The first column of C^-1: what a single 1 in round 0 becomes."""
        buffers: list[Array] = []
        units = [np.array(float(not step)) for step in range(num_rounds)]
        return np.array([float(self.next_noise(step, unit, buffers)) for step, unit in enumerate(units)])


@dataclass(frozen=True, kw_only=True)
class Toeplitz(_Invariant):
    """The same bands in every round."""

    name: ClassVar[str] = "toeplitz"
    coefficients: tuple[float, ...]
    """c_0, c_1, ...; the first is positive."""

    @property
    def num_buffers(self) -> int:
        """Return the bands but one."""
        return len(self.coefficients) - 1

    def sensitivity(self, num_rounds: int, min_separation: int, max_participations: int) -> float:
        """Return the sensitivity of C: exact where the coefficients never rise or no two turns overlap.

        >>> round(Toeplitz(coefficients=(1.0, 0.5)).sensitivity(4, 4, 1) ** 2, 6)
        1.25
        """
        return toeplitz_sensitivity(
            np.array(self.coefficients),
            num_rounds,
            min_separation=min_separation,
            max_participations=max_participations,
        )

    def next_noise(self, step: int, fresh: Array, buffers: list[Array]) -> Array:
        """Return (Z_t - sum_j c_j w_(t-j)) / c_0; the buffers hold the newest noises, the newest first."""
        return _banded_step(self.coefficients, fresh, buffers)


@dataclass(frozen=True, kw_only=True)
class Banded:
    """Bands of its own for each round."""

    name: ClassVar[str] = "banded"
    rows: tuple[tuple[float, ...], ...]
    """rows[t][j] = C[t, t - j]; what lies left of the first round counts nothing."""

    @property
    def num_buffers(self) -> int:
        """Return the bands but one."""
        return len(self.rows[0]) - 1

    def matrix(self, num_rounds: int) -> Array:
        """Return C for the first rounds.

        >>> Banded(rows=((2.0, 9.0), (1.0, 0.5))).matrix(2).tolist()
        [[2.0, 0.0], [0.5, 1.0]]
        """
        matrix = np.zeros((num_rounds, num_rounds))
        for step, row in enumerate(self.rows[:num_rounds]):
            for back, value in enumerate(row[: step + 1]):
                matrix[step, step - back] = value
        return matrix

    def sensitivity(self, num_rounds: int, min_separation: int, max_participations: int) -> float:
        """Return the sensitivity of C: exact where it has at most `min_separation` bands."""
        return matrix_sensitivity(
            self.matrix(num_rounds), min_separation=min_separation, max_participations=max_participations
        )

    def round_deviations(self, num_rounds: int) -> Array:
        """Return the norms of the rows of C^-1."""
        return np.linalg.norm(self._inverse(num_rounds), axis=1)

    def sum_deviations(self, num_rounds: int) -> Array:
        """Return the norms of the rows of A C^-1."""
        return np.linalg.norm(np.cumsum(self._inverse(num_rounds), axis=0), axis=1)

    def _inverse(self, num_rounds: int) -> Array:
        buffers: list[Array] = []
        return np.stack([self.next_noise(step, unit, buffers) for step, unit in enumerate(np.eye(num_rounds))])

    def next_noise(self, step: int, fresh: Array, buffers: list[Array]) -> Array:
        """Return (Z_t - sum_j C[t, t-j] w_(t-j)) / C[t, t]."""
        return _banded_step(self.rows[step], fresh, buffers)


@dataclass(frozen=True, kw_only=True)
class Blt(_Invariant):
    """A few buffers, each of which forgets at its own pace."""

    name: ClassVar[str] = "blt"
    theta: tuple[float, ...]
    """What a buffer keeps from round to round, in [0, 1)."""
    omega: tuple[float, ...]
    """How much of each buffer is taken off, as many."""

    @property
    def num_buffers(self) -> int:
        """Return how many there are."""
        return len(self.theta)

    def column(self, num_rounds: int) -> Array:
        """Return the first column of C.

        >>> Blt(theta=(0.5,), omega=(0.5,)).column(4).tolist()
        [1.0, 0.5, 0.25, 0.125]
        """
        powers = np.power(np.array(self.theta)[:, None], np.arange(max(num_rounds - 1, 0)))
        return np.concatenate([[1.0], np.array(self.omega) @ powers])[:num_rounds]

    def sensitivity(self, num_rounds: int, min_separation: int, max_participations: int) -> float:
        """Return the sensitivity of C: exact where the coefficients never rise."""
        return toeplitz_sensitivity(
            self.column(num_rounds), num_rounds, min_separation=min_separation, max_participations=max_participations
        )

    def next_noise(self, step: int, fresh: Array, buffers: list[Array]) -> Array:
        """Return Z_t - sum_i omega_i s_i, after which s_i becomes theta_i s_i + w_t."""
        if not buffers:
            buffers += [np.zeros(np.shape(fresh)) for _ in self.theta]
        for omega, buffer in zip(self.omega, buffers, strict=True):
            fresh = fresh - omega * buffer
        for theta, buffer in zip(self.theta, buffers, strict=True):
            buffer *= theta
            buffer += fresh
        return fresh


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The binary tree over the rounds."""

    name: ClassVar[str] = "tree"

    @property
    def num_buffers(self) -> int:
        """Return 0: a node's noise is drawn again whenever it is needed."""
        return 0

    def sensitivity(self, num_rounds: int, min_separation: int, max_participations: int) -> float:
        """Return a bound on the sensitivity of the tree, exact for one turn.

        >>> round(Tree().sensitivity(1000, 1000, 1) ** 2, 6)
        10.0
        """
        return tree_sensitivity(num_rounds, min_separation=min_separation, max_participations=max_participations)

    def round_deviations(self, num_rounds: int) -> Array:
        """Return the root of the nodes that come or go with each round.

        >>> (Tree().round_deviations(4) ** 2).round(6).tolist()
        [1.0, 2.0, 1.0, 3.0]
        """
        changes = [len({*nodes_of_sum(step)} ^ {*nodes_of_sum(step + 1)}) for step in range(num_rounds)]
        return np.sqrt(np.array(changes, dtype=np.float64))

    def sum_deviations(self, num_rounds: int) -> Array:
        """Return the root of the nodes of each sum."""
        return np.sqrt(np.array([len([*nodes_of_sum(step + 1)]) for step in range(num_rounds)], dtype=np.float64))


def nodes_of_sum(num_rounds: int) -> Iterator[tuple[int, int]]:
    """Yield the nodes that make up the first rounds, as (level, position in the level), the largest first.

    >>> [*nodes_of_sum(6)]  # rounds 0 to 3, and 4 and 5
    [(2, 0), (1, 2)]
    """
    start = 0
    for level in reversed(range(num_rounds.bit_length())):
        if num_rounds >> level & 1:
            yield level, start >> level
            start += 1 << level


def _banded_step(coefficients: Sequence[float], fresh: Array, buffers: list[Array]) -> Array:
    noise = fresh
    for coefficient, earlier in zip(coefficients[1:], buffers, strict=False):
        noise = noise - coefficient * earlier
    noise = noise / coefficients[0]
    if len(coefficients) > 1:
        buffers.insert(0, noise)
        del buffers[len(coefficients) - 1 :]
    return noise


@lru_cache(maxsize=512)
def sensitivity_of(form: NoiseForm, num_rounds: int, min_separation: int, max_participations: int) -> float:
    """Return a form's sensitivity, calculated once."""
    return form.sensitivity(num_rounds, min_separation, max_participations)
