"""What every page must hold in a browser, at each width, in light and dark, in each language: a list of complaints.

Nothing is wider than the window; nothing is loaded and the console is silent; text has a contrast of 4.5 with what
lies behind it (WCAG 2.2, 1.4.3; large text 3); two texts of a figure do not cover each other; whatever scrolls can be
reached by the keyboard and says what it is.
"""

from pathlib import Path
from typing import Any

from tests.data.reporting.chromium import Page

SCRIPTS = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
"""`CONTRAST`, `OVERLAPS`, `UNREACHED` and `TEXT`."""

WIDTHS = (400, 1280)
LANGUAGES = {"en": "en-US", "ja": "ja-JP"}


def check(page: Page, name: str) -> Any:
    """Return what one of the scripts finds in the page that is open."""
    return page.run(f"(() => {{ {SCRIPTS}\nreturn {name}(); }})()")


def speak(page: Page, language: str) -> None:
    """Let the browser ask for a language, as that of a reader would."""
    page.send(
        "Emulation.setUserAgentOverride",
        userAgent=page.run("navigator.userAgent"),
        acceptLanguage=LANGUAGES[language],
    )


def complaints(page: Page, path: Path, width: int, language: str, *, dark: bool) -> list[Any]:
    """Open a page, unfold all of it, and return what is wrong with it; nothing where it is sound."""
    page.complaints.clear()
    page.open(path, width, dark=dark)
    if page.run("document.querySelector('nav a[href$=\"all\"]') !== null"):
        page.run(f"location.hash = '#{'' if language == 'en' else 'ja-'}all'")
        page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")
    page.run("for (const one of document.querySelectorAll('details')) one.open = true")
    found: list[Any] = []
    if page.run("document.documentElement.lang") != language:
        found.append("the browser's language was not chosen")
    if not page.run("document.documentElement.scrollWidth <= innerWidth"):
        wide = (
            "[...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > innerWidth"
            " + 1"
            " && !one.closest('.wide, figure')).slice(0, 3).map((one) => one.outerHTML.slice(0, 90))"
        )
        found.append(("wider than the window", page.run(wide)))
    loaded = [url for url in page.requests if not url.startswith("data:") and url != path.as_uri()]
    for name, wrong in (
        ("console", page.complaints),
        ("loaded", loaded),
        ("contrast", check(page, "CONTRAST")),
        ("overlapping", check(page, "OVERLAPS")),
        ("scrolls out of reach", check(page, "UNREACHED")),
    ):
        if wrong:
            found.append((name, list(wrong)))
    return found
