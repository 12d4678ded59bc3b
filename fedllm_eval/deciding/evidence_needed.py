"""What would settle an open question, from the spread that was measured: more clients, or more seeds of training.

A difference g over K clients with standard deviation s is shown four times in five where
(t_.975 + t_.8) s / sqrt(K) <= |g|, Student's quantiles with K - 1 degrees of freedom; of seeds likewise.
"""

import math
from collections.abc import Callable

from scipy import special

from fedllm_eval.scoring.proportion import wilson

__all__ = ["MOST", "clients_for_gain", "clients_for_share", "seeds_for_gain"]

MOST = 1_000_000
"""More clients than this are no advice."""


def clients_for_gain(distance: float, client_std: float, *, other_std_error: float = 0.0) -> int | None:
    """Return how many clients would show that a gain lies on the side of a threshold on which it was measured.

    Args:
        distance: of the measured gain from the threshold.
        client_std: standard deviation of a client's gain.
        other_std_error: what more clients do not take away, such as the spread between seeds.

    Returns:
        At least 2; None where no number up to a million would.

    >>> clients_for_gain(1.0, 1.0), clients_for_gain(0.0, 1.0)
    (10, None)
    """
    return _smallest(lambda num: _factor(num - 1) * math.hypot(client_std / math.sqrt(num), other_std_error), distance)


def seeds_for_gain(distance: float, seed_std: float, *, other_std_error: float = 0.0) -> int | None:
    """Return how many seeds of training would show it; None where no number would.

    >>> seeds_for_gain(1.0, 0.5)
    5
    """
    return clients_for_gain(distance, seed_std, other_std_error=other_std_error)


def clients_for_share(share: float, threshold: float) -> int | None:
    """Return how many clients would show that a share lies beyond a threshold: Wilson's interval leaves it out.

    >>> clients_for_share(0.3, 0.25), clients_for_share(0.25, 0.25)
    (289, None)
    """
    if share == threshold or not 0 <= share <= 1:
        return None

    def overlap(num: int) -> float:
        low, high = wilson(share, num)
        return threshold - low if share > threshold else high - threshold

    return _smallest(overlap, 0.0)


def _factor(num_degrees: int) -> float:
    return float(special.stdtrit(num_degrees, 0.975) + special.stdtrit(num_degrees, 0.8))


def _smallest(half_width: Callable[[int], float], distance: float) -> int | None:
    """The smallest number from 2 on at which a falling width is within the distance."""
    distance = abs(distance)
    high = 2
    while half_width(high) > distance:
        high *= 2
        if high > MOST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if middle >= 2 and half_width(middle) <= distance else (middle, high)
    return high
