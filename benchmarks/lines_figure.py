"""A figure of lines, one a name, as an SVG that is readable on light and on dark pages and loads nothing.

Lines differ in colour and in the mark at their end, so that they can be told apart without colour; names stand at the
right, each beside its mark. Colours follow the reader's setting (`prefers-color-scheme`). Standard library only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Axis", "Line", "lines_figure"]

WIDTH, HEIGHT = 820, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 210, 44, 56
LIGHT = ("#3451d1", "#d9622b", "#17694e", "#8b3fa8", "#9a6b00", "#0b7a99", "#c02648", "#5b6470", "#4d7c0f", "#1d2433")
DARK = ("#8ea2ff", "#f0955f", "#5ec79c", "#cf95e6", "#d9b24c", "#6cc7e0", "#f08099", "#aeb6c2", "#a3c96a", "#e4e7ec")
MARKS = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What an axis shows."""

    words: str
    is_log: bool = False

    def place(self, value: float, low: float, high: float) -> float:
        """Return where a value lies, 0 at the lowest and 1 at the highest.

        >>> Axis(words="bytes", is_log=True).place(100.0, 10.0, 1000.0)
        0.5
        """
        change = math.log10 if self.is_log else float
        return (change(value) - change(low)) / ((change(high) - change(low)) or 1.0)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line and what is written beside it."""

    name: str
    points: Sequence[tuple[float, float]]
    """(x, y), in the order in which they are joined; at least one."""
    bars: Sequence[tuple[float, float]] = ()
    """The interval of y at each point; none if not given."""
    note: str = ""
    """Small words below the name."""


def lines_figure(title: str, lines: Sequence[Line], across: Axis, up: Axis) -> str:
    """Return the figure as an SVG document.

    Args:
        title: drawn above, and read aloud by screen readers.
        lines: at least one, in the order of the list of names.
        across: the horizontal axis; on a logarithmic one all values must be positive.
        up: the vertical axis.

    >>> line = Line(name="a", points=[(1, 2), (10, 1)])
    >>> figure = lines_figure("t", [line], Axis(words="x", is_log=True), Axis(words="y"))
    >>> figure.startswith("<svg"), figure.count("<polyline")
    (True, 1)
    """
    low_x, high_x = _ends([x for line in lines for x, _ in line.points], across)
    heights = [y for line in lines for y in (*(y for _, y in line.points), *(end for bar in line.bars for end in bar))]
    low_y, high_y = _ends(heights, up)
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT

    def x_of(value: float) -> float:
        return round(LEFT + across.place(value, low_x, high_x) * (right - LEFT), 1)

    def y_of(value: float) -> float:
        return round(bottom - up.place(value, low_y, high_y) * (bottom - TOP), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
        f' aria-label="{escape(title)}" font-family="sans-serif" font-size="12"><title>{escape(title)}</title>',
        _style(len(lines)),
        f'<text x="{LEFT}" y="22" class="ink" font-size="14" font-weight="600">{escape(title)}</text>',
    ]
    for value in _ticks(low_x, high_x, across):
        parts.append(f'<line class="grid" x1="{x_of(value)}" x2="{x_of(value)}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(_text(x_of(value), bottom + 18, _number(value), "middle"))
    for value in _ticks(low_y, high_y, up):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y_of(value)}" y2="{y_of(value)}"/>')
        parts.append(_text(LEFT - 8, y_of(value) + 4, _number(value), "end"))
    parts.append(_text((LEFT + right) / 2, HEIGHT - 14, across.words, "middle"))
    parts.append(
        f'<text class="muted" transform="translate(18 {(TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(up.words)}</text>"
    )
    step = min(36.0, (bottom - TOP) / max(1, len(lines)))
    for index, line in enumerate(lines):
        corners = " ".join(f"{x_of(x)},{y_of(y)}" for x, y in line.points)
        parts.append(f'<polyline class="line c{index}" points="{corners}"/>')
        for (x, _), (low, high) in zip(line.points, line.bars, strict=False):
            parts.append(
                f'<line class="line c{index}" x1="{x_of(x)}" x2="{x_of(x)}" y1="{y_of(low)}" y2="{y_of(high)}"/>'
            )
        parts.append(_mark(index, x_of(line.points[-1][0]), y_of(line.points[-1][1])))
        y = TOP + step * index + 8
        parts.append(_mark(index, right + 18, y))
        parts.append(f'<text x="{right + 30}" y="{y + 4}" class="ink">{escape(line.name)}</text>')
        if line.note:
            parts.append(
                f'<text x="{right + 30}" y="{y + 17}" class="muted" font-size="10">{escape(line.note)}</text>'
            )
    return "\n".join([*parts, "</svg>", ""])


def _ends(values: Sequence[float], axis: Axis) -> tuple[float, float]:
    """The lowest and highest value of an axis, with some air."""
    low, high = min(values), max(values)
    if axis.is_log:
        return low / 1.25, high * 1.25
    air = 0.05 * (high - low) or 0.5
    return low - air, high + air


def _ticks(low: float, high: float, axis: Axis) -> list[float]:
    """Round numbers between two ends.

    >>> _ticks(0.3, 2.2, Axis(words=""))
    [0.5, 1.0, 1.5, 2.0]
    >>> _ticks(8, 2500, Axis(words="", is_log=True))
    [10.0, 100.0, 1000.0]
    """
    if axis.is_log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        few = [10.0**power for power in powers if low <= 10.0**power <= high]
        many = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        return few if len(few) > 2 else [value for value in many if low <= value <= high]
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough)
    return [round(step * count, 10) for count in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" class="muted" text-anchor="{anchor}">{escape(words)}</text>'


def _mark(index: int, x: float, y: float) -> str:
    """The mark of a line."""
    kind = MARKS[index % len(MARKS)]
    if kind == "circle":
        return f'<circle class="mark c{index}" cx="{x}" cy="{y}" r="4.5"/>'
    corners = {
        "square": [(-4, -4), (4, -4), (4, 4), (-4, 4)],
        "triangle": [(0, -5), (5, 4), (-5, 4)],
        "diamond": [(0, -6), (5, 0), (0, 6), (-5, 0)],
    }[kind]
    points = " ".join(f"{x + right:.1f},{y + down:.1f}" for right, down in corners)
    return f'<polygon class="mark c{index}" points="{points}"/>'


def _style(num_lines: int) -> str:
    """Colours for light pages, and for dark ones."""

    def colours(palette: Sequence[str]) -> str:
        return "".join(f".c{index}{{--c:{palette[index % len(palette)]}}}" for index in range(num_lines))

    return (
        "<style>.ink{fill:#1d2433}.muted{fill:#667085}.grid{stroke:#667085;stroke-opacity:.22}"
        ".line{fill:none;stroke:var(--c);stroke-width:1.8}.mark{fill:var(--c)}"
        f"{colours(LIGHT)}@media (prefers-color-scheme:dark){{.ink{{fill:#e4e7ec}}.muted{{fill:#aeb6c2}}"
        f"{colours(DARK)}}}"
        "</style>"
    )
