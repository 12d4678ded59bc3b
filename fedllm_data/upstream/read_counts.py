"""How many records the readers gave during a build, counted where they leave the readers.

The counts are the one side of what a build asserts at its end: no record that was read is lost on the way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["ReadCounts", "count_reads", "counts_in_progress"]


@dataclass
class ReadCounts:
    """What came out of the files."""

    num_records: int = 0
    num_rejected: int = 0


_IN_PROGRESS: ContextVar[ReadCounts | None] = ContextVar("read_counts", default=None)


@contextmanager
def count_reads() -> Iterator[ReadCounts]:
    """Count what all readers give while the block runs.

    >>> import io
    >>> from fedllm_data.upstream.records import read_stream
    >>> with count_reads() as counts:
    ...     _ = list(read_stream(io.BytesIO(b'{"a": 1}' + bytes([10]) + b'{"a":'), "rows.jsonl"))
    >>> counts
    ReadCounts(num_records=1, num_rejected=1)
    """
    counts = ReadCounts()
    token = _IN_PROGRESS.set(counts)
    try:
        yield counts
    finally:
        _IN_PROGRESS.reset(token)


def counts_in_progress() -> ReadCounts:
    """Return the counts that a reader adds to; if no build asked for any, nobody looks at them."""
    return _IN_PROGRESS.get() or ReadCounts()
