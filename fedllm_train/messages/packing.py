"""Smaller messages: the codecs that pack one vector of values, and the change of an adapter as such a vector.

Symbols: v one vector of d values (an adapter's tensors in the order of their names), Q its codec. `messages/wire.py`
says what part of a message is packed, and what the change is measured from.

none   values as they are
topk   the k = floor(topk_fraction d) values of the largest size, in float32, and where they stand: as positions of
       four bytes, or as one bit a value if that is shorter (from one value in 32 on). With `error_feedback` a client
       keeps what it did not send and adds it to its next change (Stich et al. 2018, arXiv 1809.07599); FLASC (Kuo et
       al. 2024, arXiv 2406.05233) sends its updates like this, without feedback
int8   stochastic rounding to 127 levels on either side of zero, one scale a tensor (Alistarh et al. 2017, QSGD, arXiv
int4   1610.02132; FedPAQ, arXiv 1909.13014): E[Q(v)] = v. int4 has 7 levels on either side, two values a byte

A secure sum needs all clients to send the same places and scales, which these do not: with a codec the server sees
each update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.lazy_torch import torch
from fedllm_train.messages.wire_settings import WireSettings

__all__ = ["CODECS", "Codec", "Quantised", "TopK", "as_adapter", "as_vector", "layout"]


class Codec(Protocol):
    """Packs a vector and unpacks it again."""

    def pack(self, values: torch.Tensor, sizes: Sequence[int], rng: np.random.Generator) -> Adapter:
        """Return what is sent for d values in float64; `sizes` are the sizes of the tensors they come from."""
        ...

    def unpack(self, packed: Adapter, sizes: Sequence[int]) -> torch.Tensor:
        """Return d values in float64.

        Raises:
            ValueError: if what was sent does not fit.
        """
        ...


class TopK:
    """The values of the largest size and their places."""

    def __init__(self, fraction: float) -> None:
        """Take the share of values that are sent."""
        self.fraction = fraction

    def num_sent(self, num_values: int) -> int:
        """Return k.

        >>> TopK(0.1).num_sent(25)
        2
        """
        return math.floor(self.fraction * num_values)

    def pack(self, values: torch.Tensor, sizes: Sequence[int], rng: np.random.Generator) -> Adapter:
        """Send the k largest values; among equal ones, the first."""
        order = torch.sort(values.abs(), descending=True, stable=True).indices
        places = order[: self.num_sent(len(values))].sort().values
        sent = {"values": values[places].to(torch.float32)}
        if 4 * len(places) <= math.ceil(len(values) / 8):
            return sent | {"places": places.to(torch.int32)}
        chosen = np.zeros(len(values), dtype=np.uint8)
        chosen[places.numpy()] = 1
        return sent | {"bits": torch.from_numpy(np.packbits(chosen))}

    def unpack(self, packed: Adapter, sizes: Sequence[int]) -> torch.Tensor:
        """Put the values in their places, zeros elsewhere."""
        num_values = sum(sizes)
        if "bits" in packed:
            if packed["bits"].shape != (math.ceil(num_values / 8),):
                raise ValueError("there is not one bit a value")
            chosen = np.unpackbits(packed["bits"].numpy(), count=num_values)
            places = torch.from_numpy(np.flatnonzero(chosen))
        else:
            places = packed["places"].long()
        if len(places) != len(packed["values"]) or bool(((places < 0) | (places >= num_values)).any()):
            raise ValueError("values and places do not fit")
        values = torch.zeros(num_values, dtype=torch.float64)
        values[places] = packed["values"].double()
        return values


class Quantised:
    """Stochastic rounding to a given number of levels on either side of zero, one scale a tensor."""

    def __init__(self, num_levels: int) -> None:
        """Take the levels: 127 for a byte, at most 7 for half a byte."""
        self._num_levels = num_levels
        self._halves = num_levels <= 7

    def pack(self, values: torch.Tensor, sizes: Sequence[int], rng: np.random.Generator) -> Adapter:
        """Send scales and levels: floor(v / scale + u) with u uniform in [0, 1), whose mean is v / scale."""
        scales, levels = [], []
        for tensor in values.split(list(sizes)):
            largest = float(tensor.abs().max()) if len(tensor) else 0.0
            # One step up in float32, so that no level is beyond the last one and none has to be clipped.
            scale = np.nextafter(np.float32(largest / self._num_levels), np.float32(np.inf))
            scales.append(scale)
            drawn = torch.from_numpy(rng.random(len(tensor)))
            levels.append(torch.floor(tensor / float(scale) + drawn).to(torch.int8))
        packed = torch.cat(levels)
        if self._halves:
            nibbles = (packed + 8).to(torch.uint8)
            nibbles = torch.cat([nibbles, nibbles.new_zeros(len(nibbles) % 2)])
            packed = nibbles[0::2] * 16 + nibbles[1::2]
        return {"scales": torch.tensor(np.array(scales, dtype=np.float32)), "levels": packed}

    def unpack(self, packed: Adapter, sizes: Sequence[int]) -> torch.Tensor:
        """Multiply levels by their tensor's scale."""
        levels, num_values = packed["levels"], sum(sizes)
        num_sent = math.ceil(num_values / 2) if self._halves else num_values
        if levels.shape != (num_sent,) or packed["scales"].shape != (len(sizes),):
            raise ValueError("levels and scales do not fit")
        if self._halves:
            levels = torch.stack([levels // 16, levels % 16], dim=1).flatten()[:num_values].to(torch.int8) - 8
        scale_of_each = packed["scales"].double().repeat_interleave(torch.tensor(list(sizes)))
        return levels.double() * scale_of_each


CODECS: dict[str, Callable[[WireSettings], Codec | None]] = {
    "none": lambda config: None,
    "topk": lambda config: TopK(config.topk_fraction),
    "int8": lambda config: Quantised(127),
    "int4": lambda config: Quantised(7),
}
"""Name -> codec; None leaves values as they are."""


def layout(adapter: Adapter) -> tuple[list[str], list[int]]:
    """Return the names of an adapter's tensors in order, and how many values each has.

    >>> layout({"b": torch.ones(2, 3), "a": torch.ones(1)})
    (['a', 'b'], [1, 6])
    """
    names = sorted(adapter)
    return names, [adapter[name].numel() for name in names]


def as_vector(adapter: Adapter) -> torch.Tensor:
    """Return an adapter's values as one vector, tensors in the order of their names.

    >>> as_vector({"b": torch.ones(2), "a": torch.zeros(1)}).tolist()
    [0.0, 1.0, 1.0]
    """
    return torch.cat([adapter[name].flatten() for name in sorted(adapter)])


def as_adapter(values: torch.Tensor, like: Adapter) -> Adapter:
    """Undo `as_vector`; names and shapes are those of `like`.

    >>> as_adapter(torch.arange(3.0), {"b": torch.ones(2), "a": torch.zeros(1)})["b"].tolist()
    [1.0, 2.0]
    """
    names, sizes = layout(like)
    return {n: each.reshape(like[n].shape).clone() for n, each in zip(names, values.split(sizes), strict=True)}
