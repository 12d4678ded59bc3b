"""Places as Golomb-Rice codes of the gaps between them: 4.8 bits a place at one value in ten, 8.1 at one in a hundred.

Sparse ternary compression (Sattler et al. 2019, arXiv 1903.02891, equation 15) gives the parameter for a share p of
places that are spread evenly:

    b = 1 + floor(log2(ln((sqrt(5) - 1) / 2) / ln(1 - p)))        mean bits: b + 1 / (1 - (1 - p)^(2^b))

A gap g (values skipped since the last place) is g // 2^b zeros and a one, then b bits of g mod 2^b. All zeros and ones
of the first kind go first, filled to a byte, and all remainders after them: as many bits as gap by gap, and whole
arrays can be written and read at once. NumPy alone.
"""

import math

import numpy as np

__all__ = ["golomb_parameter", "mean_place_bits", "read_gaps", "write_gaps"]


def golomb_parameter(fraction: float) -> int:
    """Return b for a share of places above 0 and below 1.

    >>> [golomb_parameter(p) for p in (0.25, 0.1, 0.05, 0.01, 0.001)]
    [1, 3, 4, 6, 9]
    """
    golden = (math.sqrt(5) - 1) / 2
    return max(0, 1 + math.floor(math.log2(math.log(golden) / math.log1p(-fraction))))


def mean_place_bits(fraction: float) -> float:
    """Return the bits a place takes on average where places are spread evenly.

    >>> [round(mean_place_bits(p), 2) for p in (0.25, 0.1, 0.05, 0.01, 0.001)]
    [3.29, 4.76, 5.79, 8.11, 11.49]
    """
    b = golomb_parameter(fraction)
    return b + 1 / (1 - (1 - fraction) ** 2**b)


def write_gaps(places: np.ndarray, num_values: int) -> np.ndarray:
    """Return the codes of places, as bytes.

    Args:
        places: (k,) in rising order, 0 < k < d.
        num_values: d.

    >>> write_gaps(np.array([0, 9]), 16).tolist()
    [144, 0]
    """
    b = golomb_parameter(len(places) / num_values)
    gaps = np.diff(places, prepend=-1) - 1
    ends = np.cumsum((gaps >> b) + 1) - 1
    first = np.zeros(int(ends[-1]) + 1, dtype=np.uint8)
    first[ends] = 1
    return np.concatenate([np.packbits(first), np.packbits(_bits_of(gaps & (2**b - 1), b))])


def read_gaps(codes: np.ndarray, count: int, num_values: int) -> np.ndarray:
    """Return the places that `write_gaps` wrote.

    Args:
        codes: the bytes.
        count: the number of places, 0 < k < d.
        num_values: d.

    Raises:
        ValueError: if the bytes are no codes of that many places inside the vector.
    """
    b = golomb_parameter(count / num_values)
    num_rest = math.ceil(count * b / 8)
    num_first = len(codes) - num_rest
    if codes.dtype != np.uint8 or codes.ndim != 1 or not 0 < num_first <= math.ceil((count + (num_values >> b)) / 8):
        raise ValueError("the codes of places are too short or too long")
    ends = np.flatnonzero(np.unpackbits(codes[:num_first]))
    if len(ends) != count:
        raise ValueError("there are not as many codes as places")
    rest = np.unpackbits(codes[num_first:], count=count * b).reshape(count, b)
    gaps = ((np.diff(ends, prepend=-1) - 1) << b) + _number_of(rest)
    places = np.cumsum(gaps + 1) - 1
    if places[-1] >= num_values:
        raise ValueError("a place lies behind the end of the vector")
    return places


def _bits_of(numbers: np.ndarray, width: int) -> np.ndarray:
    """Return numbers as (k, width) bits, the highest first."""
    return ((numbers[:, None] >> np.arange(width - 1, -1, -1)) & 1).astype(np.uint8)


def _number_of(bits: np.ndarray) -> np.ndarray:
    """Undo `_bits_of`."""
    numbers = np.zeros(len(bits), dtype=np.int64)
    for column in bits.T:
        numbers = 2 * numbers + column
    return numbers
