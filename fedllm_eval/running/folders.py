"""Folders that appear whole or not at all: filled beside their place, then put there in one step.

Whoever reads the place finds the earlier folder or the new one, never half of either; only between the two renames
is there neither, and a process killed just then leaves the earlier one beside its place, as `.NAME-*/old`. A folder
that holds anything but what an earlier call of the same kind wrote is left alone.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from fedllm_data.errors import ConfigError

__all__ = ["check_out", "link_tree", "replace_folder"]


def check_out(out: Path, files: Sequence[str]) -> None:
    """Check that a folder may be written: before the work, not after it.

    Args:
        out: the folder to appear.
        files: the names it may hold already.

    Raises:
        ConfigError: if `out` is a file, or a folder that holds other files.

    >>> check_out(Path("fresh"), ["results.json"])
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder")
    foreign = sorted(path.name for path in out.iterdir() if path.name not in files) if out.exists() else []
    if foreign:
        raise ConfigError(f"--out {out} holds other files ({', '.join(foreign[:3])}); name a new folder")


def replace_folder(out: Path, fill: Callable[[Path], None], files: Sequence[str]) -> None:
    """Fill a temporary sibling folder and put it in the place of `out`.

    Args:
        out: the folder to appear.
        fill: called with the temporary folder.
        files: the names `out` may hold already; anything else in it stops the write before it starts.

    Raises:
        ConfigError: if `out` is a file, or a folder that holds other files.
    """
    out = Path(out)
    check_out(out, files)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        (fresh := temporary / "new").mkdir()
        fill(fresh)
        if out.exists():
            os.rename(out, temporary / "old")
        os.rename(fresh, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def link_tree(source: Path, target: Path) -> None:
    """Make a second tree of the same files, as hard links where the disk has them: they cost no space.

    >>> with tempfile.TemporaryDirectory() as place:
    ...     (source := Path(place, "a")).mkdir()
    ...     _ = (source / "file").write_text("kept")
    ...     link_tree(source, Path(place, "b"))
    ...     Path(place, "b", "file").read_text()
    'kept'
    """
    shutil.copytree(source, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
