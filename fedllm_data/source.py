"""What a corpus must state and yield: the contract between `sources/` and `build.py`.

A source file defines one `Source` per corpus it can build. `read` yields one item per upstream row, either a
`SourceRow` in the format of `schema.py` or a `Rejected` with the place and the reason; it drops nothing silently.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedllm_data.schema import Task

__all__ = ["Rejected", "Source", "SourceRow"]


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row in schema form, and where it came from."""

    row: dict[str, Any]
    file: str
    line: int
    is_public: bool = False
    """The row belongs to no client and goes into the `public` split."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """One upstream row that cannot be used; it becomes a line of `rejected.jsonl`."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """A corpus: who the client is, under which terms, and how upstream rows become schema rows."""

    name: str
    task: Task
    summary: str
    client: str
    """Who a client is, in words: "the prompter (OASST `user_id`)"."""
    licence: str
    """Identifier as the Hub's card metadata spells it: apache-2.0, cc-by-sa-4.0, odc-by, ..."""
    licence_url: str
    attribution: str
    upstream: str
    """Hub dataset id or URL; "generated" where there is none."""
    revision: str
    citation: str
    read: Callable[[Path | None, int, dict[str, str]], Iterator[SourceRow | Rejected]]
    """(local copy or None, seed, options given as --set KEY=VALUE) -> rows."""
    options: dict[str, str]
    """Names of the options that `read` takes, each with one sentence."""
    min_rows: int = 1
    """Preset of the filter on rows per client; `--min-rows` overrides it, `--unfiltered` sets it to 1."""
