"""Files that may be compressed: .gz, .bz2, .xz and .zst, with the standard library's codecs and pyarrow's."""

import bz2
import gzip
import lzma
import shutil
import zlib
from collections.abc import Callable
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

__all__ = ["COMPRESSIONS", "DAMAGED", "bare_name", "decompressed", "is_damage"]

_SPOOLED_BYTES = 1 << 26
DAMAGED = (EOFError, zlib.error, lzma.LZMAError)
"""What the codecs raise on a damaged file, beside what `is_damage` tells."""


def _zstd(stream: BinaryIO) -> BinaryIO:
    import pyarrow as pa

    # pyarrow's stream cannot go back to its start, as readers do that look at a file's form first.
    text = cast(BinaryIO, SpooledTemporaryFile(max_size=_SPOOLED_BYTES))
    try:
        shutil.copyfileobj(pa.CompressedInputStream(stream, "zstd"), text, 1 << 20)
    except BaseException:
        text.close()
        raise
    text.seek(0)
    return text


COMPRESSIONS: dict[str, Callable[[BinaryIO], BinaryIO]] = {
    ".gz": lambda stream: cast(BinaryIO, gzip.open(stream)),
    ".bz2": lambda stream: cast(BinaryIO, bz2.open(stream)),
    ".xz": lambda stream: cast(BinaryIO, lzma.open(stream)),
    ".zst": _zstd,
}


def bare_name(name: str) -> str:
    """Return a file's name without the ending of its compression, in small letters.

    >>> bare_name("Rows.csv.GZ"), bare_name("rows.json")
    ('rows.csv', 'rows.json')
    """
    name = name.lower()
    return next((name.removesuffix(ending) for ending in COMPRESSIONS if name.endswith(ending)), name)


def is_damage(error: OSError) -> bool:
    """Whether an error is a codec's or pyarrow's own, and neither the disk's nor the network's.

    >>> is_damage(OSError("Invalid data stream")), is_damage(OSError(5, "Input/output error"))
    (True, False)
    """
    return type(error) in (OSError, gzip.BadGzipFile) and error.errno is None


def decompressed(stream: BinaryIO, name: str) -> BinaryIO:
    """Return what a compressed file holds, or the stream itself where its name says that it is not compressed.

    >>> import io
    >>> decompressed(io.BytesIO(gzip.compress(b"text")), "rows.csv.gz").read()
    b'text'
    """
    opener = next((opener for ending, opener in COMPRESSIONS.items() if name.lower().endswith(ending)), None)
    return stream if opener is None else opener(stream)
