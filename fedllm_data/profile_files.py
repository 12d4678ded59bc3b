"""Profiles as files: what a client hands out in place of its rows, and what that says about it.

`write_profiles` writes one JSON file a client, `profile-<hash of the client id>.json`, of some 12 kB: format, version,
task and splits, the codebook's digest, and the `ClientProfile`: the client id as it stands in the rows, the number of
rows, tables of counts and vectors of sums. There is no text of any row in it. What the tables are over: language
codes, bins of lengths and scores, cluster numbers, names of the models that gave the answers, keyed hashes of at
most 512 answer pairs with the verdict on each (13 kB more); and where the codebook names a parser, verbs of a public
list and hashes of verb and object.

What that reveals: how many rows, in which languages, how long, on which of the clusters; what the scorers think; which
models the client prefers; the mean and the covariance of its embeddings. Of a client with one row this is that row's
embedding, and a person who has the codebook (so its salt) can test whether a prompt that they know is among the
client's, and whether two clients judged the same. A profile is no anonymous statistic and has no noise: it is far less
than the rows, and it is personal data where the rows are.

Clients with fewer rows than the codebook's `min_rows` are merged into one profile without an id, which says how many
rows there are and nothing of who wrote which; where that has fewer rows still, it is left out. So `min_rows` is how
many rows hide one another, as in k-anonymity, but nothing hides the people of a client with more.
"""

import json
from collections.abc import Callable, Iterable
from hashlib import blake2b
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from fedllm_data.client_ids import client_not_found
from fedllm_data.codebook import Codebook
from fedllm_data.errors import ReportError
from fedllm_data.features.cache import FeatureCache
from fedllm_data.features.judges import NO_JUDGES, Judges, find_judges
from fedllm_data.features.token_counts import UNICODE_WORDS, Tokenizer
from fedllm_data.heterogeneity.profile import MERGED_CLIENTS, ClientProfile, merge_profiles
from fedllm_data.in_place import sync_folder, write_file
from fedllm_data.profiles import ProfileSet, in_order, open_splits, profile_datasets
from fedllm_data.rehearsal import end_of_checks
from fedllm_data.schema import Task

__all__ = ["profile_clients", "read_profiles", "write_profiles"]

_FORMAT = "fedllm-profile"


def profile_clients(
    repo_or_dir: str | Path,
    out: Path,
    codebook: Codebook,
    *,
    clients: Iterable[str] | None = None,
    split: str | None = None,
    revision: str | None = None,
    tokenizer: Tokenizer = UNICODE_WORDS,
    judges: Judges = NO_JUDGES,
    cache: FeatureCache | None = None,
    progress: Callable[[int], None] | None = None,
) -> ProfileSet:
    """Write the profiles of clients whose rows lie here: `fedllm-data profile`.

    Args:
        repo_or_dir: a client repo: a folder, or `org/name` on the Hub.
        out: folder for the files; profiles of other clients in it stay.
        codebook: what clients share.
        clients: ids of some of them; by default all.
        split: one split; without it all rows of all clients.
        revision: branch, tag or commit on the Hub; a folder takes none.
        tokenizer: what a token is; it must be the codebook's.
        judges: scorers of the codebook that are not shipped.
        cache: where features of the same rows may lie already.
        progress: called with the number of rows after every batch.

    Returns:
        What was written.

    Raises:
        ReportError: if no client has as many rows as the codebook asks for, or `out` cannot be written.
        ClientNotFoundError: if one of the ids is in no split.
        ConfigError: if tokenizer, encoder or scorers are not the codebook's.
        SchemaError: if this is no client repo, or it lacks the split.
        HubError: if there is neither a folder nor a Hub dataset of this name.
    """
    datasets, min_client_rows = open_splits(repo_or_dir, split, revision)
    if clients is not None:
        wanted = set(clients)
        missing = sorted(wanted.difference(*datasets))
        if missing:
            raise client_not_found(missing[0], chain.from_iterable(datasets), datasets[0].name)
        datasets = [dataset.select(wanted.intersection(dataset)) for dataset in datasets]
    end_of_checks()
    found = profile_datasets(
        datasets,
        codebook,
        tokenizer=tokenizer,
        judges=find_judges(codebook, judges),
        cache=cache,
        min_client_rows=min_client_rows,
        progress=progress,
    )
    if not found.profiles:
        raise ReportError(
            f"no profile to write: the clients of {datasets[0].name} have fewer than {codebook.min_rows} rows in all, "
            "which is the codebook's min_rows"
        )
    write_profiles(found, out)
    return found


def write_profiles(profiles: ProfileSet, folder: Path) -> None:
    """Write one file a client; a file of the same client is replaced.

    Args:
        profiles: what to write.
        folder: made where it is missing.

    Raises:
        ReportError: if the folder cannot be written, or holds a profile of other small clients: nobody could tell
            whether rows are counted twice.

    >>> from tempfile import TemporaryDirectory
    >>> some = ProfileSet((ClientProfile("../a", "book", 1, {"language": {"en": 1}}),), "sft", ("train",))
    >>> with TemporaryDirectory() as place:
    ...     write_profiles(some, Path(place))
    ...     read_profiles(Path(place)) == some
    True
    """
    facts = {
        "format": _FORMAT,
        "task": profiles.task,
        "splits": list(profiles.splits),
        "min_client_rows": profiles.min_client_rows,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        merged = {path.name for path in folder.glob("profile-merged-*.json")}
        for profile in profiles.profiles:
            others = merged - {_file_name(profile)}
            if profile.client_id == MERGED_CLIENTS and others:
                raise ReportError(
                    f"{folder} holds a profile of other small clients, {min(others)}: remove it if it is of these "
                    "rows, or name another folder"
                )
            content = _one_line_each(facts | profile.to_json())
            write_file(folder / _file_name(profile), content, sync=False)
        sync_folder(folder)
    except OSError as error:
        raise ReportError(f"profiles cannot be written to {folder}: {error.strerror}; name another folder") from error


def read_profiles(folder: Path) -> ProfileSet:
    """Read all profiles of a folder; several profiles of small clients, from several places, are merged.

    Raises:
        ReportError: if there is no profile, one is broken or of another version, two are of one client, or they were
            made with different codebooks or from rows of different formats.

    >>> read_profiles(Path("no/such/folder"))
    Traceback (most recent call last):
    ...
    fedllm_data.errors.ReportError: no profile-*.json in no/such/folder: `fedllm-data profile` writes them
    """
    found: list[ClientProfile] = []
    tasks: set[Task] = set()
    splits: set[str] = set()
    least_rows: set[int] = set()
    for path in sorted(folder.glob("profile-*.json")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format"] != _FORMAT:
                raise ValueError(f"its format is {str(document['format'])[:40]!r}")
            profile = ClientProfile.from_json(document)
            tasks.add(document["task"])
            splits.update(document["splits"])
            least_rows.add(int(document["min_client_rows"]))
        except ReportError as error:
            raise ReportError(f"{path}: {error}") from error
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise ReportError(f"{path} is no profile ({error}): profile the rows again") from error
        found.append(profile)
    if not found:
        raise ReportError(f"no profile-*.json in {folder}: `fedllm-data profile` writes them")
    if len(tasks) > 1:
        raise ReportError(f"{folder} mixes profiles of {' and '.join(sorted(tasks))} rows: report on them apart")
    small = [profile for profile in found if profile.client_id == MERGED_CLIENTS]
    merged = [merge_profiles(small, client_id=MERGED_CLIENTS)] if small else []
    large = sorted((one for one in found if one.client_id != MERGED_CLIENTS), key=lambda one: one.client_id)
    for one, two in pairwise(large):
        if one.client_id == two.client_id:
            raise ReportError(f"{folder} holds two profiles of client {one.client_id[:100]!r}: keep one")
    books = {profile.codebook for profile in found}
    if len(books) > 1:
        raise ReportError(f"{folder} holds profiles of the codebooks {' and '.join(sorted(books))}: use one for all")
    return ProfileSet((*merged, *large), tasks.pop(), in_order(splits), min(least_rows))


def _file_name(profile: ClientProfile) -> str:
    """A name that shows no client id and is safe on any system; that of merged clients depends on their counts."""
    is_merged = profile.client_id == MERGED_CLIENTS
    named = json.dumps(profile.to_json()) if is_merged else profile.client_id
    return f"profile-{'merged-' if is_merged else ''}{blake2b(named.encode(), digest_size=12).hexdigest()}.json"


def _one_line_each(document: dict[str, Any]) -> str:
    parts = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in document.items())
    return "{\n" + ",\n".join(parts) + "\n}\n"
