"""Files that end in their own SHA-256, so that one that was damaged on disk is known before anything parses it.

The digest stands behind the content, in one file with it: both appear together or not at all. A reader of Arrow
streams stops at the end of its stream and never sees the digest; other content is read through `read_sealed`.
"""

import os
from collections.abc import Callable
from hashlib import file_digest, sha256
from pathlib import Path

from fedllm_data.in_place import fill_file

__all__ = ["is_whole", "read_sealed", "seal", "write_sealed"]

_MARK = b"\nsha256:"
_LENGTH = len(_MARK) + 32
_BLOCK = 1 << 24


def seal(path: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a temporary file, put its digest behind it and rename it to `path`.

    Several processes may write the same file at the same time; each has a temporary file of its own. Nothing waits for
    the disk: a file that a power cut damaged is recognised by its digest and made again.
    """
    with fill_file(path, sync=False) as temporary:
        fill(temporary)
        with temporary.open("rb") as file:
            digest = file_digest(file, "sha256").digest()
        with temporary.open("ab") as file:
            file.write(_MARK + digest)


def write_sealed(path: Path, content: bytes) -> None:
    """Write content and its digest, whole or not at all, and wait until the disk has the content.

    Nothing waits for the name of the file, which would double what a client's visit waits for: it comes to the disk
    with the names of the checkpoint, written after it, that first needs the file.
    """
    with fill_file(path, sync=False) as temporary, temporary.open("wb") as file:
        file.write(content + _MARK + sha256(content).digest())
        file.flush()
        os.fsync(file.fileno())


def is_whole(path: Path) -> bool:
    """Return whether a file is there and holds what was written; it is read through, and held in memory nowhere.

    >>> is_whole(Path("no/such/file"))
    False
    """
    try:
        with path.open("rb") as file:
            left = file.seek(0, os.SEEK_END) - _LENGTH
            file.seek(0)
            digest = sha256()
            while left > 0:
                block = file.read(min(left, _BLOCK))
                digest.update(block)
                left -= len(block)
            return left == 0 and file.read() == _MARK + digest.digest()
    except FileNotFoundError:
        return False


def read_sealed(path: Path) -> bytes | None:
    """Return what was written, without its digest; None if the file was damaged.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    whole = path.read_bytes()
    content, end = whole[:-_LENGTH], whole[-_LENGTH:]
    return content if end == _MARK + sha256(content).digest() else None
