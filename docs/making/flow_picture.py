"""The picture at the top of README and site: what stays, what travels, what every member gets. Two SVGs.

    python -m docs.making.flow_picture           (writes docs/pictures/flow-light.svg and flow-dark.svg)

Drawn by this script alone, without data and without a font of its own; a test compares the files with it.
"""

from html import escape
from pathlib import Path

__all__ = ["PICTURES", "flow_picture"]

PICTURES = Path(__file__).parents[1] / "pictures"
COLOURS = {
    "light": {"ink": "#1f2430", "soft": "#5b6375", "line": "#8b93a7", "card": "#f4f6fb", "ground": "#ffffff",
              "blue": "#3949ab", "green": "#2e7d32", "red": "#b3261e"},
    "dark": {"ink": "#e8eaf2", "soft": "#aab2c5", "line": "#7c8599", "card": "#242936", "ground": "#171a23",
             "blue": "#9fa8ff", "green": "#81c995", "red": "#f2948c"},
}  # fmt: skip
WIDTH, HEIGHT = 860, 330
MEMBERS = (
    ("a hospital", 0.82, "gains"),
    ("a school", 0.58, "gains"),
    ("a company", 0.30, "gains"),
    ("a person", -0.22, "loses"),
)
"""Who, and the bar drawn for it: an example of what a page says, in no unit."""


def flow_picture(theme: str) -> str:
    """Return the picture as SVG.

    Args:
        theme: "light" or "dark".

    >>> flow_picture("dark").startswith("<svg ")
    True
    """
    c = COLOURS[theme]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif">',
        "<title>Rows stay where they are, adapters travel, and every member gets a score of its own</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="{c["ground"]}"/>',
        _text(40, 40, "rows stay where they are", c["soft"], 15),
        _text(332, 40, "adapters travel", c["soft"], 15),
        _text(628, 40, "every member gets a score", c["soft"], 15),
    ]
    for index, (who, gain, word) in enumerate(MEMBERS):
        y = 58 + 62 * index
        middle = y + 24
        parts += [
            _card(32, y, 176, 48, c),
            _text(48, middle + 5, who, c["ink"], 15),
            *(_row_of_text(140, middle - 13 + 9 * line, 52 - 9 * (line % 2), c["line"]) for line in range(4)),
            _arrow(216, middle, 352, 165 + 22 * (index - 1.5), c["blue"]),
            _text(628, middle + 5, who, c["ink"], 14),
            f'<line x1="748" x2="748" y1="{y + 6}" y2="{y + 42}" stroke="{c["line"]}" stroke-dasharray="3 3"/>',
            _bar(748, middle, gain, c),
            _text(748 + (gain * 74 + 8 if gain > 0 else 8), middle + 5, word, c["soft"], 12),
        ]
    parts += [
        _card(360, 92, 172, 146, c),
        _text(446, 122, "the server", c["ink"], 16, anchor="middle"),
        _text(446, 146, "averages adapters", c["soft"], 14, anchor="middle"),
        _text(446, 166, "and sees no row", c["soft"], 14, anchor="middle"),
        _text(446, 200, "SFT · DPO · KTO", c["blue"], 14, anchor="middle"),
        _text(446, 220, "TRL and PEFT", c["blue"], 14, anchor="middle"),
        _arrow(540, 165, 612, 165, c["blue"], back=False),
        _text(32, 316, "import · report", c["soft"], 13),
        _text(446, 316, "sft · dpo · kto · publish", c["soft"], 13, anchor="middle"),
        _text(628, 316, "run · compare (an example)", c["soft"], 13),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _text(x: float, y: float, words: str, colour: str, size: int, *, anchor: str = "start") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size}" text-anchor="{anchor}">{escape(words)}</text>'
    )


def _card(x: float, y: float, width: float, height: float, colours: dict[str, str]) -> str:
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {place} rx="9" fill="{colours["card"]}" stroke="{colours["line"]}"/>'


def _row_of_text(x: float, y: float, width: float, colour: str) -> str:
    return f'<line x1="{x:g}" x2="{x + width:g}" y1="{y:g}" y2="{y:g}" stroke="{colour}" stroke-width="3"/>'


def _arrow(x1: float, y1: float, x2: float, y2: float, colour: str, *, back: bool = True) -> str:
    """A line with a head at its end, and at its beginning where things also come back: adapters go up and down."""
    heads = []
    slope = (y2 - y1) / (x2 - x1)
    for x, y, inwards in ((x2, y2, -8), (x1, y1, 8))[: 1 + back]:
        far, low = x + inwards * (1 - abs(slope) / 3), y + inwards * slope
        heads.append(f"M{far:.1f} {low - 5:.1f}L{x:.1f} {y:.1f}L{far:.1f} {low + 5:.1f}")
    path = f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}{''.join(heads)}"
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-linecap="round"/>'


def _bar(x: float, y: float, gain: float, colours: dict[str, str]) -> str:
    width = abs(gain) * 74
    start = x if gain > 0 else x - width
    colour = colours["green"] if gain > 0 else colours["red"]
    return f'<rect x="{start:.1f}" y="{y - 9:g}" width="{width:.1f}" height="18" rx="3" fill="{colour}"/>'


def main() -> None:
    """Write both pictures."""
    PICTURES.mkdir(exist_ok=True)
    for theme in COLOURS:
        path = PICTURES / f"flow-{theme}.svg"
        path.write_text(flow_picture(theme), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
