"""A result file that grows cell by cell: what is finished is kept, and several processes may fill one file.

A cell is one run under a name. `kept_cells` gives an empty record to fill where the cell is missing, and None where it
is there, or where another process is making it; what was filled is written when the block ends without an error.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

from benchmarks.machine import write_result
from benchmarks.scored_runs import RESULTS, start_result

__all__ = ["kept_cells", "locked_result"]


@contextmanager
def kept_cells(stem: str, settings: Mapping[str, Any], cell: str) -> Iterator[dict[str, Any] | None]:
    """Give a record to fill for a cell that is missing; None for one that is there or being made.

    Args:
        stem: of the result file.
        settings: what all cells share; a file that was begun with others is refused.
        cell: name of the cell.
    """
    with (RESULTS / f".{stem}.cells.lock").open("w") as claims:
        try:
            # One byte of the file stands for a cell; a process that ends, however it ends, lets go of its own.
            fcntl.lockf(claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, crc32(cell.encode()))
        except OSError:
            yield None
            return
        with locked_result(stem) as result:
            start_result(result, dict(settings))
            is_there = cell in result["runs"]
        if is_there:
            yield None
            return
        filled: dict[str, Any] = {}
        yield filled
        with locked_result(stem) as result:
            result["runs"][cell] = filled


@contextmanager
def locked_result(stem: str) -> Iterator[dict[str, Any]]:
    """Yield the content of a result file and write it at the end; other processes wait meanwhile."""
    path = RESULTS / f"{stem}.json"
    with (RESULTS / f".{stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = json.loads(Path(path).read_text()) if path.exists() else {}
        yield result
        write_result(stem, result)
