"""Scales of quantised values: one for each group in float32, or one for each block in float16.

A group is a tensor, or what stands for one: all values that were selected, a rotated block. Block scales are float16
shares of the largest of them, which is a float32, so that none is too small or too large for its precision whatever
the values are. NumPy alone.
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["block_scales", "block_sizes_of", "group_scales", "read_scales", "reduced", "spread"]


def block_sizes_of(num_values: int, block: int) -> list[int]:
    """Return the sizes of blocks; the last one holds what is left over.

    >>> block_sizes_of(5, 2), block_sizes_of(0, 2)
    ([2, 2, 1], [])
    """
    full, rest = divmod(num_values, block)
    return [block] * full + ([rest] if rest else [])


def reduced(values: np.ndarray, sizes: Sequence[int], how: np.ufunc) -> np.ndarray:
    """Return the sum or the largest of each group's values, 0 of a group without values.

    Args:
        values: (n,) in float64.
        sizes: the sizes of the groups; their sum is n.
        how: `np.add` or `np.maximum`.

    >>> reduced(np.array([1.0, 2.0, 4.0]), [2, 0, 1], np.add).tolist()
    [3.0, 0.0, 4.0]
    """
    counts = np.asarray(sizes, dtype=np.int64)
    result = np.zeros(len(counts))
    if len(values):
        result[counts > 0] = how.reduceat(values, (np.cumsum(counts) - counts)[counts > 0])
    return result


def spread(scales: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Return the scale of each value, (n,) in float64."""
    return np.repeat(scales.astype(np.float64), np.asarray(sizes, dtype=np.int64))


def group_scales(wanted: np.ndarray, *, step: int = 0) -> dict[str, np.ndarray]:
    """Return scales in float32.

    Args:
        wanted: the scales, in float64.
        step: 1 takes the next larger float32 after rounding, -1 the next smaller one where rounding went up.

    Raises:
        ValueError: if one is beyond float32.
    """
    with np.errstate(over="ignore"):
        scales = wanted.astype(np.float32)
    if step > 0:
        scales = np.nextafter(scales, np.float32(np.inf))
    elif step < 0:
        scales = _not_above(scales, wanted)
    if not np.isfinite(scales).all():
        raise ValueError(f"the values need a scale of {wanted.max():.3g}, which is beyond float32; train less far")
    return {"scales": scales}


def block_scales(wanted: np.ndarray, *, up: bool) -> dict[str, np.ndarray]:
    """Return the scales of blocks in float16, as shares of the largest.

    Args:
        wanted: the scales, in float64.
        up: whether they are rounded up; otherwise down.

    Raises:
        ValueError: if one is beyond float32.
    """
    largest = group_scales(np.array([wanted.max(initial=0.0)]), step=1 if up else -1)["scales"]
    shares = np.divide(wanted, float(largest[0]), out=np.zeros_like(wanted), where=largest[0] > 0)
    rounded = shares.astype(np.float16)
    if up:
        rounded = -_not_above(-rounded, -shares)
    else:
        rounded = _not_above(rounded, shares)
    return {"largest": largest, "scales": rounded}


def read_scales(packed: dict[str, np.ndarray]) -> np.ndarray:
    """Return scales in float64.

    Raises:
        ValueError: if one is no finite number, or below 0.
    """
    scales = packed["scales"].astype(np.float64)
    if "largest" in packed:
        scales = scales * packed["largest"].astype(np.float64)
    if not (np.isfinite(scales) & (scales >= 0)).all():
        raise ValueError("a scale is no finite number from 0 on")
    return scales


def _not_above(rounded: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Return the rounded numbers, those above the exact ones replaced by the next smaller of their precision."""
    below = np.nextafter(rounded, np.array(-np.inf, dtype=rounded.dtype))
    return np.where(rounded.astype(np.float64) > exact, below, rounded)
