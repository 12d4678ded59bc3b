"""Where values lie beside their null: positions on strips of the page, in standard deviations of the null.

Distances run from none to thousands, so the scale is that of asinh: like a line near 0, like a logarithm far away.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fedllm_data.reporting.report_words import null_distance

__all__ = ["Ruler", "headline_of", "null_ruler", "own_strip"]

TICKS = (-1000, -100, -10, -2, 0, 2, 10, 100, 1000, 10_000, 100_000)


@dataclass(frozen=True)
class Ruler:
    """A common scale for several strips; positions run from 0 to 100."""

    low: float
    high: float

    def at(self, distance: float) -> float:
        """Return the position of a distance from the null."""
        share = (bend(distance) - bend(self.low)) / (bend(self.high) - bend(self.low))
        return 100 * min(1.0, max(0.0, share))

    def ticks(self) -> list[tuple[int, float]]:
        """Return the labelled distances with their positions."""
        return [(tick, self.at(tick)) for tick in TICKS if self.low <= tick <= self.high]

    def strip(self, measure: Mapping[str, Any]) -> dict[str, float] | None:
        """Return where chance (± 2), value and interval of a measure lie; None without a distance."""
        value = null_distance(measure, measure["value"])
        if value is None:
            return None
        ends = [null_distance(measure, measure[end]) for end in ("low", "high")]
        low, high = sorted(value if end is None else end for end in ends)
        points = {"null_low": -2.0, "null_high": 2.0, "value": value, "low": low, "high": high}
        return {name: self.at(point) for name, point in points.items()}


def bend(distance: float) -> float:
    """Return a distance on the scale of the strips.

    >>> bend(0), round(bend(200) - bend(20), 2)
    (0.0, 2.3)
    """
    return math.asinh(distance / 2)


def headline_of(axis: Mapping[str, Any]) -> dict[str, Any]:
    """Return the measure that stands for an axis."""
    measure: dict[str, Any] = axis["measures"][axis["headline"]]
    return measure


def null_ruler(measures: Iterable[Mapping[str, Any]]) -> Ruler:
    """Return a scale that holds all these measures with their intervals.

    >>> null_ruler([{"value": 9, "low": 8, "high": 12, "null_mean": 0, "null_std": 1}]).ticks()[-1][0]
    10
    """
    found = [-4.0, 6.0]
    for measure in measures:
        ends = (null_distance(measure, measure[name]) for name in ("value", "low", "high"))
        found += [end for end in ends if end is not None]
    low, high = min(found), max(found)
    return Ruler(low if low >= -4 else 1.3 * low, 1.3 * high)


def own_strip(measure: Mapping[str, Any]) -> dict[str, float] | None:
    """Return where value, chance and interval lie from 0 to 100, in the measure's own unit; None without a null.

    >>> measure = {"value": 0.5, "null_mean": 0.1, "null_std": 0.05, "low": None, "high": None, "unit": "fraction"}
    >>> own_strip(measure)["value"]
    50.0
    """
    if measure["value"] is None or measure["null_std"] is None:
        return None
    spread = 2 * measure["null_std"]
    points = {
        "value": measure["value"],
        "null_low": measure["null_mean"] - spread,
        "null_high": measure["null_mean"] + spread,
        "low": measure["value"] if measure["low"] is None else measure["low"],
        "high": measure["value"] if measure["high"] is None else measure["high"],
    }
    start = min(0.0, *points.values())
    stop = max(1.0, *points.values()) if measure["unit"].startswith("fraction") else max(0.0, *points.values()) * 1.08
    width = (stop - start) or 1.0
    return {name: min(100.0, max(0.0, 100 * (point - start) / width)) for name, point in points.items()}
