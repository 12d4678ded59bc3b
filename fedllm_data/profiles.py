"""From rows to profiles: what each client counts on its own, before anything is shared.

Memory holds one batch of rows and the profiles, whatever the size of the corpus.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedllm_data.build_filter import least_client_rows
from fedllm_data.clients import ClientDataset, load_clients
from fedllm_data.codebook import Codebook
from fedllm_data.errors import ReportError
from fedllm_data.features.cache import FeatureCache
from fedllm_data.features.judges import NO_JUDGES, Judges
from fedllm_data.features.rows import row_features
from fedllm_data.features.token_counts import UNICODE_WORDS, Tokenizer
from fedllm_data.heterogeneity.axes import profile_rows
from fedllm_data.heterogeneity.profile import MERGED_CLIENTS, ClientProfile, merge_profiles
from fedllm_data.repo import open_repo, split_of_file
from fedllm_data.schema import PUBLIC_CLIENT, SCHEMAS, Task

__all__ = [
    "REPORT_SPLITS",
    "ProfileSet",
    "client_profiles",
    "codebook_sample",
    "in_order",
    "merge_small_clients",
    "open_splits",
    "profile_datasets",
    "task_of",
]

_LOG = logging.getLogger(__name__)

REPORT_SPLITS = ("train", "test", "unseen")
"""All rows of all clients; `public` rows belong to none."""
BATCH_ROWS = 8192


@dataclass(frozen=True)
class ProfileSet:
    """The profiles of some clients, with what a report must know of the rows they were counted from."""

    profiles: tuple[ClientProfile, ...]
    """Sorted by client id; the one with the id `MERGED_CLIENTS` comes first."""
    task: Task
    splits: tuple[str, ...]
    min_client_rows: int = 1
    """Clients with fewer rows were left out when the dataset was made."""

    @property
    def clients(self) -> tuple[ClientProfile, ...]:
        """The profiles that are of one client each."""
        return tuple(profile for profile in self.profiles if profile.client_id != MERGED_CLIENTS)

    @property
    def num_merged_rows(self) -> int:
        """Rows of clients that are too small for a profile of their own."""
        return sum(profile.num_rows for profile in self.profiles if profile.client_id == MERGED_CLIENTS)


def open_splits(
    repo_or_dir: str | Path, split: str | None = None, revision: str | None = None
) -> tuple[list[ClientDataset], int]:
    """Return the splits of a client repo that a report is about, and the least number of rows of a client in it.

    Args:
        repo_or_dir: a client repo: a folder, or `org/name` on the Hub.
        split: one split; without it train, test and unseen, as far as the repo has them.
        revision: branch, tag or commit on the Hub; a folder takes none.

    Raises:
        ReportError: if the repo's build.json is broken.
        SchemaError: if this is no client repo, or it lacks the split.
        HubError: if there is neither a folder nor a Hub dataset of this name.

    >>> open_splits("no/such/folder")
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no folder no/such/folder here, and it cannot be a Hub id, which is org/name; check ...
    """
    repo = open_repo(repo_or_dir, revision)
    found = {split_of_file(path) for path in repo.files()}
    # A repo without any of them is no client repo: loading its train split says so and what to do.
    names = [split] if split else [name for name in REPORT_SPLITS if name in found] or ["train"]
    datasets = [load_clients(repo_or_dir, name, revision) for name in names]
    # A split holds a part of a client's rows, so the filter on all of them bounds no split.
    return datasets, 1 if split else least_client_rows(repo)


def codebook_sample(
    repo_or_dir: str | Path, datasets: Sequence[ClientDataset], revision: str | None = None
) -> Sequence[ClientDataset]:
    """Return the rows that a repo's codebook is made from: those of its public split, else those of its clients.

    Args:
        repo_or_dir: a client repo: a folder, or `org/name` on the Hub.
        datasets: its splits of clients.
        revision: branch, tag or commit on the Hub; a folder takes none.

    >>> codebook_sample("no/such/folder", [])
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no folder no/such/folder here, and it cannot be a Hub id, which is org/name; check ...
    """
    has_public = PUBLIC_CLIENT in map(split_of_file, open_repo(repo_or_dir, revision).files())
    return [load_clients(repo_or_dir, PUBLIC_CLIENT, revision)] if has_public else datasets


def task_of(datasets: Sequence[ClientDataset]) -> Task:
    """Return the format of the rows of some splits.

    Raises:
        ReportError: if there is no split, or the splits hold rows of different formats.

    >>> task_of([])
    Traceback (most recent call last):
    fedllm_data.errors.ReportError: no split to report on: give at least one ClientDataset
    """
    if not datasets:
        raise ReportError("no split to report on: give at least one ClientDataset")
    tasks = sorted({dataset.task for dataset in datasets})
    if len(tasks) > 1:
        raise ReportError(f"{datasets[0].name} mixes {' and '.join(tasks)} rows: report on the splits of one repo")
    return tasks[0]


def profile_datasets(
    datasets: Sequence[ClientDataset],
    codebook: Codebook,
    *,
    tokenizer: Tokenizer = UNICODE_WORDS,
    judges: Judges = NO_JUDGES,
    cache: FeatureCache | None = None,
    min_client_rows: int = 1,
    progress: Callable[[int], None] | None = None,
) -> ProfileSet:
    """Return the profiles of all clients, those with fewer rows than the codebook's `min_rows` merged into one.

    Args:
        datasets: splits of one client repo.
        codebook: what clients share.
        tokenizer: what a token is; it must be the codebook's.
        judges: what gives scores: all that the codebook lists, see `features.judges.find_judges`.
        cache: where features of the same rows may lie already.
        min_client_rows: clients with fewer rows were left out when the dataset was made.
        progress: called with the number of rows after every batch.

    Raises:
        ReportError: if there is no split, or the splits hold rows of different formats.
        ConfigError: if tokenizer or encoder are not the codebook's.
    """
    task = task_of(datasets)
    profiles = client_profiles(datasets, tokenizer, progress, codebook=codebook, judges=judges, cache=cache)
    splits = in_order(dataset.split for dataset in datasets)
    return ProfileSet(tuple(merge_small_clients(profiles, codebook.min_rows)), task, splits, min_client_rows)


def client_profiles(
    datasets: Iterable[ClientDataset],
    tokenizer: Tokenizer = UNICODE_WORDS,
    progress: Callable[[int], None] | None = None,
    *,
    codebook: Codebook | None = None,
    judges: Judges = NO_JUDGES,
    cache: FeatureCache | None = None,
) -> list[ClientProfile]:
    """Return one profile a client over all its rows in all the splits, sorted by client id.

    Args:
        datasets: splits of one client repo.
        tokenizer: what a token is.
        progress: called with the number of rows after every batch.
        codebook: what clients share; without it, what needs one is left out.
        judges: what gives scores.
        cache: where features of the same rows may lie already.

    >>> from datasets import Dataset
    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    >>> rows = Dataset.from_list([{"client_id": c, "language": "en", "messages": turns} for c in "abb"])
    >>> [(profile.client_id, profile.num_rows) for profile in client_profiles([ClientDataset.from_dataset(rows)])]
    [('a', 1), ('b', 2)]
    """
    name = codebook.digest if codebook else tokenizer.name
    profiles: dict[str, ClientProfile] = {}
    for clients in datasets:
        for batch in _batches(clients):
            features = row_features(batch, clients.task, tokenizer, codebook=codebook, judges=judges, cache=cache)
            for client_id, part in _by_client(features):
                profile = profile_rows(client_id, part, codebook=name)
                known = profiles.get(client_id)
                profiles[client_id] = merge_profiles([known, profile], client_id=client_id) if known else profile
            if progress:
                progress(batch.num_rows)
    return [profiles[client_id] for client_id in sorted(profiles)]


def merge_small_clients(profiles: Sequence[ClientProfile], min_rows: int) -> list[ClientProfile]:
    """Return the profiles with all that have fewer rows merged into one, whose id is `MERGED_CLIENTS`.

    What is merged and still has fewer rows is left out, for it would say as much of a few people.

    Args:
        profiles: profiles of any clients.
        min_rows: what a profile of its own takes.

    >>> some = [ClientProfile(client_id, "book", rows, {}) for client_id, rows in (("a", 9), ("b", 2), ("c", 3))]
    >>> [(profile.client_id, profile.num_rows) for profile in merge_small_clients(some, 5)]
    [('', 5), ('a', 9)]
    """
    large = [profile for profile in profiles if profile.num_rows >= min_rows and profile.client_id != MERGED_CLIENTS]
    small = [profile for profile in profiles if profile.num_rows < min_rows or profile.client_id == MERGED_CLIENTS]
    if not small:
        return sorted(large, key=lambda profile: profile.client_id)
    merged = merge_profiles(small, client_id=MERGED_CLIENTS)
    if merged.num_rows < min_rows:
        _LOG.info("%d rows of clients with fewer than %d rows are left out", merged.num_rows, min_rows)
        return sorted(large, key=lambda profile: profile.client_id)
    return sorted([merged, *large], key=lambda profile: profile.client_id)


def in_order(splits: Iterable[str]) -> tuple[str, ...]:
    """Return the names of splits, each once, in the order of a report.

    >>> in_order(["unseen", "train", "train"])
    ('train', 'unseen')
    """
    return tuple(sorted(set(splits), key=lambda split: [*REPORT_SPLITS, split].index(split)))


def _batches(clients: ClientDataset) -> Iterator[pa.Table]:
    columns = [name for name in SCHEMAS[clients.task].names if name in clients.rows.column_names]
    yield from clients.rows.select_columns(columns).with_format("arrow").iter(batch_size=BATCH_ROWS)


def _by_client(features: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Cut the rows of a batch, which lie sorted by client, at the clients' borders."""
    ids = features["client_id"]
    borders = [0, *(row for row in range(1, len(ids)) if ids[row] != ids[row - 1]), len(ids)]
    for start, stop in pairwise(borders):
        if start < stop:
            yield ids[start], {name: column[start:stop] for name, column in features.items() if name != "client_id"}
