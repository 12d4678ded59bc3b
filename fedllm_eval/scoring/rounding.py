"""Which differences are rounding and so are none: two scores that ought to be equal, calculated in another order.

A policy's log-probabilities are float32 sums. Which rows share a batch changes the order of additions, and with it the
last digits: on a 135M model, up to 2 parts in 10 million of a loss (2e-6 nats per token). Counted by its sign,
such a difference makes one client of two "better off" although nothing was trained. Wherever a sign is counted, what
lies within `RELATIVE` of the larger score (and within the score's own absolute `rounding`, where it has one) is 0.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["RELATIVE", "difference_beyond_rounding"]

Array = npt.NDArray[np.float64]
RELATIVE = 1e-6
"""Share of the larger of the two scores; five times what was measured, for larger models."""


def difference_beyond_rounding(a: npt.ArrayLike, b: npt.ArrayLike, rounding: float = 0.0) -> Array:
    """Return b - a, and exactly 0 where that is rounding.

    Args:
        a: finite scores of any shape.
        b: scores of the same things.
        rounding: an absolute difference that is none either, in the unit of the scores.

    >>> difference_beyond_rounding([1.0, 2.0, 0.0], [1.0000005, 2.1, 1e-6], rounding=1e-5).round(6).tolist()
    [0.0, 0.1, 0.0]
    """
    one, other = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    difference = other - one
    within = np.maximum(rounding, RELATIVE * np.maximum(np.abs(one), np.abs(other)))
    return np.where(np.abs(difference) <= within, 0.0, difference)
