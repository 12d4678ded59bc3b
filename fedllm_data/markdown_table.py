"""A Markdown table, of which no cell can break a row: the one way in which the packages write tables by hand.

What the cells hold may be Markdown (a link, a bold number); text from outside is made safe by the caller, and may
come with its bars escaped already. Bars and line ends are what a table adds to what must be escaped (GitHub Flavored
Markdown, section 4.10).
"""

import re
from collections.abc import Container, Iterable, Sequence

__all__ = ["markdown_table"]

# A bar behind an even number of backslashes is a bar; behind an odd number it is escaped already.
_BAR = re.compile(r"(?<!\\)((?:\\\\)*)\|")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Container[int] = ()) -> str:
    r"""Return a table, without a line end after its last row.

    Args:
        header: the title of each column.
        rows: one cell a column.
        right: positions of the columns that are aligned right, as numbers should be.

    Raises:
        ValueError: if a row has more or fewer cells than the header.

    >>> print(markdown_table(["who", "rows"], [["a|b", "1"], ["two\nlines", "20"]], right=[1]))
    | who | rows |
    | --- | ---: |
    | a\|b | 1 |
    | two lines | 20 |
    """
    lines = [_line(header), _line(["---:" if column in right else "---" for column in range(len(header))])]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row of {len(row)} cells in a table of {len(header)} columns: {list(row)[:5]}")
        lines.append(_line(row))
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    safe = (_BAR.sub(r"\1\\|", " ".join(cell.splitlines())) for cell in cells)
    return f"| {' | '.join(safe)} |"
