"""A power of two to divide scores by, so that squares and sums of very large or very small ones stay numbers.

Squares of 1e200 overflow and those of 1e-200 are 0, which would give an interval without end or without width.
Dividing by a power of two loses no bit, so that scores of everyday size come out as they would without it.
"""

import math

import numpy as np
import numpy.typing as npt

__all__ = ["power_of_two"]


def power_of_two(*arrays: npt.ArrayLike) -> float:
    """Return the power of two by which the largest absolute value of all becomes 1 to 2; 1 where all are 0.

    >>> power_of_two([3.0, -5.0]), power_of_two([0.0]), power_of_two([1e300]) > 1e299
    (4.0, 1.0, True)
    """
    largest = max(float(np.abs(np.asarray(values, dtype=np.float64)).max(initial=0.0)) for values in arrays)
    return 1.0 if largest == 0 else math.ldexp(1.0, math.frexp(largest)[1] - 1)
