"""What a point of gain costs a partner, for a reader who knows what a point is worth: no verdict, a price.

A point is one percentage point of an accuracy, or 0.01 nats per token of a loss, which is one percent better
prediction of every token. Money is per partner that took part, for the run as it was made, once.
"""

import math
from dataclasses import dataclass

from fedllm_eval.scores import SCORES

__all__ = ["BreakEven", "break_even"]

POINTS = 100
"""Points in one whole: of accuracy, or of a nat."""


@dataclass(frozen=True)
class BreakEven:
    """Per point gained; None where the amount is unknown, or nothing was gained."""

    points: float
    """Gained on average."""
    money: float | None
    money_least: float | None
    """At the upper end of the gain's interval."""
    money_most: float | None
    """At its lower end; None where that is no gain."""
    num_bytes: float | None
    hours: float | None


def break_even(
    score: str,
    gain: tuple[float, float, float],
    *,
    money: float | None = None,
    num_bytes: float | None = None,
    hours: float | None = None,
) -> BreakEven:
    """Return what one point costs a partner.

    Args:
        score: one of `SCORES`.
        gain: mean, and its interval (NaN where there is none), positive where better.
        money: of a partner on average.
        num_bytes: the same.
        hours: the same.

    >>> break_even("ranking_accuracy", (0.2, 0.1, 0.4), money=10.0).money  # 10 for 20 points
    0.5
    >>> break_even("ranking_accuracy", (-0.2, -0.3, -0.1), money=10.0).money is None
    True
    """
    assert score in SCORES, score

    def per(amount: float | None, gained: float) -> float | None:
        return amount / (POINTS * gained) if amount is not None and math.isfinite(gained) and gained > 0 else None

    mean, low, high = gain
    return BreakEven(
        points=POINTS * mean,
        money=per(money, mean),
        money_least=per(money, high),
        money_most=per(money, low),
        num_bytes=per(num_bytes, mean),
        hours=per(hours, mean),
    )
