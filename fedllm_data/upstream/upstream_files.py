"""Where a source's raw files lie, a local copy or the Hub, and how their records are read, one at a time.

Both ways give the same records: the files of a Hub dataset are opened at one commit and streamed through the readers
of `upstream/records.py`, without the schema inference of `datasets`, which stumbles over columns whose type changes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO, cast

from fedllm_data.errors import SourceError
from fedllm_data.source import Rejected
from fedllm_data.upstream.records import Record, data_files, read_records, read_stream

__all__ = ["COMMIT", "HUB_OPTIONS", "HubFiles", "read_local", "read_upstream"]

HUB_OPTIONS = {
    "hub_id": "another dataset on the Hub with the same columns",
    "revision": "branch, tag or commit on the Hub",
}
"""Options of every source that reads the Hub."""
COMMIT = re.compile(r"[0-9a-f]{40}")
"""A full commit, as opposed to a branch or a tag, which may move."""


@dataclass(frozen=True, kw_only=True)
class HubFiles:
    """Which files of a Hub dataset hold the corpus."""

    hub_id: str
    revision: str
    """The pinned commit; "main" where no commit could be verified: the build then records the one it read."""
    files: tuple[str, ...]
    """Paths in the repo, as `fnmatch` patterns: ("data/train-*.parquet",). Other files are not read."""


def read_upstream(upstream: HubFiles, path: Path | None, options: Mapping[str, str]) -> Iterator[Record | Rejected]:
    """Yield the records of a corpus, from a local copy or from the Hub.

    Args:
        upstream: the dataset on the Hub, and which of its files count.
        path: a local copy: one file, or a folder; in a folder the files that match `upstream.files`, by path or name,
            count, and all readable files where none matches.
        options: `hub_id` and `revision` read another dataset or commit.

    Raises:
        SourceError: if a file cannot be read, or no file matches.
        HubError: if the Hub cannot be reached or refuses.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     _ = Path(place, "train.jsonl").write_text('{"a": 1}')
    ...     files = HubFiles(hub_id="org/corpus", revision="main", files=("train*",))
    ...     [record.fields for record in read_upstream(files, Path(place), {})]
    [{'a': 1}]
    """
    if path is not None:
        yield from read_local(path, upstream.files)
        return
    from huggingface_hub import HfApi, HfFileSystem

    from fedllm_data.hub.hub_errors import hub_errors

    hub_id, revision = options.get("hub_id", upstream.hub_id), options.get("revision", upstream.revision)
    with hub_errors(hub_id, "read", revision):
        commit = revision
        if not COMMIT.fullmatch(revision):
            commit = str(HfApi().repo_info(hub_id, revision=revision, repo_type="dataset").sha)
        names = HfApi().list_repo_files(hub_id, repo_type="dataset", revision=commit)
        found = [name for name in sorted(names) if any(fnmatch(name, pattern) for pattern in upstream.files)]
        if not found:
            raise SourceError(
                f"{hub_id} at {commit[:7]} has no file {' or '.join(upstream.files)}; "
                "name a revision that has one with --set revision=COMMIT"
            )
        for name in found:
            with HfFileSystem().open(f"datasets/{hub_id}@{commit}/{name}", "rb") as file:
                yield from read_stream(cast(BinaryIO, file), f"{hub_id}/{name}")


def read_local(path: Path | None, patterns: tuple[str, ...] = (), where: str = "") -> Iterator[Record | Rejected]:
    """Yield the records of a local copy; the only way to read a corpus that lies on no Hub.

    Args:
        path: a file or a folder.
        patterns: which files of a folder count, by path or name; all readable files where none matches.
        where: where to get the files, for the error if there is no path.

    Raises:
        SourceError: if there is no path, or nothing readable under it.

    >>> list(read_local(None, where="https://example.org/dump.7z"))
    Traceback (most recent call last):
    fedllm_data.errors.SourceError: this corpus is read from files: get https://example.org/dump.7z and name ...
    """
    if path is None:
        raise SourceError(f"this corpus is read from files: get {where} and name the file or folder with --source")
    files = data_files(path)
    if path.is_dir():
        names = {file: file.relative_to(path).as_posix() for file in files}
        matching = [f for f in files if any(fnmatch(names[f], p) or fnmatch(f.name, p) for p in patterns)]
        files = matching or files
    for file in files:
        yield from read_records(file)
