"""What a client says about its rows: tables of integer counts and vectors of integer sums, nothing that can be read.

A profile holds no text. Every entry is an integer that adds, so merging two clients' profiles gives exactly the
profile of their union, in any order and on any machine, and JSON carries it without loss; tables of `sketch.MOST_KEYS`
are cut down in a way that keeps this. The report is a function of profiles alone: it serves one machine, many
processes, and clients who never show their rows to anyone.

Real numbers (an embedding, a score) enter as fixed-point integers, `round(x * SCALE)`, so that their sums do not
depend on the order of addition. Symbols: K clients, L labels, D dimensions; `counts_KL` is a (K, L) array of row
counts, `sums_KD` a (K, D) array of sums. numpy only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedllm_data.errors import ReportError
from fedllm_data.heterogeneity.sketch import MOST_KEYS, first_keys

__all__ = [
    "MERGED_CLIENTS",
    "SCALE",
    "ClientProfile",
    "CountTable",
    "Counts",
    "Stack",
    "Vectors",
    "fixed_point_sum",
    "merge_profiles",
    "stack_profiles",
    "stacked_counts",
]

Counts = dict[str, int]
"""Label -> number of rows (or another integer that adds, such as a sum of squares)."""
IntArray = NDArray[np.int64]
Vectors = dict[str, IntArray]
"""Name of a statistic -> (D,) sums over rows, in units of 1 / SCALE."""
SCALE = 1 << 20
"""Fixed point: 20 bits after the point; values up to 1,000 may be summed over 8 billion rows in 64 bits."""

MERGED_CLIENTS = ""
"""Id of the profile of all clients with too few rows to have one of their own; no client has the empty id."""

PROFILE_VERSION = 4


@dataclass(frozen=True, eq=False)
class ClientProfile:
    """The sufficient statistics of one client's rows."""

    client_id: str
    codebook: str
    """Digest of the codebook that made features of the rows. Profiles of different codebooks cannot be merged."""
    num_rows: int
    counts: dict[str, Counts]
    """Name of a statistic -> its table; each axis names the tables it fills and reads."""
    vectors: Vectors = field(default_factory=dict)
    """Name of a statistic -> its sums; a client without the statistic has no entry."""

    def __eq__(self, other: object) -> bool:
        """Return whether both say the same: dataclasses cannot compare arrays."""
        return isinstance(other, ClientProfile) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def to_json(self) -> dict[str, Any]:
        """Return the profile as plain JSON values, with keys in a fixed order.

        >>> profile = ClientProfile("a", "digest", 2, {"language": {"fr": 1, "en": 1}})
        >>> ClientProfile.from_json(profile.to_json()) == profile
        True
        >>> vectors = {"embedding": fixed_point_sum(np.array([[0.5, -1.0]]))}
        >>> ClientProfile("a", "t", 1, {}, vectors).to_json()["vectors"]
        {'embedding': [524288, -1048576]}
        """
        counts = {name: dict(sorted(table.items())) for name, table in sorted(self.counts.items())}
        return {
            "version": PROFILE_VERSION,
            "client_id": self.client_id,
            "codebook": self.codebook,
            "num_rows": self.num_rows,
            "counts": counts,
            "vectors": {name: vector.tolist() for name, vector in sorted(self.vectors.items())},
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "ClientProfile":
        """Return the profile that `to_json` wrote.

        Raises:
            ReportError: if the document is of another version, or lacks a part.

        >>> ClientProfile.from_json({"version": 99})
        Traceback (most recent call last):
        ...
        fedllm_data.errors.ReportError: profile has version 99, this release reads version 4: profile the rows again
        """
        version = document.get("version")
        if version != PROFILE_VERSION:
            raise ReportError(
                f"profile has version {version}, this release reads version {PROFILE_VERSION}: profile the rows again"
            )
        try:
            vectors = {name: np.array(values, np.int64) for name, values in document["vectors"].items()}
            return cls(document["client_id"], document["codebook"], document["num_rows"], document["counts"], vectors)
        except KeyError as error:
            raise ReportError(f"profile lacks {error}: profile the rows again") from error


def fixed_point_sum(values_ND: NDArray[np.floating]) -> IntArray:
    """Return the sums over rows in fixed point, the same whatever the order of the rows.

    Args:
        values_ND: (N, D) finite numbers of magnitude below 1,000, one row each.

    Returns:
        (D,) integers in units of 1 / SCALE; each row is rounded before it is added.

    >>> fixed_point_sum(np.array([[0.25], [0.5]])) / SCALE
    array([0.75])
    """
    return np.asarray(np.rint(np.asarray(values_ND, np.float64) * SCALE).astype(np.int64).sum(axis=0))


def merge_profiles(profiles: Iterable[ClientProfile], *, client_id: str) -> ClientProfile:
    """Return the profile of the union of rows, under one client id.

    Args:
        profiles: at least one, all made with the same codebook.
        client_id: whose profile the result is.

    Raises:
        ReportError: if there is nothing to merge or the codebooks differ.

    >>> one = ClientProfile("a", "t", 1, {"language": {"en": 1}})
    >>> two = ClientProfile("b", "t", 2, {"language": {"en": 1, "fr": 1}})
    >>> merge_profiles([one, two], client_id="ab").counts
    {'language': {'en': 2, 'fr': 1}}
    """
    parts = list(profiles)
    if not parts:
        raise ReportError(f"client {client_id!r} has no profile to merge: give at least one")
    codebooks = sorted({part.codebook for part in parts})
    if len(codebooks) > 1:
        raise ReportError(
            f"client {client_id!r} has profiles of the codebooks {' and '.join(codebooks)}: use one codebook for all"
        )
    counts: dict[str, Counts] = {}
    vectors: Vectors = {}
    for part in parts:
        for name, vector in part.vectors.items():
            vectors[name] = vectors[name] + vector if name in vectors else vector
        for name, table in part.counts.items():
            into = counts.setdefault(name, {})
            for label, count in table.items():
                into[label] = into.get(label, 0) + count
    counts |= {name: first_keys(counts[name], most) for name, most in MOST_KEYS.items() if name in counts}
    return ClientProfile(client_id, codebooks[0], sum(part.num_rows for part in parts), counts, vectors)


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
    vectors: dict[str, IntArray] = field(default_factory=dict)
    """Name of a statistic -> `sums_KD`; zeros for a client that has none."""
    min_client_rows: int = 1
    """Clients with fewer rows could not be in the dataset: a client has a row, and a build may ask for more."""
    shared: dict[str, IntArray] = field(default_factory=dict)
    """What lies between the observed clients, as the axis gathers it; a resample leaves it as it is (`origin_K`)."""
    derived: Any = None
    """What an axis has worked out of the observed clients, once; a resample finds its clients there by `origin_K`."""

    @property
    def num_clients(self) -> int:
        """Number of entries, counted as often as they occur."""
        return len(self.origin_K)

    def take(self, index_K: IntArray) -> "Stack":
        """Return the clients at these positions, with repeats: one bootstrap resample."""
        tables = {name: CountTable(table.labels, table.counts_KL[index_K]) for name, table in self.tables.items()}
        kept = self.vectors if self.derived is None else {}
        vectors = {name: sums_KD[index_K] for name, sums_KD in kept.items()}
        return replace(self, tables=tables, vectors=vectors, origin_K=self.origin_K[index_K])


def stacked_counts(stacks: Sequence[Stack], name: str) -> IntArray:
    """Return a table of several stacks with the same labels and as many clients each, (R, K, L).

    >>> stack = Stack(("a",), {"language": CountTable(("en",), np.array([[2]]))}, np.arange(1))
    >>> stacked_counts([stack, stack], "language").tolist()
    [[[2]], [[2]]]
    """
    tables = [stack.tables[name].counts_KL for stack in stacks]
    return np.stack(tables) if len(tables) > 1 else tables[0][None]


def stack_profiles(
    profiles: Sequence[ClientProfile], tables: Sequence[str], min_rows: int = 1, vectors: Sequence[str] = ()
) -> Stack:
    """Return the named statistics of all clients with enough rows in the first table, sorted by client id.

    Args:
        profiles: one per client.
        tables: names of statistics; labels that no client uses do not appear.
        min_rows: clients with fewer labelled rows are left out.
        vectors: names of vector statistics.

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
    sums = {}
    for name in vectors:
        size = max((len(profile.vectors[name]) for profile in used if name in profile.vectors), default=0)
        sums[name] = np.zeros((len(used), size), np.int64)
        for row, profile in enumerate(used):
            if name in profile.vectors:
                sums[name][row] = profile.vectors[name]
    return Stack(tuple(profile.client_id for profile in used), stacked, np.arange(len(used)), sums)
