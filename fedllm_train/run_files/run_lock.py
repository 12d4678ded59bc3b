"""One process at a time trains in a run folder.

The lock is the operating system's (flock), on the file `.lock` in the run folder: it goes with the process that holds
it, however that ends, so a killed run leaves nothing behind that would prevent `--resume`.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fedllm_data.errors import ResumeError
from fedllm_eval.policy.run_folder import LOCK_FILE

__all__ = ["locked"]

logger = logging.getLogger(__name__)


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold a run folder.

    Args:
        run: the folder; made if it does not exist.

    Raises:
        ResumeError: if another process, or another trainer of this one, holds it.
    """
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ResumeError(
            f"another process is training in {run}; wait until it is done, or choose another output_dir"
        ) from error
    except NotImplementedError:
        logger.warning("%s lies on a file system without locks; see that no other process trains in it", run)
        yield
        return
    try:
        yield
    finally:
        lock.release()
