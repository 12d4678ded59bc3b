"""Where a client repo lies, a folder or the Hub, and how its files are read from there.

Layout: `data/<split>-00000-of-0000N.parquet`, sorted by client in small row groups, and
`clients/clients-00000-of-00001.parquet`. A repo on the Hub is pinned to one commit when it is opened, so that every
later read of the same `ClientRepo` sees the same files.
"""

import hashlib
import os
import re
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

import pyarrow as pa

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import HubError, SchemaError
from fedllm_data.schema import SPLITS

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "CLIENTS_FILE",
    "ClientRepo",
    "FolderRepo",
    "Footer",
    "HubRepo",
    "RowGroup",
    "client_bounds",
    "open_repo",
    "split_of_file",
]

CLIENTS_FILE = "clients/clients-00000-of-00001.parquet"
_DATA_FILE = re.compile(r"data/([a-z]+)-\d{5}-of-\d{5}\.parquet")
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


@dataclass(frozen=True)
class RowGroup:
    """The part of a data file that is read at once: which clients it holds."""

    path: str
    index: int
    first: str
    last: str
    num_rows: int


@dataclass(frozen=True)
class Footer:
    """What the end of a data file tells of the whole."""

    metadata: Any
    columns: tuple[str, ...]
    groups: tuple[RowGroup, ...]


class ClientRepo(Protocol):
    """What can be read from a client repo, wherever it lies."""

    @property
    def name(self) -> str:
        """The folder as given, or the Hub id."""

    @property
    def revision(self) -> str | None:
        """What identifies the content."""

    def files(self) -> list[str]:
        """Paths of the Parquet files inside the repo, sorted."""

    def open(self, path: str) -> BinaryIO:
        """Open one file for random access."""

    def load(self, split: str) -> "Dataset":
        """Load a split, memory-mapped."""

    def open_clients(self) -> AbstractContextManager[Any]:
        """Open the `clients` config, a `pyarrow.parquet.ParquetFile`."""

    def client_table(self) -> pa.Table:
        """Read the `clients` config."""

    def split_files(self, split: str) -> list[str]:
        """Paths of a split's files."""

    def footer(self, path: str) -> Footer:
        """Read the footer of a data file, once."""

    def find_groups(self, client_id: str, split: str) -> list[RowGroup]:
        """Return the row groups that may hold rows of a client, in file order."""

    def read_groups(self, groups: Sequence[RowGroup]) -> list[pa.Table]:
        """Read row groups."""

    def read_client(self, client_id: str, split: str) -> pa.Table | None:
        """Read one client's rows, or return None if the split has no such client."""


class _Repo(ABC):
    """What both kinds of repo share: it needs `name`, `files` and `open` alone."""

    name: str

    @abstractmethod
    def files(self) -> list[str]:
        """List the paths of the repo's files."""

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """Open one file for random access."""

    def split_files(self, split: str) -> list[str]:
        """Paths of a split's files.

        Raises:
            SchemaError: if there are none.
        """
        found = [path for path in self.files() if split_of_file(path) == split]
        if not found:
            splits = sorted({name for path in self.files() if (name := split_of_file(path))}, key=SPLITS.index)
            if not splits:
                raise SchemaError(
                    f"{self.name} is no client repo: it has no data/<split>-00000-of-0000N.parquet; "
                    "make one with `fedllm-data build` or `fedllm-data import`"
                )
            hint = did_you_mean(split, splits)
            raise SchemaError(f"{self.name} has no split {split!r}; {hint}choose one of {', '.join(splits)}")
        return found

    @contextmanager
    def open_clients(self) -> Iterator[Any]:
        """Open the `clients` config, a `pyarrow.parquet.ParquetFile`."""
        import pyarrow.parquet as pq

        if CLIENTS_FILE not in self.files():
            raise SchemaError(f"{self.name} has no {CLIENTS_FILE}; build or publish the repo again")
        with self._errors(), self.open(CLIENTS_FILE) as file:
            yield pq.ParquetFile(file)

    def client_table(self) -> pa.Table:
        """Read the `clients` config."""
        with self.open_clients() as parquet:
            return parquet.read()

    def footer(self, path: str) -> Footer:
        """Read the footer of a data file, once: a repo does not change while it is open."""
        import pyarrow.parquet as pq

        if path not in self._footers:
            with self._errors(), self.open(path) as file:
                parquet = pq.ParquetFile(file)
                metadata, columns = parquet.metadata, tuple(parquet.schema_arrow.names)
            groups = tuple(
                RowGroup(path, index, first, last, metadata.row_group(index).num_rows)
                for index, (first, last) in enumerate(client_bounds(metadata))
            )
            self._footers[path] = Footer(metadata, columns, groups)
        return self._footers[path]

    def find_groups(self, client_id: str, split: str) -> list[RowGroup]:
        """Return the row groups whose statistics admit the client; it opens few of many files."""
        if split not in self._paths:
            self._paths[split] = self.split_files(split)
        paths = self._paths[split]
        # Files, and the groups of a file, lie in the order of their clients: halve them down to the first that fits.
        start = bisect_left(paths, client_id, key=self._last_client)
        found: list[RowGroup] = []
        for path in paths[start:]:
            groups = self.footer(path).groups
            first = bisect_left(groups, client_id, key=lambda group: group.last)
            found += takewhile(lambda group: group.first <= client_id, groups[first:])
            if groups and groups[-1].last > client_id:
                break
        return found

    def read_groups(self, groups: Sequence[RowGroup]) -> list[pa.Table]:
        """Read row groups, all of one file with one opening of it, in the order given."""
        import pyarrow.parquet as pq

        tables: dict[RowGroup, pa.Table] = {}
        for path in dict.fromkeys(group.path for group in groups):
            wanted = [group for group in groups if group.path == path]
            with self._errors(), self.open(path) as file:
                # pre_buffer joins the column chunks of the row groups into few reads: one request each on the Hub.
                parquet = pq.ParquetFile(file, pre_buffer=True, metadata=self.footer(path).metadata)
                table = parquet.read_row_groups([group.index for group in wanted], use_threads=False)
            position = 0
            for group in wanted:
                tables[group] = table.slice(position, group.num_rows)
                position += group.num_rows
        return [tables[group] for group in groups]

    def read_client(self, client_id: str, split: str) -> pa.Table | None:
        """Read the row groups whose statistics admit the client, in file order."""
        import pyarrow.compute as pc

        tables = self.read_groups(self.find_groups(client_id, split))
        rows = [table.filter(pc.equal(table["client_id"], client_id)) for table in tables]
        found = pa.concat_tables(rows) if rows else None
        return found if found is not None and found.num_rows else None

    @cached_property
    def _footers(self) -> dict[str, Footer]:
        return {}

    @cached_property
    def _paths(self) -> dict[str, list[str]]:
        return {}

    def _last_client(self, path: str) -> str:
        groups = self.footer(path).groups
        return groups[-1].last if groups else ""

    def _errors(self) -> AbstractContextManager[None]:
        """Turn what reading raises into errors of this project; a folder raises what Python raises."""
        return nullcontext()


@dataclass(frozen=True)
class FolderRepo(_Repo):
    """A client repo in a folder."""

    name: str
    folder: Path

    @cached_property
    def revision(self) -> str:
        """SHA-256 over the names and bytes of all Parquet files: equal folders have equal revisions."""
        digest = hashlib.sha256()
        for path in self.files():
            with self.open(path) as file:
                digest.update(f"{path}\0{hashlib.file_digest(cast(Any, file), 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()

    def files(self) -> list[str]:
        """Paths of the Parquet files inside the folder, sorted."""
        found = [*self.folder.glob("data/*.parquet"), *self.folder.glob("clients/*.parquet")]
        return sorted(path.relative_to(self.folder).as_posix() for path in found)

    def open(self, path: str) -> BinaryIO:
        """Open one file."""
        return (self.folder / path).open("rb")

    def load(self, split: str) -> "Dataset":
        """Load a split, memory-mapped, from the files alone: the README need not be intact.

        Raises:
            SchemaError: if there is no such split, or a file of it is damaged.
        """
        paths = [os.fspath(self.folder / path) for path in self.split_files(split)]  # a missing split is said at once

        import pyarrow.parquet as pq
        from datasets import load_dataset
        from datasets.exceptions import DatasetGenerationError

        try:
            for path in paths:
                pq.read_metadata(path)  # a footer that is damaged; `datasets` would log it first
            return load_dataset("parquet", data_files={split: paths}, split=split)
        except (pa.ArrowInvalid, DatasetGenerationError) as error:
            raise SchemaError(
                f"a file of the split {split!r} of {self.name} is damaged ({' '.join(str(error).split())[:100]}); "
                f"`fedllm-data check {self.name}` names it; build it again"
            ) from error


@dataclass(frozen=True)
class HubRepo(_Repo):
    """A client repo on the Hub, at one commit."""

    name: str
    revision: str

    @cached_property
    def _filesystem(self) -> Any:
        from huggingface_hub import HfFileSystem

        return HfFileSystem()

    @cached_property
    def _files(self) -> list[str]:
        from huggingface_hub import HfApi

        with self._errors():
            names = HfApi().list_repo_files(self.name, repo_type="dataset", revision=self.revision)
        return sorted(name for name in names if name.endswith(".parquet"))

    def files(self) -> list[str]:
        """Paths of the Parquet files in the commit, sorted."""
        return self._files

    def open(self, path: str) -> BinaryIO:
        """Open one file for reads by range request, without read-ahead: pyarrow knows what it needs."""
        address = f"datasets/{self.name}@{self.revision}/{path}"
        return cast(BinaryIO, self._filesystem.open(address, "rb", cache_type="none"))

    def load(self, split: str) -> "Dataset":
        """Load a split through the Hub cache, memory-mapped; of the other splits nothing is fetched.

        Not by `load_dataset` of the id: where the Hub refuses, datasets 5.2 looks for the name in its cache, and may
        answer with another revision.
        """
        from datasets import load_dataset
        from huggingface_hub import hf_hub_download

        with self._errors():
            paths = [
                hf_hub_download(self.name, path, repo_type="dataset", revision=self.revision)
                for path in self.split_files(split)
            ]
        return load_dataset("parquet", data_files={split: paths}, split=split)

    def _errors(self) -> AbstractContextManager[None]:
        from fedllm_data.hub.hub_errors import hub_errors

        return hub_errors(self.name, "read", self.revision)


def open_repo(repo_or_dir: str | Path, revision: str | None = None) -> ClientRepo:
    """Return the client repo of this name: the folder if there is one, else the Hub dataset.

    Args:
        repo_or_dir: a folder, or `org/name` on the Hub.
        revision: branch, tag or commit on the Hub; a folder takes none.

    Raises:
        SchemaError: if a revision is asked of a folder, or the path is a file.
        HubError: if there is neither a folder nor a Hub dataset of this name.

    >>> open_repo("no/such/folder")
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no folder no/such/folder here, and it cannot be a Hub id, which is org/name; check ...
    """
    name, folder = os.fspath(repo_or_dir), Path(repo_or_dir)
    if folder.is_dir():
        if revision is not None:
            raise SchemaError(f"{name} is a folder and has no revision {revision!r}; leave the revision out")
        return FolderRepo(name, folder)
    if folder.exists():
        raise SchemaError(f"{name} is a file; a client repo is a folder, `fedllm-data import` makes one of a file")
    if isinstance(repo_or_dir, Path) or not _HUB_ID.fullmatch(name):
        raise HubError(f"no folder {name} here, and it cannot be a Hub id, which is org/name; check the spelling")
    return HubRepo(name, _commit(name, revision))


def split_of_file(path: str) -> str | None:
    """Return the split that a file of a repo belongs to, or None.

    >>> split_of_file("data/train-00000-of-00002.parquet"), split_of_file("README.md")
    ('train', None)
    """
    match = _DATA_FILE.fullmatch(path)
    return match[1] if match and match[1] in SPLITS else None


def client_bounds(metadata: Any) -> list[tuple[str, str]]:
    """Return the first and last client id of every row group, from the file's footer.

    Args:
        metadata: a `pyarrow.parquet.FileMetaData` of a data file.

    Raises:
        SchemaError: if the footer holds no statistics of `client_id`.
    """
    columns = [metadata.schema.column(index).path for index in range(metadata.num_columns)]
    if "client_id" not in columns:
        raise SchemaError("a data file has no column client_id; build or publish the repo again")
    position = columns.index("client_id")
    bounds = []
    for index in range(metadata.num_row_groups):
        statistics = metadata.row_group(index).column(position).statistics
        if statistics is None or not statistics.has_min_max:
            raise SchemaError("a data file has no statistics of client_id; build or publish the repo again")
        bounds.append((statistics.min, statistics.max))
    return bounds


def _commit(name: str, revision: str | None) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    from fedllm_data.hub.hub_errors import hub_errors

    with hub_errors(name, "read", revision):
        try:
            return cast(str, HfApi().dataset_info(name, revision=revision).sha)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError as error:
            raise HubError(
                f"no folder {name} here and no dataset {name} on the Hub; check the name, or log in if it is private"
            ) from error
