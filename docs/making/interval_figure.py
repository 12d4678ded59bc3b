"""A figure of means with their intervals, as an SVG that stands in a page and takes its colours from it.

One line a row: words, a dot at the mean, a bar over the interval, the figures in words; a vertical line at zero. It
loads nothing, so it can be looked at without a network, and grows with the page it stands in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Interval", "interval_figure"]

WIDTH, ROW, LEFT, RIGHT, TOP = 720, 22, 190, 190, 12


@dataclass(frozen=True, kw_only=True)
class Interval:
    """One row of a figure."""

    words: str
    mean: float
    low: float
    high: float


def interval_figure(title: str, unit: str, rows: Sequence[Interval], *, digits: int = 2) -> str:
    """Return the figure as one HTML element.

    Args:
        title: what is shown; read aloud by screen readers.
        unit: words below the axis, such as "nats a token; left of the line is better".
        rows: at least one, in the order in which they are drawn.
        digits: behind the point, in the figures at the right.

    >>> '<circle cx="360.0"' in interval_figure("t", "u", [Interval(words="a", mean=0, low=-1, high=1)])
    True
    """
    low, high = min(0.0, *(row.low for row in rows)), max(0.0, *(row.high for row in rows))
    span = (high - low) or 1.0
    height = TOP + ROW * len(rows) + 34

    def across(value: float) -> str:
        return f"{LEFT + (value - low) / span * (WIDTH - LEFT - RIGHT):.1f}"

    bottom = TOP + ROW * len(rows)
    parts = [
        f'<div class="interval-figure" tabindex="0"><svg viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{escape(title)}"><title>{escape(title)}</title>',
        f'<line class="axis" x1="{across(0)}" x2="{across(0)}" y1="{TOP - 8}" y2="{bottom + 4}"/>',
    ]
    for index, row in enumerate(rows):
        y = TOP + ROW * index + ROW / 2
        side = "unclear" if row.low <= 0 <= row.high else "clear"
        figures = f"{row.mean:+.{digits}f} [{row.low:+.{digits}f}, {row.high:+.{digits}f}]"
        parts += [
            f'<text x="{LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(row.words)}</text>',
            f'<line class="bar {side}" x1="{across(row.low)}" x2="{across(row.high)}" y1="{y}" y2="{y}"/>',
            f'<circle cx="{across(row.mean)}" cy="{y}" r="4" class="dot {side}"/>',
            f'<text x="{WIDTH - RIGHT + 12}" y="{y + 4}" class="figures">{figures}</text>',
        ]
    parts += [
        f'<text x="{across(0)}" y="{bottom + 18}" text-anchor="middle" class="figures">0</text>',
        f'<text x="{WIDTH / 2}" y="{bottom + 31}" text-anchor="middle" class="unit">{escape(unit)}</text>',
        "</svg></div>",
    ]
    return "".join(parts)
