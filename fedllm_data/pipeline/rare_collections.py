"""Python's collector of reference cycles, asked less often while rows are read: rows are trees and hold no cycle.

A row is a dozen containers, so that the collector would start thousands of times to find nothing. Its threshold is
raised, not switched off: what does make cycles is still collected, and memory stays flat.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["rare_collections"]

_NUM_ALLOCATIONS = 200_000
"""Containers made and not yet freed, before the collector looks; a batch of rows makes fewer."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let the collector start after more allocations inside the block; a collector that is off stays off.

    >>> import gc
    >>> before = gc.get_threshold()
    >>> with rare_collections():
    ...     gc.get_threshold()[0] >= before[0]
    True
    >>> gc.get_threshold() == before
    True
    """
    before = gc.get_threshold()
    if before[0]:
        gc.set_threshold(max(before[0], _NUM_ALLOCATIONS), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
