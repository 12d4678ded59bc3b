"""What of a vector is sent, by its size alone: the segment, how many values are chosen, which share a scale.

Imports no torch: plans count bytes from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedllm_train.messages.hadamard import block_sizes
from fedllm_train.messages.scales import block_sizes_of
from fedllm_train.messages.segments import segment_bounds
from fedllm_train.messages.wire_names import WireStages

__all__ = ["VectorCut", "cut_of"]


@dataclass(frozen=True)
class VectorCut:
    """What of a vector is sent."""

    start: int
    """Where the segment begins in the vector."""
    stop: int
    """Where it ends."""
    num_chosen: int
    """Values of the segment that are chosen; all of them without top-k."""
    num_sent: int
    """Values that are quantised: the chosen ones, with those that fill the last rotated block."""
    groups: list[int]
    """The sizes of the groups of these values that share a scale."""

    @property
    def num_values(self) -> int:
        """The length of the segment."""
        return self.stop - self.start

    @property
    def has_places(self) -> bool:
        """Whether some values are chosen and others are not."""
        return 0 < self.num_chosen < self.num_values


def cut_of(stages: WireStages, sizes: Sequence[int], segment: int | None = None) -> VectorCut:
    """Return what of a vector is sent.

    A scale is that of a tensor, or of its part in the segment; of all values that top-k chose; of a rotated block; of
    a block of values where the quantiser names its size.

    Args:
        stages: how the vector is packed.
        sizes: the sizes of the tensors that it is made of.
        segment: the segment, if one is sent.

    >>> cut_of(WireStages(topk=0.1), [25, 5]).num_chosen
    3
    """
    start, stop = 0, sum(sizes)
    if stages.segments is not None:
        assert segment is not None
        start, stop = segment_bounds(stop, stages.segments, segment)
    groups = _inside(sizes, start, stop)
    num_chosen = stop - start
    if stages.topk is not None:
        num_chosen = math.floor(stages.topk * num_chosen)
        groups = [num_chosen]
    if stages.hadamard is not None:
        groups = block_sizes(num_chosen, stages.hadamard)
    num_sent = sum(groups)
    if stages.block is not None:
        groups = block_sizes_of(num_sent, stages.block)
    return VectorCut(start, stop, num_chosen, num_sent, groups)


def _inside(sizes: Sequence[int], start: int, stop: int) -> list[int]:
    """The sizes of the tensors' parts between two places; of all tensors where that is the whole vector."""
    if (start, stop) == (0, sum(sizes)):
        return list(sizes)
    parts, begin = [], 0
    for size in sizes:
        part = min(stop, begin + size) - max(start, begin)
        begin += size
        if part > 0:
            parts.append(part)
    return parts
