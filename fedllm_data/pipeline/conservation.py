"""Asserts at the end of a build that no row was lost: everything that was read is somewhere.

records read = items of the source          where the source makes one row of every record
items of the source = valid rows + rejected rows, and every rejected row is a line of `rejected.jsonl`
valid rows = kept rows + rows that a filter counts
kept rows = rows of the splits + rows that the split counts as dropped
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from fedllm_data.errors import SourceError
from fedllm_data.upstream.read_counts import ReadCounts

__all__ = ["Counted", "check_conservation"]

_REMOVED = (
    "num_toxic",
    "num_other_languages",
    "num_too_few_turns",
    "num_too_many_turns",
    "num_too_long",
    "num_same_text_pairs",
    "num_duplicates_in_client",
    "num_duplicates_across_clients",
    "num_near_duplicates_in_client",
    "num_near_duplicates_across_clients",
    "num_rows_of_small_clients",
    "num_rows_of_clients_over_max",
    "num_rows_over_max",
)
"""Counts of rows that a filter took out; the others count clients, or rows that stayed."""
_DROPPED = ("num_unseen_rows_dropped", "num_test_rows_dropped", "num_public_rows_dropped")

Item = TypeVar("Item")


@dataclass
class Counted(Generic[Item]):
    """An iterable that knows how much of it was taken."""

    items: Iterable[Item]
    num_items: int = 0

    def __iter__(self) -> Iterator[Item]:
        """Yield the items."""
        for item in self.items:
            self.num_items += 1
            yield item


def check_conservation(
    name: str,
    reads: ReadCounts,
    num_items: int,
    counts: Mapping[str, int],
    split_counts: Mapping[str, int],
    num_written: int,
    *,
    rejected_path: Path,
    is_row_per_record: bool,
) -> None:
    """Raise if a row is neither in a split, nor counted by a filter, nor rejected.

    Args:
        name: name of the corpus, for the error.
        reads: what the readers gave.
        num_items: what the source yielded.
        counts: `counts` of build.json.
        split_counts: `split_counts` of build.json.
        num_written: rows of all splits.
        rejected_path: the list of rejected rows.
        is_row_per_record: whether the source yields one item for every record.

    Raises:
        SourceError: if the counts do not add up, which is a fault of this library.

    >>> check_conservation("tiny", ReadCounts(), 3, {"num_valid": 2, "num_rejected": 0, "num_kept": 2}, {}, 2,
    ...     rejected_path=Path("/dev/null"), is_row_per_record=False)
    Traceback (most recent call last):
    fedllm_data.errors.SourceError: tiny: of 3 rows that were read, 2 are accounted for (valid or rejected); ...
    """
    with rejected_path.open("rb") as file:
        num_listed = sum(1 for _ in file)
    removed = sum(counts.get(count, 0) for count in _REMOVED)
    dropped = sum(split_counts.get(count, 0) for count in _DROPPED)
    sums = [
        (num_items, counts["num_valid"] + counts["num_rejected"], "rows that were read", "valid or rejected"),
        (counts["num_rejected"], num_listed, "rejected rows", "listed in rejected.jsonl"),
        (counts["num_valid"], counts["num_kept"] + removed, "valid rows", "kept, or counted by a filter"),
        (counts["num_kept"], num_written + dropped, "kept rows", "in a split, or counted as dropped"),
    ]
    if is_row_per_record:
        sums.append((reads.num_records + reads.num_rejected, num_items, "records of the files", "read or rejected"))
    elif reads.num_rejected > counts["num_rejected"]:
        sums.append((reads.num_rejected, counts["num_rejected"], "rejected records of the files", "listed"))
    for whole, parts, what, where in sums:
        if whole != parts:
            raise SourceError(
                f"{name}: of {whole} {what}, {parts} are accounted for ({where}); this is a fault of fedllm-data, "
                "please report it"
            )
