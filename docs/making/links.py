"""Links of Markdown files: find them, resolve them within the repository, and point them at pages of the site.

Code blocks and inline code hold no links. Anchors are those that GitHub and the site give to headings. Standard
library only; `tests/docs/test_links.py` checks every Markdown file of the repository with it.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["anchors_of", "broken_links", "links_of", "pages_of", "site_page", "with_site_links", "with_unlisted"]

ROOT_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
    "benchmarks/README.md": "measured.md",
    "examples/README.md": "examples.md",
    "benchmarks/results/methods.md": "results/methods.md",
    "benchmarks/results/heterogeneity.md": "results/heterogeneity.md",
    "benchmarks/results/null_calibration.md": "results/null_calibration.md",
}
"""Files outside `docs/` that the site shows, and under which names."""

_FENCE = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"(?P<before>\[(?:[^\[\]]|\[[^\]]*\])*\]\()(?P<target>[^)\s]+)(?P<after>\))")
_HTML = re.compile(r"(?P<before>\b(?:href|src|srcset)=\")(?P<target>[^\"]+)(?P<after>\")")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_OUTSIDE = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def links_of(text: str) -> list[str]:
    """Return the targets of all links and images of a Markdown text, in order.

    >>> links_of("[a](b.md#c) `[no](x.md)` <img src='d.svg'>".replace("'", chr(34)))
    ['b.md#c', 'd.svg']
    """
    prose = _CODE.sub("", _FENCE.sub("", text))
    found = [(match.start(), match["target"]) for pattern in (_LINK, _HTML) for match in pattern.finditer(prose)]
    return [target for _, target in sorted(found)]


def anchors_of(text: str) -> set[str]:
    r"""Return the anchors of the headings of a Markdown text, and of elements with an id.

    >>> sorted(anchors_of("# What `run` holds, and why\n## A\n## A\n"))
    ['a', 'a-1', 'what-run-holds-and-why']
    """
    seen: dict[str, int] = {}
    anchors = set(re.findall(r'\bid="([^"]+)"', text))
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-")
        count = seen[slug] = seen.get(slug, -1) + 1
        anchors.add(slug if count == 0 else f"{slug}-{count}")
    return anchors


def broken_links(root: Path, name: str) -> Iterator[str]:
    """Yield what is wrong with the links of a file, a line each: a missing file, a missing heading.

    Args:
        root: the repository.
        name: the Markdown file below it, such as `docs/index.md`.
    """
    text = (root / name).read_text(encoding="utf-8")
    for target in links_of(text):
        if _OUTSIDE.match(target):
            continue
        path, _, anchor = target.partition("#")
        place = _resolved(name, path)
        if place is None or not (root / place).exists():
            yield f"{name}: {target} leads to no file of the repository"
        elif anchor and place.endswith(".md") and anchor not in anchors_of((root / place).read_text(encoding="utf-8")):
            yield f"{name}: {target}: {place} has no heading #{anchor}"


def site_page(place: str) -> str | None:
    """Return under which name the site shows a file of the repository, or None if it does not.

    >>> site_page("docs/install.md"), site_page("CHANGELOG.md"), site_page("fedllm_train/rounds.py")
    ('install.md', 'changelog.md', None)
    """
    if place in ROOT_PAGES:
        return ROOT_PAGES[place]
    inside = place.removeprefix("docs/")
    return inside if inside != place and not inside.startswith("making/") else None


def with_site_links(text: str, name: str, page: str) -> str:
    """Return a text whose links lead to pages of the site; the words of a link to anything else stay, without it.

    Args:
        text: of a Markdown file.
        name: the file it stands in, below the repository's root; its links are relative to that.
        page: the page of the site it becomes.

    >>> with_site_links("see [how](../CONTRIBUTING.md#a) and [it](../Makefile)", "docs/x.md", "x.md")
    'see [how](contributing.md#a) and it'
    """
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    def point(match: re.Match[str]) -> str:
        path, mark, anchor = match["target"].partition("#")
        if _OUTSIDE.match(match["target"]) or not path:
            return match[0]
        place = _resolved(name, path)
        found = None if place is None else site_page(place)
        if found is None:
            words = match["before"]
            return words[1:-2] if words.startswith("[") else match[0]
        relative = posixpath.relpath(found, posixpath.dirname(page) or ".")
        return f"{match['before']}{relative}{mark}{anchor}{match['after']}"

    bare = _CODE.sub(keep, _FENCE.sub(keep, text))
    for pattern in (_LINK, _HTML):
        bare = pattern.sub(point, bare)
    while "\0" in bare:
        bare = re.sub(r"\0(\d+)\0", lambda match: kept[int(match[1])], bare)
    return bare


def with_unlisted(menu: list[Any], folder: Path) -> list[Any]:
    """Return the menu of the site with the pages of `docs/` that it does not list, at the end of its guides.

    Args:
        menu: as in `mkdocs.yml`.
        folder: of the pages; those that lie directly in it are looked at.
    """
    listed = set(pages_of(menu))
    unlisted = sorted(path.name for path in folder.glob("*.md") if path.name not in listed)
    return [
        {"Guides": [*part["Guides"], *unlisted]} if isinstance(part, dict) and "Guides" in part else part
        for part in menu
    ]


def pages_of(menu: Any) -> list[str]:
    """Return the pages that a menu lists.

    >>> pages_of([{"Start": ["index.md", {"Install": "install.md"}]}])
    ['index.md', 'install.md']
    """
    if isinstance(menu, str):
        return [menu]
    return [page for each in (menu.values() if isinstance(menu, dict) else menu) for page in pages_of(each)]


def _resolved(name: str, path: str) -> str | None:
    """Return where a relative path leads, below the root, or None if it leaves the repository."""
    place = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
    return None if place.startswith("..") else place
