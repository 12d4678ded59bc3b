"""Make an output folder so that a kill at any moment leaves either the earlier folder or the new one.

The new folder grows beside its final place and is renamed into it when it is complete. Which folders are replaced at
all is said in `replacing.py`.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedllm_data.errors import ConfigError
from fedllm_data.pipeline.replacing import Remake, check_replaceable

__all__ = ["staged_folder"]


@contextmanager
def staged_folder(out: Path, mark: str, remake: Remake | None = None) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `out` when the block ends without an error.

    Args:
        out: the final place.
        mark: a JSON file at the root of a folder of ours, in which `made_by` is "fedllm-data"; only such a folder, or
            an empty one, is replaced.
        remake: what is to be made, by which another dataset or a report at `out` is told from an earlier making of
            this one; None replaces whatever has the mark.

    Raises:
        ConfigError: if something lies at `out` that is not to be replaced, or its parent cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     with staged_folder(Path(place, "repo"), "build.json") as folder:
    ...         _ = (folder / "build.json").write_text("{}")
    ...     sorted(path.name for path in Path(place, "repo").iterdir())
    ['build.json']
    """
    out = Path(os.path.abspath(out))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _clean_up(out)
        check_replaceable(out, mark, remake)
        staging = out.parent / f".{out.name}.making-{os.getpid()}"
        staging.mkdir()
    except OSError as error:
        raise ConfigError(f"cannot make the folder {out}: {error.strerror}; name another --out") from error
    try:
        yield staging
        _put_in_place(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put_in_place(staging: Path, out: Path) -> None:
    if not out.exists():
        staging.rename(out)
        return
    previous = out.parent / f".{out.name}.previous-{os.getpid()}"
    out.rename(previous)
    # A kill between these two lines leaves `previous` complete; the next command puts it back (`_clean_up`).
    staging.rename(out)
    _discard(previous, staging)


def _clean_up(out: Path) -> None:
    """Remove what killed commands left behind, and restore an earlier folder caught between two renames."""
    for kind in ("previous", "making"):
        for left in sorted(out.parent.glob(f".{out.name.replace('[', '[[]')}.{kind}-*")):
            process_id = left.name.rpartition("-")[2]
            if not process_id.isdigit() or (int(process_id) != os.getpid() and _is_alive(int(process_id))):
                continue
            if kind == "previous" and not out.exists():
                left.rename(out)
            else:
                _discard(left, left.with_name(f".{out.name}.making-{process_id}"))


def _discard(folder: Path, name: Path) -> None:
    """Remove a folder under a name that nobody restores: what is called `previous` is whole, or not there."""
    if folder != name:
        shutil.rmtree(name, ignore_errors=True)
        with suppress(FileNotFoundError):  # another command that starts now cleans up as well
            folder.rename(name)
    shutil.rmtree(name, ignore_errors=True)


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
