"""Selecting: the values of the largest size, and how their places are written.

k = floor(f d) of d values, among equal ones the first, over the whole flat vector as FLASC does (Kuo et al. 2024,
arXiv 2406.05233). Places go as positions of four bytes, or as one bit a value where that is shorter (from one value
in 32 on); `golomb.py` has the shorter way. NumPy alone.
"""

import math

import numpy as np

__all__ = ["places_of_largest", "read_places", "write_places"]


def places_of_largest(values: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the largest values by size, in rising order; among equal ones, the first.

    Args:
        values: (d,) finite values.
        count: how many, from 0 to d.

    >>> places_of_largest(np.array([1.0, -3.0, 2.0, 2.0, 0.0]), 2).tolist()
    [1, 2]
    """
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    sizes = np.abs(values)
    least = np.partition(sizes, len(sizes) - count)[len(sizes) - count]
    chosen = sizes > least
    chosen[np.flatnonzero(sizes == least)[: count - np.count_nonzero(chosen)]] = True
    return np.flatnonzero(chosen)


def write_places(places: np.ndarray, num_values: int) -> dict[str, np.ndarray]:
    """Return places as positions or as bits, whichever is shorter.

    >>> write_places(np.array([0, 9]), 16)["bits"].tolist()
    [128, 64]
    """
    if 4 * len(places) <= math.ceil(num_values / 8):
        return {"places": places.astype(np.int32)}
    chosen = np.zeros(num_values, dtype=np.uint8)
    chosen[places] = 1
    return {"bits": np.packbits(chosen)}


def read_places(packed: dict[str, np.ndarray], count: int, num_values: int) -> np.ndarray:
    """Return places that were written as positions or bits.

    Args:
        packed: what was sent.
        count: how many places there are.
        num_values: the number of values of the vector.

    Raises:
        ValueError: if they are not that many different places of the vector, in rising order.
    """
    if "bits" in packed:
        if packed["bits"].shape != (math.ceil(num_values / 8),) or packed["bits"].dtype != np.uint8:
            raise ValueError("there is not one bit a value")
        places = np.flatnonzero(np.unpackbits(packed["bits"], count=num_values))
    else:
        places = packed["places"].astype(np.int64)
    if places.shape != (count,):
        raise ValueError("there are not as many places as values")
    if count and (places[0] < 0 or places[-1] >= num_values or (np.diff(places) <= 0).any()):
        raise ValueError("places are not in rising order inside the vector")
    return places
