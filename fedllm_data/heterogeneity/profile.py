"""What a client says about its rows: tables of integer counts, and nothing that can be read.

A profile holds no text. Every entry is an integer that adds, so merging two clients' profiles gives exactly the
profile of their union, in any order and on any machine, and JSON carries it without loss. The report is a function
of profiles alone: it serves one machine, many processes, and clients who never show their rows to anyone.

Symbols: K clients, L labels; `counts_KL` is a (K, L) array of row counts. numpy only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedllm_data.errors import ReportError

__all__ = ["ClientProfile", "CountTable", "Counts", "Stack", "merge_profiles", "stack_profiles"]

Counts = dict[str, int]
"""Label -> number of rows (or another integer that adds, such as a sum of squares)."""
IntArray = NDArray[np.int64]

PROFILE_VERSION = 1


@dataclass(frozen=True)
class ClientProfile:
    """The sufficient statistics of one client's rows."""

    client_id: str
    tokenizer: str
    """What a token is. Profiles counted in different tokens cannot be merged."""
    num_rows: int
    counts: dict[str, Counts]
    """Name of a statistic -> its table; each axis names the tables it fills and reads."""

    def to_json(self) -> dict[str, Any]:
        """Return the profile as plain JSON values, with keys in a fixed order.

        >>> profile = ClientProfile("a", "unicode-words", 2, {"language": {"fr": 1, "en": 1}})
        >>> ClientProfile.from_json(profile.to_json()) == profile
        True
        """
        counts = {name: dict(sorted(table.items())) for name, table in sorted(self.counts.items())}
        return {
            "version": PROFILE_VERSION,
            "client_id": self.client_id,
            "tokenizer": self.tokenizer,
            "num_rows": self.num_rows,
            "counts": counts,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "ClientProfile":
        """Return the profile that `to_json` wrote.

        Raises:
            ReportError: if the document is of another version, or lacks a part.

        >>> ClientProfile.from_json({"version": 99})
        Traceback (most recent call last):
        ...
        fedllm_data.errors.ReportError: profile has version 99, this release reads version 1: profile the rows again
        """
        version = document.get("version")
        if version != PROFILE_VERSION:
            raise ReportError(
                f"profile has version {version}, this release reads version {PROFILE_VERSION}: profile the rows again"
            )
        try:
            return cls(document["client_id"], document["tokenizer"], document["num_rows"], document["counts"])
        except KeyError as error:
            raise ReportError(f"profile lacks {error}: profile the rows again") from error


def merge_profiles(profiles: Iterable[ClientProfile], *, client_id: str) -> ClientProfile:
    """Return the profile of the union of rows, under one client id.

    Args:
        profiles: at least one, all counted with the same tokenizer.
        client_id: whose profile the result is.

    Raises:
        ReportError: if there is nothing to merge or the tokenizers differ.

    >>> one = ClientProfile("a", "t", 1, {"language": {"en": 1}})
    >>> two = ClientProfile("b", "t", 2, {"language": {"en": 1, "fr": 1}})
    >>> merge_profiles([one, two], client_id="ab").counts
    {'language': {'en': 2, 'fr': 1}}
    """
    parts = list(profiles)
    if not parts:
        raise ReportError(f"client {client_id!r} has no profile to merge: give at least one")
    tokenizers = sorted({part.tokenizer for part in parts})
    if len(tokenizers) > 1:
        raise ReportError(
            f"client {client_id!r} has profiles counted with {' and '.join(tokenizers)}: use one tokenizer for all"
        )
    counts: dict[str, Counts] = {}
    for part in parts:
        for name, table in part.counts.items():
            into = counts.setdefault(name, {})
            for label, count in table.items():
                into[label] = into.get(label, 0) + count
    return ClientProfile(client_id, tokenizers[0], sum(part.num_rows for part in parts), counts)


@dataclass(frozen=True)
class CountTable:
    """One statistic of all clients side by side."""

    labels: tuple[str, ...]
    counts_KL: IntArray

    @property
    def sizes_K(self) -> IntArray:
        """Rows of each client that have a label."""
        return np.asarray(self.counts_KL.sum(axis=1))


@dataclass(frozen=True)
class Stack:
    """The clients an axis uses, in sorted order, as arrays."""

    client_ids: tuple[str, ...]
    tables: dict[str, CountTable]
    origin_K: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Which observed client each entry is: a bootstrap resample holds some clients several times."""
    min_client_rows: int = 1
    """Clients with fewer rows could not be in the dataset: a client has a row, and a build may ask for more."""

    @property
    def num_clients(self) -> int:
        """Number of entries, counted as often as they occur."""
        return len(self.origin_K)

    def take(self, index_K: IntArray) -> "Stack":
        """Return the clients at these positions, with repeats: one bootstrap resample."""
        tables = {name: CountTable(table.labels, table.counts_KL[index_K]) for name, table in self.tables.items()}
        return replace(self, tables=tables, origin_K=self.origin_K[index_K])


def stack_profiles(profiles: Sequence[ClientProfile], tables: Sequence[str], min_rows: int = 1) -> Stack:
    """Return the named tables of all clients with enough rows in the first of them, sorted by client id.

    Args:
        profiles: one a client.
        tables: names of statistics; labels that no client uses do not appear.
        min_rows: clients with fewer labelled rows are left out.

    Raises:
        ReportError: if two profiles have the same client id.

    >>> stack = stack_profiles([ClientProfile("a", "t", 2, {"language": {"en": 2}})], ["language"])
    >>> stack.tables["language"].labels, stack.tables["language"].counts_KL.tolist()
    (('en',), [[2]])
    """
    ordered = sorted(profiles, key=lambda profile: profile.client_id)
    for one, two in pairwise(ordered):
        if one.client_id == two.client_id:
            raise ReportError(f"client {one.client_id!r} has two profiles: merge_profiles() makes one of them")
    used = [profile for profile in ordered if sum(profile.counts.get(tables[0], {}).values()) >= min_rows]
    stacked = {}
    for name in tables:
        labels = tuple(sorted({label for profile in used for label in profile.counts.get(name, {})}))
        column = {label: position for position, label in enumerate(labels)}
        counts_KL = np.zeros((len(used), len(labels)), np.int64)
        for row, profile in enumerate(used):
            for label, count in profile.counts.get(name, {}).items():
                counts_KL[row, column[label]] = count
        stacked[name] = CountTable(labels, counts_KL)
    return Stack(tuple(profile.client_id for profile in used), stacked, np.arange(len(used)))
