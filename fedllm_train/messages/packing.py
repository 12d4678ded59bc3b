"""Codecs: what packs the change of an adapter, as one vector, and unpacks it again.

`wire_names.py` says how a codec is written, `pipeline.py` what its stages do; `wire.py` which part of a message is
packed, and what the change is measured from.

A secure sum needs all clients to send the same places and scales, which these do not: with a codec the server sees
each update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.lazy_torch import torch
from fedllm_train.messages.pipeline import Pipeline
from fedllm_train.messages.place import Place
from fedllm_train.messages.wire_names import parse_wire

__all__ = ["Codec", "as_adapter", "as_vector", "codec_of", "layout"]


class Codec(Protocol):
    """Packs a vector and unpacks it again."""

    @property
    def norm_growth(self) -> float:
        """How many times as long what is unpacked is, as expected."""
        ...

    @property
    def is_unbiased(self) -> bool:
        """Whether the mean over all draws of what is unpacked is what was packed."""
        ...

    def pack(self, values: torch.Tensor, sizes: Sequence[int], place: Place) -> Adapter:
        """Return what is sent for d values in float64; `sizes` are the sizes of the tensors they come from.

        Raises:
            ValueError: if a value is not finite, or beyond what the codec can say.
        """
        ...

    def unpack(self, packed: Adapter, sizes: Sequence[int], place: Place) -> torch.Tensor:
        """Return d values in float64.

        Raises:
            ValueError: if what was sent does not fit.
        """
        ...


def codec_of(text: str) -> Codec | None:
    """Return the codec of a wire; None for `none`, which leaves values as they are.

    Args:
        text: as `wire_names.py` says.

    Raises:
        ConfigError: if it names no wire.

    >>> codec_of("none") is None, codec_of("drive").is_unbiased
    (True, True)
    """
    stages = parse_wire(text)
    return None if stages is None else Pipeline(stages)


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
