"""Read a client repo, from a folder or the Hub: all clients of a split, or one client by range requests.

`load_clients` gives all clients of a split, memory-mapped, or with `streaming=True` one at a time (`streamed.py`);
`load_client` reads a single one. `ClientDataset` maps each client id to a zero-copy slice of one memory-mapped table.
Rows of a client repo lie sorted by client, so the slices are found in one pass over the `client_id` column; what is
found is kept on disk (`client_index.py`), so that memory does not grow with the clients.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fedllm_data.client_ids import client_not_found
from fedllm_data.client_index import ClientIds, sorted_ids
from fedllm_data.clients_table import client_batches, table_of_clients
from fedllm_data.errors import ClientNotFoundError, SchemaError
from fedllm_data.pipeline.client_table import client_table
from fedllm_data.repo import ClientRepo, open_repo
from fedllm_data.row_counts import RowCounts, count_rows, row_counts
from fedllm_data.schema import PUBLIC_CLIENT, SCHEMAS, UNDETERMINED, Task, make_row_id, task_of_columns
from fedllm_data.streamed import StreamedClients

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["ClientDataset", "load_client", "load_clients"]


class ClientDataset(Mapping[str, "Dataset"]):
    """The clients of one split: a read-only mapping from client id to the client's rows.

    Iteration runs in sorted order of the client ids. `clients[client_id]` copies nothing.

    >>> from datasets import Dataset
    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    >>> rows = Dataset.from_list([{"client_id": c, "messages": turns} for c in ("bob", "ann", "bob")])
    >>> clients = ClientDataset.from_dataset(rows)
    >>> clients.sizes
    {'ann': 1, 'bob': 2}
    >>> clients["bob"].num_rows, clients.task
    (2, 'sft')
    """

    def __init__(
        self,
        rows: "Dataset",
        *,
        task: Task,
        split: str,
        name: str,
        repo: ClientRepo | None = None,
        _sizes: RowCounts | None = None,
    ) -> None:
        """Wrap rows that lie sorted by client; use `load_clients` or `from_dataset` instead of calling this."""
        self.rows = rows
        self.task: Task = task
        self.split = split
        self.name = name
        self._repo = repo
        self._sizes = _sizes if _sizes is not None else _find_clients(rows, name)

    @classmethod
    def from_dataset(cls, rows: "Dataset", *, name: str = "memory", split: str = "train") -> "ClientDataset":
        """Make clients of rows held in memory, sorting them by client where they are not sorted yet.

        Args:
            rows: at least `client_id` and the columns of one row format; `row_id` and `language` are filled in where
                they are missing; other columns are dropped.
            name: what results call this dataset.
            split: the split the rows stand for.

        Raises:
            SchemaError: if there are no rows, or the columns are those of neither row format.
        """
        from datasets import Dataset

        task = task_of_columns(rows.column_names, name)
        if rows.num_rows == 0:
            raise SchemaError(f"{name} holds no rows; give at least one row")
        table = _complete(rows.with_format("arrow")[:], task, name)
        if not _is_sorted(table["client_id"].chunks):
            table = table.take(pc.sort_indices(table["client_id"].combine_chunks()))  # stable: rows keep their order
        return cls(Dataset(table), task=task, split=split, name=name)

    def __getitem__(self, client_id: str) -> "Dataset":
        """Return the rows of a client.

        Raises:
            ClientNotFoundError: if no client of the split has this id; the message offers similar ids.
        """
        position = self._sizes.ids.find(client_id)
        if position is None:
            raise self._not_found(client_id)
        return self.rows.select(range(*self._sizes.span(position)))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the client ids in sorted order."""
        return iter(self._sizes)

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self._sizes)

    def __contains__(self, client_id: object) -> bool:
        """Return whether a client has this id, without slicing its rows."""
        return client_id in self._sizes

    def __repr__(self) -> str:
        """Return name, split and counts."""
        return (
            f"ClientDataset({self.name!r}, {self.split!r}, {len(self)} clients, {self.rows.num_rows} {self.task} rows)"
        )

    @property
    def sizes(self) -> RowCounts:
        """The number of rows of each client: a read-only mapping, equal to a dict of the same content."""
        return self._sizes

    @property
    def ids(self) -> ClientIds:
        """The client ids, sorted."""
        return self._sizes.ids

    @cached_property
    def revision(self) -> str | None:
        """The commit on the Hub, the digest of a folder's Parquet files, or None for rows held in memory."""
        return self._repo.revision if self._repo else None

    @cached_property
    def licence(self) -> str | None:
        """What the repo's card names; None for rows held in memory, and where no card names one."""
        from fedllm_data.card_facts import licence_of

        return licence_of(self._repo) if self._repo else None

    @cached_property
    def id_facts(self) -> dict[str, Any] | None:
        """How the client ids were made, as `id_facts.id_facts_of` gives it; None for rows held in memory."""
        from fedllm_data.id_facts import id_facts_of

        return id_facts_of(self._repo) if self._repo else None

    @cached_property
    def table(self) -> pa.Table:
        """The `clients` config, restricted to the clients of this split: one row per client, sorted."""
        if self._repo is not None and self.split != PUBLIC_CLIENT:
            return table_of_clients(self._repo, self.ids)
        return client_table(self.rows.with_format("arrow")[:], self.task, self.split)

    def select(self, client_ids: Iterable[str]) -> "ClientDataset":
        """Return the dataset restricted to some clients, still without a copy of any row's text.

        Args:
            client_ids: ids of the split, in any order.

        Raises:
            ClientNotFoundError: if one of them is not a client of the split.
        """
        wanted = sorted_ids(client_ids)
        places = [self.ids.find(client_id) for client_id in wanted]
        if None in places:
            raise self._not_found(wanted[places.index(None)])
        spans = np.array([self._sizes.span(place) for place in places if place is not None], dtype=np.int64)
        spans = spans.reshape(-1, 2)
        counts = spans[:, 1] - spans[:, 0]
        sizes = row_counts(wanted, counts)
        # Each position is that in the selection, moved by how far its client's rows lie from there.
        positions = np.arange(sizes.num_rows) + np.repeat(spans[:, 1] - np.cumsum(counts), counts)
        rows = self.rows.select(positions)
        return ClientDataset(rows, task=self.task, split=self.split, name=self.name, repo=self._repo, _sizes=sizes)

    def with_rows(self, table: pa.Table) -> "ClientDataset":
        """Return the same clients with as many other rows each, such as those that simulated attackers train on.

        Args:
            table: rows in the order of `rows`, with the same columns.

        Raises:
            SchemaError: if it has other columns, or another number of rows.
        """
        from datasets import Dataset

        if table.column_names != self.rows.column_names or table.num_rows != self.rows.num_rows:
            raise SchemaError(
                f"{self.name}: {table.num_rows} rows of {', '.join(table.column_names)} cannot stand for "
                f"{self.rows.num_rows} of {', '.join(self.rows.column_names)}; keep rows and columns"
            )
        rows = Dataset(table)
        return ClientDataset(
            rows, task=self.task, split=self.split, name=self.name, repo=self._repo, _sizes=self._sizes
        )

    def _not_found(self, client_id: object) -> ClientNotFoundError:
        return client_not_found(client_id, self.ids, f"{self.name}, split {self.split}")


@overload
def load_clients(
    repo_or_dir: str | Path, split: str = "train", revision: str | None = None, *, streaming: Literal[False] = False
) -> ClientDataset: ...


@overload
def load_clients(
    repo_or_dir: str | Path, split: str = "train", revision: str | None = None, *, streaming: Literal[True]
) -> StreamedClients: ...


def load_clients(
    repo_or_dir: str | Path, split: str = "train", revision: str | None = None, *, streaming: bool = False
) -> ClientDataset | StreamedClients:
    """Load the clients of one split; rows stay on disk, memory-mapped, or where they are.

    Args:
        repo_or_dir: a client repo: a folder, or `org/name` on the Hub.
        split: train, test, unseen or public.
        revision: branch, tag or commit on the Hub; a folder takes none.
        streaming: download no data file; read a client, by range requests, when it is asked for.

    Returns:
        A read-only mapping from client id to the client's rows.

    Raises:
        SchemaError: if this is no client repo, or has no such split.
        HubError: if there is neither a folder nor a Hub dataset of this name.

    >>> load_clients("no/such/folder")
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no folder no/such/folder here, and it cannot be a Hub id, which is org/name; check ...
    """
    repo = open_repo(repo_or_dir, revision)
    if streaming:
        return StreamedClients(repo, split)
    rows = repo.load(split)
    task = task_of_columns(rows.column_names, repo.name)
    rows = rows.select_columns([column for column in SCHEMAS[task].names if column in rows.column_names])
    return ClientDataset(rows, task=task, split=split, name=repo.name, repo=repo)


def load_client(
    repo_or_dir: str | Path, client_id: str, split: str = "train", revision: str | None = None
) -> "Dataset":
    """Load one client's rows and read little else: the files' footers and the row groups that hold the client.

    Args:
        repo_or_dir: a client repo: a folder, or `org/name` on the Hub.
        client_id: the client.
        split: train, test, unseen or public.
        revision: branch, tag or commit on the Hub; a folder takes none.

    Raises:
        SchemaError: if this is no client repo, or has no such split.
        ClientNotFoundError: if the split has no such client.
        HubError: if there is neither a folder nor a Hub dataset of this name.

    >>> load_client("no/such/folder", "ann")
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no folder no/such/folder here, and it cannot be a Hub id, which is org/name; check ...
    """
    from datasets import Dataset

    repo = open_repo(repo_or_dir, revision)
    table = repo.read_client(client_id, split)
    if table is None:
        known = (each.as_py() for batch in client_batches(repo, ["client_id"]) for each in batch["client_id"])
        raise client_not_found(client_id, known, f"{repo.name}, split {split}")
    return Dataset(table.replace_schema_metadata(None))


def _find_clients(rows: "Dataset", name: str) -> RowCounts:
    """Return every client's rows; what is found lies beside the rows, where those lie on disk."""

    def is_unsorted(row: int) -> SchemaError:
        return SchemaError(
            f"{name}: rows are not sorted by client_id at row {row}; `fedllm-data check` lists what is wrong, rebuild "
            "the folder or use ClientDataset.from_dataset"
        )

    files = [file["filename"] for file in rows.cache_files]
    folder = Path(files[0]).parent if files else None
    return count_rows(rows.data.column("client_id").chunks, is_unsorted=is_unsorted, folder=folder)


def _is_sorted(chunks: Iterable[pa.Array]) -> bool:
    """Whether a column is in order; looked at chunk by chunk."""
    last = None
    for chunk in chunks:
        if not len(chunk):
            continue
        if last is not None and pc.greater(last, chunk[0]).as_py():
            return False
        if pc.any(pc.greater(chunk[:-1], chunk[1:])).as_py():
            return False
        last = chunk[-1]
    return True


def _complete(table: pa.Table, task: Task, name: str) -> pa.Table:
    """Fill in `row_id` and `language`, and bring the columns into the order of the schema."""
    columns: dict[str, Any] = {column: table[column] for column in table.column_names}
    if "row_id" not in columns:
        texts = table.to_pylist()
        ids = [make_row_id(name, str(index), repr(row)) for index, row in enumerate(texts)]
        columns["row_id"] = pa.array(ids, pa.string())
    if "language" not in columns:
        columns["language"] = pa.array([UNDETERMINED] * table.num_rows, pa.string())
    schema = SCHEMAS[task]
    columns = {field.name: columns[field.name] for field in schema if field.name in columns}
    return cast(pa.Table, pa.table(columns))
