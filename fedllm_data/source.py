"""What a corpus must state and yield: the contract between `sources/` and `build.py`.

A source file defines one `Source` per corpus it can build. `read` yields one item per upstream row, either a
`SourceRow` in the format of `schema.py` or a `Rejected` with the place and the reason; it drops nothing silently.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedllm_data.licences import is_non_commercial
from fedllm_data.schema import Task

__all__ = ["Filters", "KnownSize", "Rejected", "Source", "SourceRow"]


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row in schema form, and where it came from."""

    row: dict[str, Any]
    file: str
    line: int
    is_public: bool = False
    """The row belongs to no client and goes into the `public` split."""
    is_toxic: bool = False
    """Upstream flags the row as toxic or unsafe; left out unless `Filters.keep_toxic`."""
    group: str | None = None
    """What the row must not be parted from, of all clients: a thread, a ticket, a document. All rows of a group lie in
    one split. None: rows that open with the same words belong together."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """One upstream row that cannot be used; it becomes a line of `rejected.jsonl`."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What a build leaves out; a source's preset, changed by flags of the command. `Filters.none()` keeps all."""

    min_rows: int = 1
    """Leave out clients with fewer rows."""
    max_rows: int | None = None
    """Keep at most this many rows of a client, chosen by row id."""
    max_clients: int | None = None
    """Keep at most this many clients, those with the most rows."""
    languages: tuple[str, ...] = ()
    """Keep rows in these languages alone (ISO 639 codes as in the column `language`); empty keeps all."""
    min_turns: int | None = None
    """Leave out conversations with fewer user messages."""
    max_turns: int | None = None
    """Leave out conversations with more user messages."""
    max_chars: int | None = None
    """Leave out rows whose messages hold more characters in all."""
    keep_toxic: bool = False
    """Keep rows that upstream flags as toxic."""
    near_duplicates: float | None = None
    """Leave out rows whose prompt and answers are this similar (Jaccard, 0 to 1) to an earlier row's; None: keep."""
    keep_duplicates: bool = False
    """Keep exact duplicates, and pairs whose two answers are the same text."""

    @classmethod
    def none(cls) -> "Filters":
        """Keep every client and every valid row."""
        return cls(keep_toxic=True, keep_duplicates=True)


@dataclass(frozen=True, kw_only=True)
class KnownSize:
    """A published or measured size of a corpus, for `fedllm-data list` and the card."""

    of: str
    """What was counted: "FedLLM-Bench, Fed-Aya", "upstream, all rows", "our build from the validation split"."""
    num_clients: int | None
    num_rows: int | None
    reference: str
    """Paper with table, dataset card with revision, or the command that built it."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A corpus: who the client is, under which terms, and how upstream rows become schema rows."""

    name: str
    task: Task
    summary: str
    client: str
    """Who a client is, in words: "the prompter (OASST `user_id`)"."""
    licence: str
    """Identifier as the Hub's card metadata spells it: apache-2.0, cc-by-sa-4.0, ...; else the licence's name."""
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
    filters: Filters = Filters()
    """The preset; flags of the command change single fields, `--unfiltered` takes `Filters.none()` instead."""
    filter_reasons: str = ""
    """Where the preset comes from: the paper, or the argument behind a threshold no paper states."""
    sizes: tuple[KnownSize, ...] = ()
    """Sizes known from the literature, and from builds of ours."""
    terms: str = ""
    """What upstream says of the terms, in a sentence or two, where the licence's name does not tell all."""
    gate: str = ""
    """What a reader must agree to before access on the Hub (gating text); required for non-commercial licences."""
    limits: tuple[str, ...] = ()
    """What a user must know of this corpus, one sentence each, for the card."""
    ids_must_be_hashed: bool = False
    """Upstream's client ids must not be published as they are: a build needs a salt."""
    clients_share_items: bool = False
    """Clients judge or answer the same items: equal rows of two clients are two verdicts, not duplicates. Where it is
    false for preference rows, what people agree on is kept once and what they differ in twice."""
    is_row_per_record: bool = False
    """`read` yields exactly one item for every record of the files, which a build then asserts."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the reader decided and met, for `build.json`; complete when all rows are read. Empty for a known corpus."""

    @property
    def is_non_commercial(self) -> bool:
        """Whether the licence forbids commercial use: such rows go into a repo of their own, behind a gate."""
        return is_non_commercial(self.licence)
