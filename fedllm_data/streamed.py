"""The clients of one split, read one at a time: from the Hub by range requests, from a folder by seeking.

Which clients there are and how many rows they hold stands in the `clients` config, where a client's rows lie in the
footers of the data files; both are read once. A client then costs the row groups that hold its rows, and clients taken
in order share the group in which one ends and the next begins: every group is read once. No data file is downloaded.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from fedllm_data.client_ids import client_not_found
from fedllm_data.client_index import sorted_ids
from fedllm_data.clients_table import counts_of_split, table_of_clients
from fedllm_data.errors import ClientNotFoundError, SchemaError
from fedllm_data.repo import ClientRepo, HubRepo, RowGroup
from fedllm_data.row_counts import RowCounts, row_counts
from fedllm_data.schema import PUBLIC_CLIENT, SCHEMAS, Task, task_of_columns

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["StreamedClients"]


@dataclass
class _Store:
    """What selections of one split share: the repo with its footers, and the last row group that was read."""

    repo: ClientRepo
    split: str
    key: str
    """Stands for the content of the split in the caches of `datasets`."""
    last: tuple[RowGroup, pa.Table] | None = None

    def read(self, client_id: str) -> pa.Table:
        """Read the rows of a client, in file order: none if the footers admit no such client."""
        wanted = self.repo.find_groups(client_id, self.split)
        if not wanted:
            return pa.table({})
        known = dict([self.last]) if self.last and self.last[0] in wanted else {}
        missing = [group for group in wanted if group not in known]
        known |= dict(zip(missing, self.repo.read_groups(missing), strict=True))
        self.last = wanted[-1], known[wanted[-1]]
        return pa.concat_tables(
            known[group].filter(pc.equal(known[group]["client_id"], client_id)) for group in wanted
        )


class StreamedClients(Mapping[str, "Dataset"]):
    """The clients of one split: a read-only mapping that reads a client when it is asked for.

    Has the interface of `ClientDataset` but `rows`, which would be all of them. Keeps one row group, about half a
    megabyte of text, and the footers in memory. Iterate with `.items()` to read every row group once.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from fedllm_data.build import build
    >>> from fedllm_data.repo import open_repo
    >>> from fedllm_data.sources import SOURCES
    >>> with TemporaryDirectory() as place:
    ...     options = {"num_clients": "12", "mean_rows": "6"}
    ...     repo = open_repo(build(SOURCES["fed-synth"], Path(place, "repo"), options=options).folder)
    ...     clients = StreamedClients(repo, "train")
    ...     all(rows.num_rows == clients.sizes[client_id] for client_id, rows in clients.items())
    True
    """

    def __init__(self, repo: ClientRepo, split: str) -> None:
        """Find out who the clients are; use `load_clients(..., streaming=True)` instead of calling this."""
        self.name = repo.name
        self.split = split
        self.task: Task = task_of_columns(repo.footer(repo.split_files(split)[0]).columns, repo.name)
        # A folder's digest would take all of its bytes; so what is computed from its rows is not found again later.
        content = f"{repo.name}@{repo.revision}" if isinstance(repo, HubRepo) else uuid4().hex
        self._store = _Store(repo, split, f"{content}/{split}")
        self._sizes = self._count_rows()

    def __getitem__(self, client_id: str) -> "Dataset":
        """Read the rows of a client.

        Raises:
            ClientNotFoundError: if no client of the split has this id; the message offers similar ids.
            SchemaError: if the data files hold other rows of the client than the `clients` config counts.
        """
        from datasets import Dataset

        if client_id not in self._sizes:
            raise self._not_found(client_id)
        table = self._store.read(client_id)
        if table.num_rows != self._sizes[client_id]:
            raise SchemaError(
                f"{self.name}, split {self.split}: client {client_id[:100]!r} has {table.num_rows} rows, but the "
                f"clients config counts {self._sizes[client_id]}; `fedllm-data check {self.name}` lists what is wrong"
            )
        table = table.select([name for name in SCHEMAS[self.task].names if name in table.column_names])
        # With a fingerprint of its own a Dataset need not pickle itself to get one, which takes longer than the read.
        fingerprint = blake2b(f"{self._store.key}\0{client_id}".encode(), digest_size=8).hexdigest()
        return Dataset(table.replace_schema_metadata(None), fingerprint=fingerprint)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the client ids in sorted order; reads nothing."""
        return iter(self._sizes)

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self._sizes)

    def __contains__(self, client_id: object) -> bool:
        """Return whether a client has this id; reads nothing."""
        return client_id in self._sizes

    def __repr__(self) -> str:
        """Return name, split and counts."""
        num_rows = sum(self._sizes.values())
        return f"StreamedClients({self.name!r}, {self.split!r}, {len(self)} clients, {num_rows} {self.task} rows)"

    @property
    def sizes(self) -> RowCounts:
        """The number of rows of each client, from the `clients` config: a read-only mapping, equal to such a dict."""
        return self._sizes

    @cached_property
    def revision(self) -> str | None:
        """The commit on the Hub, or the digest of a folder's Parquet files."""
        return self._store.repo.revision

    @property
    def table(self) -> pa.Table:
        """The `clients` config, restricted to these clients: one row per client, sorted.

        Raises:
            SchemaError: for the split `public`, which is no client's.
        """
        if self.split == PUBLIC_CLIENT:
            raise SchemaError(
                f"{self.name}: the rows of split public belong to no client, so there is no clients table"
            )
        return table_of_clients(self._store.repo, self._sizes.ids)

    def select(self, client_ids: Iterable[str]) -> "StreamedClients":
        """Return the mapping restricted to some clients; reads nothing.

        Args:
            client_ids: ids of the split, in any order.

        Raises:
            ClientNotFoundError: if one of them is not a client of the split.
        """
        wanted = sorted_ids(client_ids)
        if (missing := next((client_id for client_id in wanted if client_id not in self._sizes), None)) is not None:
            raise self._not_found(missing)
        part = StreamedClients.__new__(StreamedClients)
        part.__dict__ |= self.__dict__  # footers, clients table and the last row group are shared
        part._sizes = row_counts(wanted, [self._sizes[client_id] for client_id in wanted])
        return part

    def _count_rows(self) -> RowCounts:
        if self.split == PUBLIC_CLIENT:
            repo = self._store.repo
            footers = [repo.footer(path) for path in repo.split_files(self.split)]
            num_rows = sum(group.num_rows for footer in footers for group in footer.groups)
            return row_counts(sorted_ids([PUBLIC_CLIENT]), [num_rows])
        return counts_of_split(self._store.repo, f"num_{self.split}_rows")

    def _not_found(self, client_id: object) -> ClientNotFoundError:
        return client_not_found(client_id, self._sizes, f"{self.name}, split {self.split}")
