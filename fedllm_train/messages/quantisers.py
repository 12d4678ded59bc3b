"""Quantising: values as numbers of fewer bits, and back. NumPy alone.

float32, bfloat16   each value rounded to the nearest such number
int8, int4, int3    v / s rounded to one of 127, 7 or 3 levels on either side of zero. Drawn (the default):
                    floor(v / s + u) with u uniform in [0, 1), whose mean is v / s (Alistarh et al. 2017, QSGD, arXiv
                    1610.02132; FedPAQ, arXiv 1909.13014). `nearest`: half the error, but its mean is off. The scale s
                    is that of a group (a tensor; all values that were selected; a rotated block) in float32, or with
                    `block` that of this many values in float16
sign                s = mean |v| of a block, and one bit: zero counts as positive. Never longer than v
drive               DRIVE (Vargaftik et al. 2021, arXiv 2105.08339): one bit of every rotated value, and for each
                    rotated block s = |x|_2^2 / |x|_1, with which the mean over rotations is the vector itself; or
                    `biased`, s = |x|_1 / b, of the least error and never longer than x

Where DRIVE's mean is exact: in the direction of the vector always, for each draw (<x, decoded x> = |x|^2); in all
directions for rotations that are drawn from all there are. A Hadamard matrix with random signs is close to that where
many values of a block have some size, and is not where two or three hold all of its norm: (2, 1, 0, 0, ...) always
decodes to (2.5, 0, 0, 0, ...).

The scales of blocks are written as `scales.py` says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedllm_train.messages.scales import (
    CHUNK,
    block_scales,
    block_sizes_of,
    group_scales,
    read_scales,
    reduced,
    spread,
)
from fedllm_train.messages.wire_names import WireStages

__all__ = [
    "Packed",
    "as_bfloat16",
    "from_bfloat16",
    "pack_drive",
    "pack_levels",
    "pack_sign",
    "unpack_levels",
    "unpack_sign",
]

Packed = dict[str, np.ndarray]
"""Tensors of a message by name."""


def pack_levels(
    values: np.ndarray, groups: Sequence[int], stages: WireStages, rng: np.random.Generator
) -> tuple[Packed, np.ndarray]:
    """Return scales, and (n,) levels in int8.

    Args:
        values: (n,) in float64.
        groups: the sizes of the groups that share a scale.
        stages: the quantiser and its values.
        rng: draws the levels.

    Raises:
        ValueError: if a scale is beyond float32.
    """
    assert stages.levels is not None
    wanted = reduced(values, groups, np.maximum) / stages.levels
    # One step up in float32, so that no level is beyond the last one and none has to be clipped.
    packed = group_scales(wanted, step=1) if stages.block is None else block_scales(wanted, up=True)
    scales = read_scales(packed)
    in_levels = spread(np.where(scales > 0, scales, 1.0), groups)  # where the scale is 0, so are the values
    levels = np.empty(len(values), dtype=np.int8)
    for begin in range(0, len(values), CHUNK):
        at = slice(begin, begin + CHUNK)
        part = np.divide(values[at], in_levels[at], out=in_levels[at])
        levels[at] = np.rint(part, out=part) if stages.nearest else np.floor(part + rng.random(len(part)), out=part)
    return packed, levels


def unpack_levels(packed: Packed, levels: np.ndarray, groups: Sequence[int], num_levels: int) -> np.ndarray:
    """Return (n,) values in float64: levels times their scale.

    Raises:
        ValueError: if there is no such level, or a scale is damaged.
    """
    if len(levels) and not -num_levels <= levels.min() <= levels.max() <= num_levels:
        raise ValueError(f"a level lies beyond {num_levels}")
    values = spread(read_scales(packed), groups)
    return np.multiply(values, levels, out=values)


def pack_sign(values: np.ndarray, block: int) -> Packed:
    """Return signs, and for each block the mean of the sizes, rounded down."""
    sizes = block_sizes_of(len(values), block)
    means = reduced(values, sizes, np.add) / np.array(sizes, dtype=np.float64)
    return {"signs": np.packbits(values < 0)} | block_scales(means, up=False)


def pack_drive(rotated: np.ndarray, blocks: Sequence[int], *, biased: bool) -> Packed:
    """Return signs of rotated values, and each block's scale.

    Args:
        rotated: (n,) in float64.
        blocks: the sizes of the rotated blocks.
        biased: whether the scale is |x|_1 / b, rounded down.

    Raises:
        ValueError: if a scale is beyond float32.
    """
    sums = reduced(rotated, blocks, np.add)
    if biased:
        scales = group_scales(sums / np.array(blocks, dtype=np.float64), step=-1)
    else:
        squares = reduced(rotated, blocks, np.add, np.square)
        scales = group_scales(np.divide(squares, sums, out=np.zeros_like(sums), where=sums > 0))
    return {"signs": np.packbits(rotated < 0)} | scales


def unpack_sign(packed: Packed, groups: Sequence[int]) -> np.ndarray:
    """Return (n,) values in float64: the scale of the block, or minus it.

    Raises:
        ValueError: if a scale is damaged.
    """
    values = spread(read_scales(packed), groups)
    signs = np.int8(1) - 2 * np.unpackbits(packed["signs"], count=len(values)).view(np.int8)
    return np.multiply(values, signs, out=values)


def as_bfloat16(values: np.ndarray) -> np.ndarray:
    """Return the bits of the nearest bfloat16 of float32 values, of two the even one; never an infinite one.

    >>> as_bfloat16(np.array([1.0, 3.4e38], dtype=np.float32)).tolist() == [0x3F80, 0x7F7F]
    True
    """
    bits = values.astype(np.float32).view(np.uint32)
    rounded = ((bits + ((bits >> 16) & 1) + 0x7FFF) >> 16).astype(np.uint16)
    return rounded - ((rounded & 0x7FFF) == 0x7F80)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return the float32 values of bfloat16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
