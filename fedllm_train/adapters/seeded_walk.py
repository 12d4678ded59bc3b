"""A walk along directions that a seed names: where it leads follows from one integer a seed, whatever its order.

Symbols: theta0 the start, K seeds, z_j the direction of seed j (one normal number for each value of the adapter), a_j
how far the walk went along z_j in all:

    theta = theta0 - sum_j a_j z_j.

Both factors are fixed-point numbers: a_j = n_j 2^-30 with n_j an int32, and every entry of z_j is an integer times
2^-12. The sum is therefore one of 64-bit integers, which no order of summation and no detour changes, and which cannot
overflow for K <= 65,536: |n| < 2^31, |Z| < 2^15. It becomes a float64 number once, and that is rounded once to the
precision of theta0. So a client that walks step by step, a server that adds up scalars and a client that rebuilds
the adapter from them reach the same bits on every machine.

z_j follows from (run seed, j, name of the tensor, position) alone: a Philox counter generator, whose key is the run
seed and j and whose counter begins at a hash of the name, gives 16 uniform bits a value, and a table of the normal
distribution's quantiles at the centres of 65,536 equal parts turns them into numbers: mean 0, variance 0.99998, fourth
moment 2.9991, largest 4.325. Order of tensors, device, number of threads and numpy's own normals play no part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import blake2b

import numpy as np

from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.lazy_torch import torch

__all__ = ["LARGEST_MOVE", "MAX_SEEDS", "UNIT", "SeededWalk", "direction", "fixed_point", "starts_alike"]

UNIT = 2.0**-30
"""What one unit of a scalar is: about 1e-9 of a direction's length along every axis."""
LARGEST_MOVE = 2**30 - 1
"""A seed's scalar stays within this many units, about 1, so that any difference of two fits 32 bits; a walk that goes
further has long diverged."""
MAX_SEEDS = 2**16
"""Beyond it a sum could overflow 64 bits."""

_NORMAL_UNIT = 2.0**-12
_BLOCK = 2**16
"""Values in a block: its 64-bit sums stay in a core's cache while one direction after the other is added."""
_VALUES_PER_COUNT = 16
"""A count of the generator gives four 64-bit words, of four values each."""


def fixed_point(scalar: float) -> int:
    """Return a scalar in units of 2^-30, rounded to the nearest.

    >>> fixed_point(0.25) == 2**28, fixed_point(-1e-10)
    (True, 0)
    """
    return round(scalar / UNIT)


def direction(run_seed: int, seed_index: int, name: str, start: int, stop: int) -> np.ndarray:
    """Return values of one seed's direction, in units of 2^-12.

    Args:
        run_seed: the run's seed, not negative.
        seed_index: which of the K seeds.
        name: the tensor's name.
        start: position of the first value in the flat tensor; a multiple of 16.
        stop: position after the last one.

    Returns:
        (stop - start,) int16.

    >>> whole = direction(0, 7, "x.lora_A.weight", 0, 100)
    >>> bool((whole[32:] == direction(0, 7, "x.lora_A.weight", 32, 100)).all())
    True
    """
    assert start % _VALUES_PER_COUNT == 0
    counter = np.array([start // _VALUES_PER_COUNT, *_name_counter(name)], dtype=np.uint64)
    bits = np.random.Philox(key=np.array([_seed_key(run_seed), seed_index], dtype=np.uint64), counter=counter)
    words = bits.random_raw(-(-(stop - start) // 4))
    # Little-endian by name, so that the four values of a word come in one order on every machine.
    return _quantiles().take(words.astype("<u8", copy=False).view("<u2")[: stop - start])


class SeededWalk:
    """A place, reached from a start along seeded directions; it can go anywhere from anywhere."""

    def __init__(self, start: Adapter, *, run_seed: int, num_seeds: int) -> None:
        """Stand at the start.

        Args:
            start: the tensors to walk from, float32 or float64; the walk keeps them, not copies.
            run_seed: what the directions follow from.
            num_seeds: K, at most `MAX_SEEDS`.
        """
        self.start = start
        """Where every scalar is 0."""
        self._seed = run_seed
        self._scalars = np.zeros(num_seeds, dtype=np.int64)
        self._moved = {name: np.zeros(tensor.numel(), dtype=np.int64) for name, tensor in start.items()}

    @property
    def scalars(self) -> np.ndarray:
        """(K,) how far the walk went along each direction, in units of 2^-30; a copy."""
        return self._scalars.copy()

    def go_to(self, scalars: np.ndarray) -> None:
        """Go to the place of these scalars; only directions whose scalar differs are drawn.

        Args:
            scalars: (K,) integers in units of 2^-30, within `LARGEST_MOVE` of 0.
        """
        change = scalars.astype(np.int64) - self._scalars
        differing = np.flatnonzero(change)
        for name, moved in self._moved.items():
            for start, stop in _blocks(len(moved)):
                for j in differing:
                    moved[start:stop] += direction(self._seed, int(j), name, start, stop) * change[j]
        self._scalars += change

    def move(self, seed_index: int, units: int) -> None:
        """Go along one direction."""
        scalars = self.scalars
        scalars[seed_index] += units
        self.go_to(scalars)

    def place(self) -> Adapter:
        """Return the adapter here, rounded once to the precision of the start."""
        return {name: self._rounded(name, values) for name, values in self._exact()}

    def beside(self, seed_index: int, distance: float) -> tuple[Adapter, Adapter]:
        """Return the adapters a distance ahead of this place along a direction and as far behind it.

        Args:
            seed_index: the direction z.
            distance: in units of z's entries, whose variance is 1.
        """
        ahead, behind = {}, {}
        for name, values in self._exact():
            z = direction(self._seed, seed_index, name, 0, len(values)) * (distance * _NORMAL_UNIT)
            ahead[name], behind[name] = self._rounded(name, values + z), self._rounded(name, values - z)
        return ahead, behind

    def _exact(self) -> Iterator[tuple[str, np.ndarray]]:
        for name, tensor in self.start.items():
            yield name, tensor.double().numpy().reshape(-1) - self._moved[name] * (UNIT * _NORMAL_UNIT)

    def _rounded(self, name: str, values: np.ndarray) -> torch.Tensor:
        like = self.start[name]
        return torch.from_numpy(values).reshape(like.shape).to(like.dtype)


def starts_alike(walk: SeededWalk, start: Mapping[str, torch.Tensor]) -> bool:
    """Return whether a walk began at these very tensors."""
    return walk.start.keys() == start.keys() and all(walk.start[name] is start[name] for name in start)


def _blocks(size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, _BLOCK):
        yield start, min(size, start + _BLOCK)


@cache
def _quantiles() -> np.ndarray:
    from scipy.special import ndtri  # brings SciPy

    return np.round(ndtri((np.arange(2**16) + 0.5) / 2**16) / _NORMAL_UNIT).astype(np.int16)


@cache
def _seed_key(run_seed: int) -> int:
    return int(np.random.SeedSequence([run_seed, _digest("seeded walk", 8)[0]]).generate_state(1, np.uint64)[0])


@cache
def _name_counter(name: str) -> tuple[int, ...]:
    return tuple(_digest(name, 24))


def _digest(text: str, size: int) -> list[int]:
    return np.frombuffer(blake2b(text.encode(), digest_size=size).digest(), dtype="<u8").tolist()
