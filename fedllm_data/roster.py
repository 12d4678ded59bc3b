"""A roster: what may be known of a split's clients without their rows.

Ids, counts, main languages and whatever columns the clients table has (ranks, for one): all that a server may need of
clients it cannot see, and all from which a run is planned. The table is read when it is first asked for. Imports no
`datasets`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from fedllm_data.schema import Task, task_of_columns

if TYPE_CHECKING:
    from fedllm_data.clients import ClientDataset
    from fedllm_data.repo import ClientRepo

__all__ = ["Roster", "roster_of", "roster_of_repo"]

_UNKNOWN = "und"


@dataclass(frozen=True, kw_only=True)
class Roster:
    """The clients of one split, without their rows."""

    name: str
    """The dataset's: a folder or Hub id."""
    split: str
    task: Task
    revision: str | None
    """The commit on the Hub or the digest of a folder; None for clients made in memory."""
    sizes: Mapping[str, int]
    """Rows of each client, by id, sorted."""
    load_table: Callable[[], pa.Table] = field(repr=False)
    """Behind `table`."""

    def __iter__(self) -> Iterator[str]:
        """Iterate over the client ids in sorted order."""
        return iter(self.sizes)

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self.sizes)

    @cached_property
    def table(self) -> pa.Table:
        """The clients table: one row per client, sorted."""
        return self.load_table()

    @cached_property
    def languages(self) -> dict[str, str]:
        """The main language of each client by the clients table; `und` where it says none."""
        if "main_language" not in self.table.column_names:
            return dict.fromkeys(self.sizes, _UNKNOWN)
        columns = (self.table[name].to_pylist() for name in ("client_id", "main_language"))
        of_client = dict(zip(*columns, strict=True))
        return {client_id: of_client.get(client_id) or _UNKNOWN for client_id in self.sizes}


def roster_of(clients: "ClientDataset") -> Roster:
    """Return the roster of clients whose rows are here.

    >>> from datasets import Dataset
    >>> from fedllm_data.clients import ClientDataset
    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    >>> rows = [{"client_id": "ann", "language": "en", "messages": turns}]
    >>> roster = roster_of(ClientDataset.from_dataset(Dataset.from_list(rows)))
    >>> roster.sizes, roster.languages
    ({'ann': 1}, {'ann': 'en'})
    """
    return Roster(
        name=clients.name,
        split=clients.split,
        task=clients.task,
        revision=clients.revision,
        sizes=clients.sizes,
        load_table=lambda: clients.table,
    )


def roster_of_repo(repo: "ClientRepo", split: str = "train") -> Roster:
    """Return the roster of a split of a client repo, of whose rows the client ids alone are read.

    Args:
        repo: from `open_repo`.
        split: train, test or unseen.

    Raises:
        SchemaError: if there is no such split.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    ids, columns = [], set[str]()
    for path in repo.split_files(split):
        with repo.open(path) as file:
            parquet = pq.ParquetFile(file)
            columns |= set(parquet.schema_arrow.names)
            ids += parquet.read(columns=["client_id"])["client_id"].chunks
    counts = pc.value_counts(pa.chunked_array(ids, pa.string()))
    sizes = dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True))
    return Roster(
        name=repo.name,
        split=split,
        task=task_of_columns(sorted(columns), repo.name),
        revision=repo.revision,
        sizes=dict(sorted(sizes.items())),
        load_table=lambda: _of_clients(repo.client_table(), sizes),
    )


def _of_clients(table: pa.Table, sizes: Mapping[str, int]) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.is_in(table["client_id"], value_set=pa.array(list(sizes), pa.string())))
