"""The one way to put a file or a folder in place: write it beside its place, sync it to the disk, then rename it.

Whoever reads the place finds the earlier content or the new one, never half of either, also after a kill or a power
cut. Only a folder that takes the place of another is missing for a moment, between two renames; the earlier one then
lies whole beside it, and the next `fill_folder` or `restore_folder` puts it back.

What is being written is called `.NAME.0.partial` (a file) or `.NAME.making-0` (a folder), and its writer holds a lock
on it. A second writer of the same place sees the lock and takes the next number, so several processes or threads may
write the same place at once: the last one wins. What a killed writer left has no lock, and the next writer of the same
place takes it over, so nothing piles up. A link at the place is replaced itself; what it points to stays as it is.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path

from fedllm_data.errors import ConfigError
from fedllm_data.rehearsal import end_of_checks, is_rehearsed

__all__ = ["fill_file", "fill_folder", "restore_folder", "sync_folder", "write_file"]

_IS_THERE = {errno.EEXIST, errno.ENOTEMPTY}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_NO_SYNC = {errno.EACCES, errno.EBADF, errno.EINVAL, errno.EOPNOTSUPP}
_MAX_NAME_BYTES = 200
_MAX_LOOKED_AT = 8


def write_file(
    path: Path, content: bytes | str | Callable[[Path], object], *, mode: int = 0o666, sync: bool = True
) -> None:
    """Write a file, whole or not at all.

    Args:
        path: the file, in a folder that is there.
        content: bytes, text (written as UTF-8, line ends as they are), or a function that writes the file at the
            temporary path it is called with.
        mode: see `fill_file`.
        sync: see `fill_file`.

    Raises:
        OSError: if the file cannot be written; the earlier one is then still there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     write_file(Path(place, "a.txt"), "whole")
    ...     Path(place, "a.txt").read_text()
    'whole'
    """
    with fill_file(path, mode=mode, sync=sync) as temporary:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def fill_file(path: Path, *, mode: int = 0o666, sync: bool = True) -> Iterator[Path]:
    """Yield an empty temporary file that takes the place of `path` when the block ends without an error.

    Close whatever writes into it before the block ends.

    Args:
        path: the file, in a folder that is there.
        mode: permissions of the file from its first moment, less what the process denies any new file; 0o600 for a
            secret.
        sync: whether to wait until the disk has it. False suits what is checked when it is read and can be made again.

    Raises:
        OSError: if the file cannot be written; the earlier one is then still there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with fill_file(Path(place, "a.txt")) as temporary, temporary.open("w") as file:
    ...         _ = file.write("line by line")
    ...     [path.name for path in Path(place).iterdir()]
    ['a.txt']
    """
    path = Path(path)
    if path.is_dir() and not path.is_symlink():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    end_of_checks()
    temporary, lock = _claim_file(path, mode)
    try:
        yield temporary
        if sync:
            _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(lock)
    if sync:
        _sync_names(path.parent)


@contextmanager
def fill_folder(
    out: Path,
    *,
    mark: str | None = None,
    check: Callable[[Path], None] | None = None,
    mode: int = 0o777,
    sync: bool = True,
) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `out` when the block ends without an error.

    Args:
        out: the final place; its parents are made where they are missing. What lies there is replaced only if it is
            an empty folder, or one that `mark` or `check` allows.
        mark: a file at the root of a folder that is ours, and may therefore be replaced.
        check: in place of `mark`: called with `out` where anything lies there, and raises if that must stay.
        mode: permissions of the folder from its first moment, less what the process denies any new folder.
        sync: whether to wait until the disk has all files. False suits what is checked when it is read and can be
            made again.

    Raises:
        ConfigError: if what lies at `out` must stay, or the parent cannot be written; nothing was changed then.
        OSError: if the folder cannot be put in place; the earlier one is then still there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     for text in "old", "new":
    ...         with fill_folder(Path(place, "repo"), mark="mark") as folder:
    ...             _ = (folder / "mark").write_text(text)
    ...     [path.read_text() for path in Path(place, "repo").iterdir()]
    ['new']
    """
    out = Path(os.path.abspath(out))
    if is_rehearsed():
        _check(out, check or partial(_check_mark, mark=mark))
    end_of_checks()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        restore_folder(out)
        _check(out, check or partial(_check_mark, mark=mark))
        making, lock = _claim_folder(out)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {out}: {error.strerror}; name another one") from error
    try:
        fresh = making / "new"
        fresh.mkdir(mode=mode)
        yield fresh
        if sync:
            sync_folder(fresh)
        _put_in_place(fresh, out, making / "old")
        if sync:
            _sync_names(out.parent)
    finally:
        if not (making / "old").exists():
            _remove_claimed(making)
        os.close(lock)


def restore_folder(out: Path) -> None:
    """Put an earlier folder back that a killed process left between its two renames; otherwise do nothing.

    >>> restore_folder(Path("no/such/folder"))
    """
    out = Path(os.path.abspath(out))
    for number in range(_MAX_LOOKED_AT):
        making = _beside(out, f"making-{number}")
        if os.path.lexists(out) or not (making / "old").exists():
            continue
        with suppress(FileNotFoundError):  # another process has put it back meanwhile
            claim = _lock(making / "lock", 0o666)
            if claim is None:
                continue  # its writer is alive, and about to put the new one there
            try:
                os.rename(making / "old", out)
                _remove_claimed(making)
            except OSError as error:
                if error.errno not in _IS_THERE:
                    raise
            finally:
                os.close(claim[0])


def sync_folder(folder: Path) -> None:
    """Wait until the disk has all files of a folder: after many files that were written without waiting for each.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     write_file(Path(place, "a.txt"), "whole", sync=False)
    ...     sync_folder(Path(place))
    """
    for place, _, files in os.walk(folder):
        for name in files:
            if not os.path.islink(os.path.join(place, name)):
                _sync(Path(place, name))
        _sync_names(Path(place))


def _check(out: Path, check: Callable[[Path], None]) -> None:
    while (seen := _identity(out)) is not None:
        try:
            check(out)
        except (ConfigError, FileNotFoundError):
            if _identity(out) == seen:
                raise
            continue  # another process has replaced it meanwhile
        if os.path.ismount(out):
            raise ConfigError(f"{out} is a mount point and cannot be replaced; name a folder inside it")
        return


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _check_mark(out: Path, mark: str | None) -> None:
    if out.is_symlink() or not out.is_dir():
        raise ConfigError(f"{out} exists and is not a folder; name another one")
    if any(out.iterdir()) and (mark is None or not (out / mark).is_file()):
        what = f"files that were not made here (it has no {mark})" if mark else "something already"
        raise ConfigError(f"{out} holds {what}; name another folder or remove it")


def _put_in_place(fresh: Path, out: Path, old: Path) -> None:
    while True:
        with suppress(FileNotFoundError):
            os.rename(out, old)
        # A kill between these two renames leaves `old` whole; `restore_folder` puts it back.
        try:
            os.rename(fresh, out)
        except OSError as error:
            if error.errno not in _IS_THERE:
                if old.exists():
                    os.rename(old, out)
                raise
            _discard(old)  # another process has put its own folder there meanwhile: the last one wins
        else:
            _discard(old)
            return


def _discard(old: Path) -> None:
    """Remove a folder under a name that nobody restores: what is called `old` is whole, or not there."""
    if old.is_symlink():
        old.unlink()
    elif old.exists():
        gone = old.with_name("gone")
        shutil.rmtree(gone, ignore_errors=True)
        os.rename(old, gone)
        shutil.rmtree(gone, ignore_errors=True)


def _claim_file(path: Path, mode: int) -> tuple[Path, int]:
    """Return a new empty file beside `path` that nobody else writes, and the lock that says so."""
    number = 0
    while True:
        temporary = _beside(path, f"{number}.partial")
        claim = _lock(temporary, mode)
        if claim is None:
            number += 1
            continue
        lock, is_new = claim
        if is_new:
            return temporary, lock
        # A killed writer left it, perhaps with other permissions: made again, as a file of our own.
        temporary.unlink()
        os.close(lock)


def _claim_folder(out: Path) -> tuple[Path, int]:
    """Return a folder beside `out` that nobody else writes, with nothing in it but a lock, and that lock."""
    number = 0
    while True:
        making = _beside(out, f"making-{number}")
        with suppress(FileExistsError):
            making.mkdir()
        try:
            claim = _lock(making / "lock", 0o666)
        except FileNotFoundError:
            continue  # whoever had it ended just now, and removed it
        except NotADirectoryError:
            claim = None
        if claim is not None:
            _discard(making / "old")
            _empty(making)
            return making, claim[0]
        number += 1


def _lock(path: Path, mode: int) -> tuple[int, bool] | None:
    """Open and lock a file; return its descriptor and whether it is new, or None if somebody else has it."""
    while True:
        try:
            file, is_new = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode), True
        except FileExistsError:
            try:
                file, is_new = os.open(path, os.O_RDWR | os.O_NOFOLLOW), False
            except FileNotFoundError:
                continue  # renamed or removed since
            except OSError:
                return None  # of another user, or no file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            is_ours = is_new and error.errno in _NO_LOCKS  # a disk without locks: what is new is ours
            if not is_ours:
                os.close(file)
                return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.lstat(path)):
                return file, is_new
        os.close(file)  # it was renamed or removed between opening and locking


def _beside(path: Path, kind: str) -> Path:
    name = path.name
    if len(os.fsencode(name)) > _MAX_NAME_BYTES:
        name = f"{name[:40]}-{blake2b(os.fsencode(name), digest_size=8).hexdigest()}"
    return path.with_name(f".{name}.{kind}")


def _empty(making: Path) -> None:
    for left in making.iterdir():
        if left.name != "lock":
            shutil.rmtree(left, ignore_errors=True)


def _remove_claimed(making: Path) -> None:
    """Remove a folder that we have the lock of; the lock goes last."""
    _empty(making)
    (making / "lock").unlink(missing_ok=True)
    with suppress(OSError):  # the next writer is in it already
        making.rmdir()


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_names(folder: Path) -> None:
    """Have the disk keep the names in a folder, on disks that can."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
