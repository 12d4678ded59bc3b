"""A roster: what may be known of a split's clients without their rows.

Ids, counts, main languages and whatever columns the clients table has (ranks, for one): all that a server may need of
clients it cannot see, and all from which a run is planned. The table is read when it is first asked for. What is kept
of each client lies on disk (`client_index.py`), so that memory does not grow with them. Imports no `datasets`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from fedllm_data.client_index import BLOCK, ClientIds, sorted_ids
from fedllm_data.clients_table import LabelOfClient, labels_of, table_of_clients
from fedllm_data.disk_block import Block
from fedllm_data.row_counts import RowCounts, count_rows, row_counts
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
    def ids(self) -> ClientIds:
        """The client ids, sorted."""
        return self.sizes.ids if isinstance(self.sizes, RowCounts) else sorted_ids(self.sizes)

    @cached_property
    def languages(self) -> Mapping[str, str]:
        """The main language of each client by the clients table; `und` where it says none."""
        if "main_language" not in self.table.column_names:
            return LabelOfClient(self.ids, [_UNKNOWN], Block.of_zeros(4 * len(self)))
        return labels_of(self.table, "main_language", self.ids, _UNKNOWN)


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
    import pyarrow.parquet as pq

    columns = set[str]()
    for path in repo.split_files(split):
        with repo.open(path) as file:
            columns |= set(pq.ParquetFile(file).schema_arrow.names)
    try:
        sizes = count_rows(_id_chunks(repo, split))
    except ValueError:  # rows that do not lie sorted: they cannot be trained on, but a roster needs none
        sizes = _counted(_id_chunks(repo, split))
    return Roster(
        name=repo.name,
        split=split,
        task=task_of_columns(sorted(columns), repo.name),
        revision=repo.revision,
        sizes=sizes,
        load_table=lambda: table_of_clients(repo, sizes.ids),
    )


def _id_chunks(repo: "ClientRepo", split: str) -> Iterator[pa.Array]:
    """The client ids of a split's rows, a batch at a time."""
    import pyarrow.parquet as pq

    for path in repo.split_files(split):
        with repo.open(path) as file:
            for batch in pq.ParquetFile(file).iter_batches(BLOCK, columns=["client_id"], use_threads=False):
                yield batch["client_id"]


def _counted(chunks: Iterator[pa.Array]) -> RowCounts:
    """The rows of each client, in whatever order they lie; memory grows with the clients."""
    counts = Counter[str]()
    for chunk in chunks:
        counts.update(chunk.to_pylist())
    ids = sorted_ids(counts)
    return row_counts(ids, [counts[client_id] for client_id in ids])
