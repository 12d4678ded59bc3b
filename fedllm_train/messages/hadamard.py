"""Rotating: random signs and a Hadamard matrix, block by block, so that all values of a block become alike in size.

A block of b values x becomes H D x / sqrt(b): D flips signs, drawn for each message from a stream that both ends
derive and nobody sends, H is the Hadamard matrix of size b (Sylvester's). The map is orthonormal: norms and inner
products stay. Blocks have a given size, a power of two; what is left over is one block more, filled with zeros to the
smallest power of two that holds it, and counted as such: 300 values in blocks of 256 are 256 + 64. NumPy alone; sums
are made pair by pair in one fixed order, so that both ends and all machines get the same bits.
"""

import numpy as np

__all__ = ["block_sizes", "hadamard_sums", "rotate", "rotate_back", "rotate_bits_back", "signs_from"]

_CHUNK = 2**15
"""Values that are worked on at a time: what fits a core's cache."""
_LARGEST_INT16_BLOCK = 2**14
"""Larger blocks of ones have sums beyond 16 bits."""


def block_sizes(num_values: int, size: int) -> list[int]:
    """Return the sizes of the blocks of a vector.

    >>> block_sizes(300, 256), block_sizes(512, 256), block_sizes(3, 256), block_sizes(0, 256)
    ([256, 64], [256, 256], [4], [])
    """
    full, rest = divmod(num_values, size)
    return [size] * full + ([1 << (rest - 1).bit_length()] if rest else [])


def signs_from(rng: np.random.Generator, num_values: int) -> np.ndarray:
    """Return random signs, (d,) of 1 and -1 in int8: the raw bits of the generator, 64 at a time.

    Raw bits stay the same in all versions of NumPy, which the methods of its generators need not.

    >>> sorted(set(signs_from(np.random.default_rng(0), 300).tolist()))
    [-1, 1]
    """
    words = rng.bit_generator.random_raw(-(-num_values // 64)).astype("<u8")
    return _as_signs(np.unpackbits(words.view(np.uint8), count=num_values))


def rotate(values: np.ndarray, signs: np.ndarray, size: int) -> np.ndarray:
    """Return rotated values, with those of the filled last block.

    Args:
        values: (d,) in float64.
        signs: (d,) of `signs_from`.
        size: of the blocks.

    Returns:
        (n,) values, n the sum of `block_sizes`.
    """
    blocks = block_sizes(len(values), size)
    rotated = np.zeros(sum(blocks))
    np.multiply(values, signs, out=rotated[: len(values)])
    for part in _parts(rotated, blocks):
        hadamard_sums(part)
        part *= part.shape[1] ** -0.5
    return rotated


def rotate_back(rotated: np.ndarray, signs: np.ndarray, size: int) -> np.ndarray:
    """Undo `rotate`; `rotated` is overwritten.

    >>> values, signs = np.arange(300.0), signs_from(np.random.default_rng(0), 300)
    >>> bool(np.allclose(rotate_back(rotate(values, signs, 256), signs, 256), values))
    True
    """
    for part in _parts(rotated, block_sizes(len(signs), size)):
        hadamard_sums(part)
        part *= part.shape[1] ** -0.5
    return np.multiply(rotated[: len(signs)], signs, out=rotated[: len(signs)])


def rotate_bits_back(bits: np.ndarray, scales: np.ndarray, signs: np.ndarray, size: int) -> np.ndarray:
    """Return what `rotate_back` gives of blocks of a scale and minus it: sums of whole numbers, times the scale.

    Args:
        bits: (n,) of 0 and 1 in uint8; 1 stands for minus the scale.
        scales: (m,) of the blocks, in float64.
        signs: (d,) of `signs_from`.
        size: of the blocks.

    >>> bits, scales = np.array([0, 1, 1, 0, 0], dtype=np.uint8), np.array([3.0, 2.0])
    >>> rotate_bits_back(bits, scales, np.ones(5, dtype=np.int8), 4).tolist()
    [0.0, 0.0, 0.0, 6.0, 2.0]
    """
    whole = _as_signs(bits).astype(np.int16 if size <= _LARGEST_INT16_BLOCK else np.int32)
    values, begin = np.empty(len(bits)), 0
    for part in _parts(whole, block_sizes(len(signs), size)):
        hadamard_sums(part)
        of_part = scales[begin : begin + len(part)] * part.shape[1] ** -0.5
        at = begin * size
        np.multiply(part, of_part[:, None], out=values[at : at + part.size].reshape(part.shape))
        begin += len(part)
    return np.multiply(values[: len(signs)], signs, out=values[: len(signs)])


def hadamard_sums(blocks: np.ndarray) -> None:
    """Replace every row x by H x, without the factor that keeps norms.

    Args:
        blocks: (m, b) contiguous, b a power of two; changed in place.

    >>> blocks = np.array([[1, 2, 3, 4]])
    >>> hadamard_sums(blocks)
    >>> blocks.tolist()
    [[10, -2, -4, 0]]
    """
    rows, size = blocks.shape
    at_once = max(1, _CHUNK // size)
    for start in range(0, rows, at_once):
        part = blocks[start : start + at_once]
        turned = np.ascontiguousarray(part.T)  # what is added lies side by side, whatever the step
        other = np.empty_like(turned)
        half = 1
        while half < size:
            shape = (size // (2 * half), 2, half * len(part))
            pairs, sums = turned.reshape(shape), other.reshape(shape)
            np.add(pairs[:, 0], pairs[:, 1], out=sums[:, 0])
            np.subtract(pairs[:, 0], pairs[:, 1], out=sums[:, 1])
            turned, other = other, turned
            half *= 2
        part[...] = turned.T


def _as_signs(bits: np.ndarray) -> np.ndarray:
    return np.int8(1) - 2 * bits.view(np.int8)


def _parts(rotated: np.ndarray, blocks: list[int]) -> list[np.ndarray]:
    """The blocks as one matrix, and the last apart where it is smaller."""
    if not blocks:
        return []
    size, last = blocks[0], blocks[-1]
    if last == size:
        return [rotated.reshape(len(blocks), size)]
    return [rotated[:-last].reshape(len(blocks) - 1, size), rotated[-last:].reshape(1, last)]
