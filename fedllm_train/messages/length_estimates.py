"""How long entropy-coded parts of a message are, as expected: what `packed_length.py` cannot know exactly.

Values count as drawn from a Gaussian, which for LoRA updates is near but not exact: AdamW's are flatter and take up to
a fifth more, heavier tails take less. Codes of levels and bytes take what Huffman's algorithm gives on the expected
frequencies. Imports no torch.

Symbols: L levels on either side of zero, s a step between two of them, in standard deviations.
"""

from __future__ import annotations

import heapq
import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from statistics import NormalDist

from fedllm_train.messages.golomb import mean_place_bits
from fedllm_train.messages.vector_cut import VectorCut
from fedllm_train.messages.wire_names import WireStages

__all__ = ["code_bytes", "gap_bytes", "huffman_bits"]

_POINTS = 4096
"""Points of a distribution that stand for all of it, each of the same probability."""


def gap_bytes(cut: VectorCut) -> int:
    """Return the bytes of the places of chosen values, as expected where they are spread evenly.

    >>> gap_bytes(VectorCut(0, 80_000, 8_000, 8_000, [8_000]))
    4756
    """
    return math.ceil(cut.num_chosen * mean_place_bits(cut.num_chosen / cut.num_values) / 8)


def code_bytes(stages: WireStages, cut: VectorCut) -> int:
    """Return the bytes of the Huffman codes of what is sent of a vector, as expected.

    Args:
        stages: how it is packed, with `huffman`.
        cut: what of it is sent.
    """
    share = cut.num_chosen / cut.num_values if cut.num_values else 1.0
    share = share if stages.hadamard is None else 1.0  # a rotation makes Gaussians of what was chosen
    if stages.levels is not None:
        bits = _level_bits(stages, share, max(cut.groups, default=1))
    else:
        bits = _number_bits(share) + (0 if stages.quantise == "bfloat16" else 16)
    return math.ceil(cut.num_sent * bits / 8)


def huffman_bits(frequencies: Iterable[float]) -> float:
    """Return the mean length of Huffman codes of symbols with some frequencies, whose sum is 1.

    >>> huffman_bits([0.5, 0.25, 0.25]), huffman_bits([0.9, 0.1]), huffman_bits([1.0])
    (1.5, 1.0, 1.0)
    """
    heap = [each for each in frequencies if each > 0]
    if len(heap) == 1:
        return 1.0
    heapq.heapify(heap)
    total = 0.0
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        total += both
        heapq.heappush(heap, both)
    return total


def _sizes(share: float) -> Iterator[float]:
    """Sizes of a Gaussian's values, the largest `share` of them, at points of the same probability."""
    normal = NormalDist()
    for point in range(_POINTS):
        beyond = share * (point + 0.5) / _POINTS
        yield -normal.inv_cdf(beyond / 2)


def _level_bits(stages: WireStages, share: float, group: int) -> float:
    """Bits a level: the largest of a group, as expected, is the last level."""
    assert stages.levels is not None
    # The median of the largest size of all values that the group's were chosen from.
    step = -NormalDist().inv_cdf((1 - 0.5 ** (share / max(group, 1))) / 2) / stages.levels
    counts: Counter[int] = Counter()
    for size in _sizes(share):
        at = min(size / step, stages.levels)
        low = round(at) if stages.nearest else math.floor(at)
        up = 0.0 if stages.nearest else at - low
        for level, part in ((low, 1 - up), (low + 1, up)):
            for signed in (level, -level):
                counts[signed] += part / (2 * _POINTS)
    return huffman_bits(counts.values())


def _number_bits(share: float) -> float:
    """Bits of the two highest bytes of a float32, which are those of a bfloat16, at a standard deviation of 1."""
    planes: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    for size in _sizes(share):
        high, low = struct.pack(">f", size)[:2]
        planes[0].update({high: 0.5 / _POINTS, high + 128: 0.5 / _POINTS})
        planes[1][low] += 1 / _POINTS
    return sum(huffman_bits(plane.values()) for plane in planes)
