"""How levels lie in bytes: one in a byte (int8), two (int4), or eight in three bytes (int3). NumPy alone."""

import math

import numpy as np

__all__ = ["read_levels", "write_levels"]


def write_levels(levels: np.ndarray, bits: int) -> np.ndarray:
    """Return levels in as few bytes as their bits need.

    Args:
        levels: (n,) in int8, from -(2^(bits - 1) - 1) to 2^(bits - 1) - 1.
        bits: 8, 4 or 3.

    >>> write_levels(np.array([-7, 7, 0], dtype=np.int8), 4).tolist()
    [31, 128]
    """
    if bits == 8:
        return levels
    symbols = (levels + (1 << (bits - 1))).astype(np.uint8)
    if bits == 4:
        symbols = np.append(symbols, np.zeros(len(symbols) % 2, dtype=np.uint8))
        return symbols[0::2] * 16 + symbols[1::2]
    bits_of_each = np.empty((len(symbols), 3), dtype=np.uint8)
    for column, bit in enumerate((4, 2, 1)):
        np.bitwise_and(symbols, bit, out=bits_of_each[:, column])  # packbits takes all but 0 for a one
    return np.packbits(bits_of_each)


def read_levels(packed: np.ndarray, bits: int, num_levels: int) -> np.ndarray:
    """Return the (n,) levels in int8 that `write_levels` wrote.

    Args:
        packed: ceil(bits n / 8) bytes.
        bits: 8, 4 or 3.
        num_levels: n.

    >>> read_levels(np.array([31, 128], dtype=np.uint8), 4, 3).tolist()
    [-7, 7, 0]
    """
    if bits == 8:
        return packed
    assert len(packed) == math.ceil(bits * num_levels / 8)
    if bits == 4:
        symbols = np.stack([packed // 16, packed % 16], axis=1).reshape(-1)[:num_levels]
    else:
        of_each = np.unpackbits(packed, count=3 * num_levels).reshape(-1, 3)
        symbols = of_each[:, 0] * 4 + of_each[:, 1] * 2 + of_each[:, 2]
    return symbols.astype(np.int8) - np.int8(1 << (bits - 1))
