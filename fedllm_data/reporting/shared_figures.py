"""One drawing for all languages of a page: its lines once, outside of the bodies, and its words in each body.

matplotlib writes every text as a group of its own (`text_1`, `text_2`, ...), with a line of text each. What is left
without them is stored once as a symbol; in a body the figure is that symbol with the texts above it, said in the
language of the body. A text of several lines is put together, said again, and broken into as many lines.
"""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fedllm_data.reporting.page_frame import SHARED
from fedllm_data.reporting.report_words import visible
from fedllm_data.reporting.style import inlined
from fedllm_data.wording.catalogue import language_now
from fedllm_data.wording.recorded import again

__all__ = ["SharedFigures"]

_TEXT_GROUP = re.compile(r'<g id="[^"]*text_\d+">(.*?)</g>', re.DOTALL)
_TEXT = re.compile(r"(<text\b[^>]*>)(.*?)(</text>)", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_ROOT = re.compile(r'<svg\b[^>]*viewBox="([^"]+)"[^>]*>(.*)</svg>', re.DOTALL)


@dataclass(frozen=True)
class _Parts:
    view_box: str
    lines: str
    texts: tuple[str, ...]


class SharedFigures:
    """The figures of a page, by name.

    >>> svg = '<svg viewBox="0 0 9 9"><path d="M0 0"/><g id="a-text_1"><text x="1">0.1 to 0.2</text></g></svg>'
    >>> figures = SharedFigures({"a": svg})
    >>> figures.shared()
    '<svg class="drawn" aria-hidden="true"><symbol id="drawn-a" viewBox="0 0 9 9"><path d="M0 0"/></symbol></svg>'
    >>> figures.figure("a", "A figure").count("0.1 to 0.2")
    1
    """

    def __init__(self, svgs: Mapping[str, str]) -> None:
        """Take the figures apart; `svgs` is name -> SVG text as `style.drawing` makes it."""
        self._parts = {name: _taken_apart(inlined(svg)) for name, svg in svgs.items()}

    def __contains__(self, name: str) -> bool:
        """Return whether there is such a figure."""
        return name in self._parts

    def shared(self) -> str:
        """Return what stands outside of the bodies: the lines of all figures."""
        return "\n".join(
            f'<svg class="drawn" aria-hidden="true"><symbol id="{SHARED}{name}" viewBox="{parts.view_box}">'
            f"{parts.lines}</symbol></svg>"
            for name, parts in self._parts.items()
        )

    def figure(self, name: str, label: str) -> str:
        """Return the figure for a body, in the language that is spoken.

        Args:
            name: of the figure.
            label: what is seen, for readers who do not see it.
        """
        parts = self._parts[name]
        texts = "".join(_said(text) for text in parts.texts)
        return (
            f'<svg viewBox="{parts.view_box}" role="img" aria-label="{html.escape(visible(label, 400))}">'
            f'<use href="#{SHARED}{name}"/>{texts}</svg>'
        )


def _taken_apart(svg: str) -> _Parts:
    root = _ROOT.search(svg)
    assert root is not None, "a figure is one svg element with a viewBox"
    inside = _COMMENT.sub("", root[2])
    texts = tuple(_TEXT_GROUP.findall(inside))
    return _Parts(root[1], re.sub(r"\n\s*", "\n", _TEXT_GROUP.sub("", inside)).strip(), texts)


def _said(group: str) -> str:
    """The texts of one group in the language that is spoken; several lines are one text."""
    if language_now() == "en":
        return group.strip()
    lines = [html.unescape(line) for _, line, _ in _TEXT.findall(group)]
    said = again(" ".join(lines))
    if len(lines) > 1:
        length = -(-len(said) // len(lines))
        pieces = [said[start : start + length] for start in range(0, len(said), length)]
        pieces += [""] * (len(lines) - len(pieces))
    else:
        pieces = [said]
    rest = iter(pieces)
    return _TEXT.sub(lambda match: f"{match[1]}{html.escape(next(rest, ''))}{match[3]}", group).strip()
