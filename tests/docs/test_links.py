"""Every link of every Markdown file of the repository leads somewhere, here and on the site; nothing needs MkDocs."""

import doctest
import re
from pathlib import Path

import pytest
import yaml

from docs.making import links
from docs.making.command_pages import COMMAND_PAGES
from docs.making.links import (
    ROOT_PAGES,
    anchors_of,
    broken_links,
    links_of,
    pages_of,
    site_page,
    with_site_links,
    with_unlisted,
)

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT / name for name in ("", "docs", "benchmarks", "benchmarks/results", "cards", "examples")]
FILES = sorted(str(path.relative_to(ROOT)) for folder in FOLDERS for path in folder.glob("*.md"))
MADE = {"results.md", *COMMAND_PAGES.values()}


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without the library behind its tags."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)
SITE = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), _Loader)


@pytest.mark.parametrize("name", FILES)
def test_links_lead_to_files_and_headings(name):
    assert list(broken_links(ROOT, name)) == []


def test_the_files_that_matter_are_looked_at():
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/importing.md", "benchmarks/README.md"} <= {*FILES}


def test_a_broken_link_is_named(tmp_path):
    (tmp_path / "a.md").write_text("[x](b.md) [y](#no) [z](../c.md) `[n](no.md)`\n# Yes\n[w](#yes) [v](https://x.y)\n")
    assert list(broken_links(tmp_path, "a.md")) == [
        "a.md: b.md leads to no file of the repository",
        "a.md: #no: a.md has no heading #no",
        "a.md: ../c.md leads to no file of the repository",
    ]


def test_code_holds_no_links():
    assert links_of("```\n[a](b.md)\n```\n`[c](d.md)` ``[e](f.md)`` [g](h.md)") == ["h.md"]


def test_a_heading_within_a_code_block_is_none():
    assert anchors_of("```\n# a comment\n```\n## Real") == {"real"}


def test_a_link_to_code_keeps_its_words_on_the_site():
    text = "[`rounds.py`](../fedllm_train/rounds.py), [guide](training.md#flags), [all](../CHANGELOG.md)"
    assert with_site_links(text, "docs/x.md", "x.md") == "`rounds.py`, [guide](training.md#flags), [all](changelog.md)"
    assert (
        with_site_links("[m](results/methods.md)", "benchmarks/README.md", "measured.md") == "[m](results/methods.md)"
    )
    assert (
        with_site_links("[b](../README.md)", "benchmarks/results/methods.md", "results/methods.md")
        == "[b](../measured.md)"
    )


def test_every_page_is_in_the_menu_once():
    listed = pages_of(with_unlisted(SITE["nav"], ROOT / "docs"))
    kept = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert len(listed) == len(set(listed))
    assert set(listed) == kept | MADE | set(ROOT_PAGES.values())


def test_a_guide_that_nobody_listed_comes_after_the_others(tmp_path):
    for name in ("a.md", "b.md"):
        (tmp_path / name).touch()
    menu = [{"Start": ["index.md"]}, {"Guides": [{"A": "a.md"}]}]
    assert with_unlisted(menu, tmp_path) == [{"Start": ["index.md"]}, {"Guides": [{"A": "a.md"}, "b.md"]}]


def test_what_the_site_shows_of_the_repository_is_there():
    assert all((ROOT / name).is_file() for name in ROOT_PAGES)
    assert site_page("docs/making/links.py") is None


def test_a_page_of_the_repository_links_to_no_page_that_is_only_made():
    for name in FILES:
        for target in links_of((ROOT / name).read_text(encoding="utf-8")):
            assert target.partition("#")[0] not in MADE, f"{name}: {target} exists on the site alone"


def test_the_site_asks_for_nothing_from_elsewhere():
    theme = SITE["theme"]
    assert theme["font"] is False
    assert SITE["extra"]["polyfills"] == ["javascripts/iframe-worker.js"]
    loaded = [*SITE["extra"]["polyfills"], *SITE["extra_css"]]
    for path in loaded:
        text = (ROOT / "docs" / path).read_text(encoding="utf-8")
        assert not re.search(r"url\(|@import|https?://(?!github\.com/squidfunk)", text), path


def test_pictures_are_small():
    pictures = list((ROOT / "docs" / "pictures").iterdir())
    assert pictures
    assert all(path.stat().st_size < 200_000 for path in pictures)


def test_doctests():
    assert doctest.testmod(links).failed == 0
