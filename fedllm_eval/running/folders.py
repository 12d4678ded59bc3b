"""Output folders that are replaced as a whole (`fedllm_data.in_place`), unless they hold somebody else's files."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from fedllm_data.errors import ConfigError
from fedllm_data.in_place import fill_folder

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
    """Fill a folder beside `out`, then put it there in one step.

    Args:
        out: the folder to appear.
        fill: called with the temporary folder.
        files: names that `out` may hold already; anything else in it stops the write before it starts.

    Raises:
        ConfigError: if `out` is a file, or a folder that holds other files.
    """
    out = Path(out)
    check_out(out, files)
    with fill_folder(out, check=lambda _: check_out(out, files)) as folder:
        fill(folder)


def link_tree(source: Path, target: Path) -> None:
    """Make a second tree of the same files, as hard links where the disk has them: they cost no space.

    >>> import tempfile
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
