"""How long what is left will take, told from how long the last steps took.

The first step also loads, tokenises and starts processes: it counts only while there is no other. A resumed run counts
the steps it makes itself, never those that another process made before it.
"""

import time
from collections import deque
from collections.abc import Callable

__all__ = ["TimeLeft", "duration_text"]

_NUM_COUNTED = 20
"""Newest steps that the mean is taken over: what a step costs may change while a run goes on."""


class TimeLeft:
    """Times steps as they finish."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock."""
        self._clock = clock
        self._last = clock()
        self._first: float | None = None
        self._seconds: deque[float] = deque(maxlen=_NUM_COUNTED)

    def after_step(self, num_left: int) -> float:
        """Note that a step has finished and return the seconds that those left should take.

        Args:
            num_left: steps that are left.

        >>> ticks = iter([0.0, 9.0, 11.0, 13.0])  # started, and after each of three steps
        >>> left = TimeLeft(lambda: next(ticks))
        >>> left.after_step(4), left.after_step(3), left.after_step(2)
        (36.0, 6.0, 4.0)
        """
        now = self._clock()
        seconds, self._last = now - self._last, now
        if self._first is None:
            self._first = seconds
            return seconds * num_left
        self._seconds.append(seconds)
        return sum(self._seconds) / len(self._seconds) * num_left

    def within_step(self, fraction: float, num_left: int) -> float | None:
        """Return the seconds that are left in the middle of a step, or None if the step is beyond its end.

        Args:
            fraction: of the step, how much is done; above 0.
            num_left: steps that are left, this one included.

        >>> ticks = iter([0.0, 5.0])
        >>> left = TimeLeft(lambda: next(ticks))
        >>> left.within_step(0.25, 2)  # 20 s a step: 15 s of this one and 20 s of the next
        35.0
        """
        if not 0 < fraction <= 1:
            return None
        passed = self._clock() - self._last
        if self._first is None:
            return passed / fraction * (num_left - fraction)
        mean = sum(self._seconds) / len(self._seconds) if self._seconds else self._first
        return mean * (num_left - fraction)


def duration_text(seconds: float) -> str:
    """Return a duration in words, as exactly as an estimate deserves.

    >>> [duration_text(seconds) for seconds in (0.4, 42, 200, 5_400, 200_000)]
    ['1 s', '42 s', '3 min', '1 h 30 min', '56 h']
    """
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 10 else f"{round(seconds / 3600)} h"
