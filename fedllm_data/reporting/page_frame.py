"""The frame of every page: one HTML file that loads nothing and speaks one language, or all with a switch.

A page is made by a function that renders its body; it is called once for each language, while that language is spoken.
Where a page speaks several, each body stands in an element of its own, and a few lines of script show the one that the
reader's browser asks for, that was chosen by the switch, or that the address names (`#ja-...`). Without scripts the
page is English. Ids of all bodies but the English are prefixed with their language, and so are links to them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fedllm_data.reporting.templates import page_environment
from fedllm_data.wording.catalogue import LANGUAGES, in_language

__all__ = ["SHARED", "Body", "whole_page"]

SHARED = "drawn-"
"""Ids that begin like this stand outside of the bodies, once for all languages."""
_IDS = re.compile(
    rf"""(?<=[\s<])(id|for|aria-labelledby|aria-describedby|href)="(?!#?{SHARED})(#?)([^"#:/]*)\"""",
)


@dataclass(frozen=True)
class Body:
    """What is inside a page, in one language."""

    title: str
    """Of the window, as plain text."""
    html: str
    """All that stands in the page's body."""


def whole_page(
    render: Callable[[], Body],
    *,
    language: str | None = None,
    style: str = "",
    shared: str = "",
    scripts: Sequence[str] = (),
) -> str:
    """Return the file.

    Args:
        render: returns the body in the language that is spoken.
        language: the language of the page; by default it carries all, and the browser chooses.
        style: CSS of this page beside that of all pages.
        shared: HTML outside of the bodies, once for all languages: drawings and data.
        scripts: JavaScript that runs at the end, in this order.

    Raises:
        ConfigError: if there is no such language.

    >>> page = whole_page(lambda: Body("a", '<p id="x">b</p>'), language="ja")
    >>> '<html lang="ja">' in page, '<p id="x">b</p>' in page
    (True, True)
    >>> whole_page(lambda: Body("a", '<p id="x">b</p>')).count('id="ja-x"')
    1
    """
    spoken = list(LANGUAGES) if language is None else [language]
    bodies = {}
    for one in spoken:
        with in_language(one):
            body = render()
        bodies[one] = Body(body.title, body.html if one == spoken[0] else _prefixed(body.html, one))
    with in_language(spoken[0]):
        return (
            page_environment()
            .get_template("frame.html.jinja")
            .render(
                languages={one: LANGUAGES[one] for one in spoken},
                first=spoken[0],
                titles={one: body.title for one, body in bodies.items()},
                bodies={one: Markup(body.html) for one, body in bodies.items()},
                style=Markup(style),
                shared=Markup(shared),
                scripts=[Markup(script) for script in scripts],
            )
        )


def _prefixed(html: str, language: str) -> str:
    """The body with ids, and links to them, that are its own."""

    def with_prefix(match: re.Match[str]) -> str:
        name, fragment, value = match.groups()
        if name == "href" and not fragment:
            return match[0]
        return f'{name}="{fragment}{language}-{value}"'

    return _IDS.sub(with_prefix, html)
