"""What MkDocs asks while it builds the site: pages that are made, not kept, and links that lead from one to another.

Pages made at build time: the results, the command reference, and those of the repository that lie outside `docs/`
(CHANGELOG, CONTRIBUTING, the measured figures, ...). In the files themselves links are those of the repository, so
that they also work where the files are read as they are; here they are pointed at pages of the site.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from mkdocs.config.defaults import MkDocsConfig  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402
from mkdocs.structure.pages import Page  # noqa: E402

from docs.making.command_pages import COMMAND_PAGES, command_page  # noqa: E402
from docs.making.links import ROOT_PAGES, with_site_links, with_unlisted  # noqa: E402
from docs.making.results_page import results_page  # noqa: E402

MADE_PAGES = """
## Made when this site was built

- [Results](results.md): what our own runs gained, with intervals, as tables and figures.
- The commands, by their own help: [fedllm-data](commands/fedllm-data.md),
  [fedllm-train](commands/fedllm-train.md), [fedllm-eval](commands/fedllm-eval.md).
- [Python](python.md): what the packages show.
"""
"""Ends the first page; in the repository these pages do not exist, so nothing there links to them."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put guides that the menu does not list behind those it lists, so that a new page needs no second place."""
    config.nav = with_unlisted(config.nav, ROOT / "docs")
    return config


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Add the pages that are made, and those from outside `docs/`."""
    made = {page: command_page(program) for program, page in COMMAND_PAGES.items()} | {"results.md": results_page()}
    for name, page in ROOT_PAGES.items():
        made[page] = with_site_links((ROOT / name).read_text(encoding="utf-8"), name, page)
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Point the links of a kept page at pages of the site."""
    if page.file.generated_by is not None:
        return markdown
    if page.file.src_uri == "index.md":
        markdown += MADE_PAGES
    return with_site_links(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)
