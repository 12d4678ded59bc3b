"""Bytes that are appended once and then read: in memory while they are few, else in a memory-mapped file.

The pages of a mapped file belong to the system's page cache, which takes them back when memory is scarce; the file has
no name, so nothing is left behind.
"""

import mmap
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["Block"]

IN_MEMORY_BYTES = 1 << 16
"""Blocks up to this size are held in memory."""


class Block:
    """Bytes that are appended once and then read: in memory while they are few, else in a file without a name."""

    def __init__(self, folder: Path | None = None) -> None:
        """Begin an empty block.

        Args:
            folder: where a file would lie; the system's temporary folder if not given, or if nothing can be written
                there.
        """
        self._folder = folder
        self._few = bytearray()
        self._file: Any = None
        self._view: memoryview | None = None

    @classmethod
    def of_zeros(cls, num_bytes: int, folder: Path | None = None) -> "Block":
        """Return a block of zeros whose view can be written to."""
        block = cls(folder)
        if num_bytes <= IN_MEMORY_BYTES:
            block._view = memoryview(bytearray(num_bytes))
        else:
            with _unnamed_file(folder) as file:
                file.truncate(num_bytes)
                block._view = memoryview(mmap.mmap(file.fileno(), num_bytes))
        return block

    def append(self, content: Any) -> None:
        """Append bytes, or an array's."""
        if not len(content):
            return
        more = memoryview(content).cast("B")
        if self._file is None and len(self._few) + len(more) > IN_MEMORY_BYTES:
            self._file = _unnamed_file(self._folder)
            self._file.write(self._few)
            self._few = bytearray()
        if self._file is None:
            self._few += more
        else:
            self._file.write(more)

    @property
    def view(self) -> memoryview:
        """All bytes; nothing can be appended after the first look."""
        if self._view is None:
            if self._file is None:
                self._view = memoryview(bytes(self._few))
            else:
                self._file.flush()
                self._view = memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))
                self._file.close()
            self._few, self._file = bytearray(), None
        return self._view

    def __getstate__(self) -> bytes:
        """Return the bytes: another process keeps them in a file of its own."""
        return self.view.tobytes()

    def __setstate__(self, content: bytes) -> None:
        """Take the bytes."""
        self.__init__()  # type: ignore[misc]
        self.append(content)


def _unnamed_file(folder: Path | None) -> Any:
    """A file that is gone when it is closed and no longer mapped."""
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError:
        return tempfile.TemporaryFile()
