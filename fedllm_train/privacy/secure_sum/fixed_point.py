"""Fixed point: values as whole numbers modulo 2^b, so that masks cancel to the bit, and the bound on their sums.

Symbols: b bits of the ring (32 or 64), f fraction bits, n clients, w a client's weight, c the clip. A client sends

    round(w clamp(x, -c, c) 2^f) mod 2^b

for each value x, rounded to the nearest whole number and halves to the even one: what is sent follows from the update
alone, so a round that is made again has the same sum. The weight comes before the rounding, and the weights are summed
as one more number, so the mean of w x is off by at most n / (2 sum(w)) steps of 2^-f. Sums of n clients are whole
numbers between -2^(b-1) and 2^(b-1), so they do not wrap, where

    n ceil(W c 2^f) < 2^(b-1),    W the largest weight.

`SumSpec` holds what all ends of a run agree on, and refuses numbers for which this does not hold. With noise
(`skellam.py`), c bounds the norm of a client's whole change. Imports no torch.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import ConfigError

__all__ = ["MAX_LOSS", "SumSpec", "decoded", "encoded", "most_fraction_bits"]

MAX_LOSS = 64.0
"""Mean losses are summed beside the updates; one above this counts as this."""
_MOST_FRACTION_BITS = 40
_MOST_LOSS_BITS = 20
_NOISE_DEVIATIONS = 20
"""Room for the noise of all clients, in its standard deviations."""
_PIECE = 1 << 20

Vector = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class SumSpec:
    """What both ends of a run's secure sums agree on."""

    bits: int
    """Of the ring: 32 or 64."""
    fraction_bits: int
    """f: values are sent in steps of 2^-f."""
    clip: float
    """Largest magnitude of a value; with noise, largest norm of a client's change."""
    max_clients: int
    """n: of one round."""
    max_weight: int
    """Largest weight of a client."""
    threshold: float
    """Share of a round's clients without whom nothing can be opened; more than half, at most 1."""
    min_clients: int = 3
    """Clients that the least sum is of."""
    num_rounds: int
    """Rounds of the run; with noise, no client takes part in more."""
    noise: float = 0.0
    """Variance of the noise of one client, in squared steps; 0 for none."""

    def __post_init__(self) -> None:
        """Refuse numbers with which a sum could wrap, or tell of fewer than three clients.

        Raises:
            ConfigError: naming the number.
        """
        if self.bits not in (32, 64):
            raise ConfigError(f"secure_sum_bits is {self.bits}; it must be 32 or 64")
        if not 0 <= self.fraction_bits <= _MOST_FRACTION_BITS:
            raise ConfigError(
                f"a secure sum with {self.fraction_bits} fraction bits cannot be made; between 0 and "
                f"{_MOST_FRACTION_BITS} are possible"
            )
        if not 0 < self.clip < math.inf:
            raise ConfigError(f"secure_sum_clip is {self.clip}; it must be positive")
        if self.max_clients < 3 or self.min_clients < 3:
            least = min(self.max_clients, self.min_clients)
            raise ConfigError(f"a secure sum of {least} clients would tell too much of each; it needs three at least")
        if self.max_weight < 1 or self.num_rounds < 1:
            raise ConfigError("a secure sum needs weights and rounds of at least 1")
        if not 0.5 < self.threshold <= 1:
            raise ConfigError(
                f"secure_sum_threshold is {self.threshold}; more than half of the clients must be left, so it must be "
                "above 0.5 and at most 1"
            )
        if not 0 <= self.noise < 2.0**50:
            raise ConfigError("the noise of a secure sum must be of a variance from 0 to 2^50 squared steps")
        if self.largest_sum >= 2 ** (self.bits - 1):
            raise ConfigError(
                f"sums of {self.max_clients} clients of weight up to {self.max_weight:,}, clipped to {self.clip:g} in "
                f"steps of 2^-{self.fraction_bits}, may reach {self.largest_sum:,}, and the ring of {self.bits} bits "
                f"wraps at {2 ** (self.bits - 1):,}; use secure_sum_bits 64, or a smaller secure_sum_clip"
            )

    @property
    def dtype(self) -> Any:
        """NumPy's type of the ring."""
        return np.dtype("<u4") if self.bits == 32 else np.dtype("<u8")

    @property
    def largest_sum(self) -> int:
        """Largest magnitude that a sum can have without its noise passing what is set apart for it."""
        one = _largest_value(self.clip, self.max_weight, self.fraction_bits)
        room = math.ceil(_NOISE_DEVIATIONS * math.sqrt(self.max_clients * self.noise))
        return self.max_clients * one + room

    @property
    def loss_bits(self) -> int:
        """Fraction bits of the sum of losses; below zero where even whole losses could wrap."""
        room = Fraction(2 ** (self.bits - 1), self.max_clients * self.max_weight * int(MAX_LOSS))
        return min(_MOST_LOSS_BITS, _floor_log2(room) - 1)

    def threshold_of(self, num_clients: int) -> int:
        """Return t: how many of a round's clients must be left for its sum to be opened.

        >>> spec = SumSpec(
        ...     bits=32, fraction_bits=16, clip=1.0, max_clients=10, max_weight=1, threshold=2 / 3, num_rounds=1
        ... )
        >>> [spec.threshold_of(n) for n in (3, 4, 6, 10)]
        [3, 3, 4, 7]
        """
        share = math.ceil(Fraction(self.threshold).limit_denominator(1000) * num_clients)
        return max(self.min_clients, share, num_clients // 2 + 1)


def most_fraction_bits(*, bits: int, clip: float, max_clients: int, max_weight: int) -> int:
    """Return the most fraction bits with which sums cannot wrap; negative if there are none.

    Args:
        bits: of the ring.
        clip: c.
        max_clients: n.
        max_weight: W.

    >>> most_fraction_bits(bits=32, clip=1.0, max_clients=10, max_weight=100)
    21
    >>> 10 * 100 * 2**21 < 2**31 <= 10 * 100 * 2**22
    True
    """
    found = min(
        _MOST_FRACTION_BITS, _floor_log2(Fraction(2 ** (bits - 1)) / (Fraction(clip) * max_clients * max_weight)) + 1
    )
    while found >= 0 and max_clients * _largest_value(clip, max_weight, found) >= 2 ** (bits - 1):
        found -= 1
    return found


def encoded(values: npt.ArrayLike, weight: int, spec: SumSpec) -> tuple[Vector, bool]:
    """Return values as elements of the ring, and whether any was clipped.

    Args:
        values: (D,) finite numbers.
        weight: w, from 1 to the largest.
        spec: the ring and the clip.

    Raises:
        ValueError: for a value that is not finite, or a weight beyond the largest.

    >>> spec = SumSpec(
    ...     bits=32, fraction_bits=4, clip=1.0, max_clients=3, max_weight=2, threshold=1.0, num_rounds=1
    ... )
    >>> ring, was_clipped = encoded([0.5, -1.5, 0.0], 2, spec)
    >>> decoded(ring, spec.fraction_bits).tolist(), was_clipped
    ([1.0, -2.0, 0.0], True)
    """
    if not 1 <= weight <= spec.max_weight or weight != int(weight):
        raise ValueError(f"a weight of {weight} is none from 1 to {spec.max_weight}")
    flat = np.asarray(values)
    ring = np.empty(flat.shape, dtype=spec.dtype)
    scale, was_clipped = float(int(weight) * 2**spec.fraction_bits), False
    for start in range(0, len(flat), _PIECE):
        piece = flat[start : start + _PIECE].astype(np.float64)
        if not np.isfinite(piece).all():
            raise ValueError("a value is not finite")
        was_clipped = was_clipped or bool((np.abs(piece) > spec.clip).any())
        np.clip(piece, -spec.clip, spec.clip, out=piece)
        piece *= scale
        ring[start : start + _PIECE] = np.rint(piece).astype(np.int64).astype(spec.dtype)
    return ring, was_clipped


def decoded(total: Vector, fraction_bits: int) -> npt.NDArray[np.float64]:
    """Return what elements of the ring stand for: numbers on either side of zero.

    Args:
        total: uint32 or uint64.
        fraction_bits: f.
    """
    signed = total.view(np.dtype(f"<i{total.dtype.itemsize}"))
    return signed.astype(np.float64) * 2.0**-fraction_bits


def _largest_value(clip: float, weight: int, fraction_bits: int) -> int:
    """Of one client, with what float64 may round a large product up by."""
    return math.ceil(Fraction(clip) * weight * 2**fraction_bits * (1 + Fraction(1, 2**50)))


def _floor_log2(ratio: Fraction) -> int:
    """The largest whole e with 2^e at most the ratio."""
    found = ratio.numerator.bit_length() - ratio.denominator.bit_length()
    return found if Fraction(2) ** found <= ratio else found - 1
