"""How a figure looks, and how it becomes a file: the same bytes each time, as SVG and as PNG.

Colours are few and differ in lightness, so that a figure reads in black and white; in the page they become the page's
own, which follow light and dark. Text from data is drawn as it is, never as mathematics, and characters without a
glyph are written out as escapes.
"""

import io
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

__all__ = [
    "ACCENT",
    "CHANCE",
    "GREEN",
    "GRID",
    "INK",
    "MUTED",
    "ORANGE",
    "PAPER",
    "STYLE",
    "Drawing",
    "drawable",
    "drawing",
    "inlined",
    "svg_text",
]

INK, MUTED, GRID, CHANCE, ACCENT = "#1d2433", "#667085", "#e4e7ec", "#b8bfcc", "#3451d1"
ORANGE, GREEN, PAPER = "#d9622b", "#17694e", "#ffffff"
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": CHANCE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "legend.frameon": False,
}
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "line", CHANCE: "chance", ACCENT: "accent", ORANGE: "second"} | {
    GREEN: "within",
    PAPER: "paper",
}
_DPI = 144


@dataclass(frozen=True)
class Drawing:
    """One figure as the bytes of its two files."""

    svg: str
    png: bytes


def drawing(figure: Figure, name: str) -> Drawing:
    """Return a figure's files; they hold no date, no software version and ids that follow from the name.

    >>> figure = Figure(figsize=(1, 1))
    >>> drawing(figure, "empty") == drawing(figure, "empty")
    True
    """
    png = io.BytesIO()
    text = svg_text(figure, name)
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(png, format="png", metadata={"Software": None}, dpi=_DPI)
    return Drawing(text, png.getvalue())


def svg_text(figure: Figure, name: str) -> str:
    """Return a figure as SVG text, the same each time; its ids follow from the name, as several meet in one page.

    >>> svg_text(Figure(figsize=(1, 1)), "empty")[:4]
    '<svg'
    """
    svg = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    text = svg.getvalue()
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())
    return re.sub(r'(\sid="|href="#|url\(#)(?=[A-Za-z])', rf"\g<1>{prefix}-", text[text.index("<svg") :])


def inlined(svg: str) -> str:
    """Return the SVG for the inside of the page: its colours are the page's variables.

    >>> inlined('<path style="fill: #1d2433"/>')
    '<path style="fill: var(--ink)"/>'
    """
    return re.sub(
        r"(?<=: )#[0-9a-f]{6}\b",
        lambda match: f"var(--{_VARIABLES[match[0]]})" if match[0] in _VARIABLES else match[0],
        svg,
    )


def drawable(text: str, limit: int = 40) -> str:
    r"""Return text that the font can draw: other characters become escapes, and a long text is cut.

    >>> drawable("naïve"), drawable("日a"), drawable("a" * 50, limit=4)
    ('naïve', '\\u65e5a', 'aaa…')
    """
    known = _glyphs()
    safe = "".join(
        letter if ord(letter) in known and letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text[: limit + 1]
    )
    return safe if len(safe) <= limit else f"{safe[: limit - 1]}…"


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
