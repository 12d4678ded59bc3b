"""How the characters of a text file are stored: every reader gets UTF-8, and what cannot be decoded stays visible.

A character that the encoding does not know becomes the byte 0xFF, which no UTF-8 text holds, so that the reader
rejects its row and no other. UTF-16 and UTF-32 are known by their byte order mark. Older encodings have no mark: a
file most of whose lines with more than ASCII are not UTF-8 is refused, with the encoding that it looks like.
"""

import codecs
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from fedllm_data.errors import ConfigError, SourceError
from fedllm_data.upstream.encoding_guess import likely_encoding

__all__ = ["LetterTally", "as_utf8", "check_encoding", "encoding_of_head"]

_CHUNK_BYTES = 1 << 20
_SPOOLED_BYTES = 1 << 26
_SAMPLE_BYTES = 1 << 16
_UNDECODABLE = "fedllm-undecodable"
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NULS_OF_UTF16 = 0.2
"""The least fraction of zero bytes in UTF-16: text in European languages has one half."""
_SURE_CHARS = 20
"""This many letters above ASCII are never all valid UTF-8 by chance; two bytes of GB18030 are once in a few times."""
_NULS_OF_DAMAGE = 3
"""This many zero bytes at a file's beginning may be damage to rows of text."""


def _mark_undecodable(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\udcff", error.end


codecs.register_error(_UNDECODABLE, _mark_undecodable)


@dataclass
class LetterTally:
    """Counts the lines with more than ASCII: how many are UTF-8, how many are not."""

    is_settled: bool = False
    """Somebody named the encoding: lines that are not in it are rejected one by one, however many they are."""
    num_valid: int = 0
    num_broken: int = 0
    first_broken: int = 0
    last_broken: int = 0
    sample: bytearray = field(default_factory=bytearray)

    def see(self, line: bytes, number: int) -> bool:
        """Count a line with other bytes than ASCII; return whether it is UTF-8.

        >>> LetterTally().see("été".encode("latin-1"), 7)
        False
        """
        try:
            line.decode()
        except UnicodeDecodeError:
            # A line end within a character breaks two lines, and is one damage.
            is_rest = 0x80 <= line[0] < 0xC0 and number == self.last_broken + 1
            self.num_broken += not is_rest
            self.last_broken = number
            self.first_broken = self.first_broken or number
            if len(self.sample) < _SAMPLE_BYTES:
                self.sample += line
            return False
        self.num_valid += 1
        return True

    def see_objects(self, content: bytes) -> None:
        """Count the objects of a JSON document, which may all stand on one line."""
        for number, line in enumerate(content.split(b"\n"), start=1):
            for part in [] if line.isascii() else line.split(b"}"):
                if not part.isascii():
                    self.see(part, number)

    def refuse_if_mostly_broken(self, place: str) -> None:
        """Raise where the file as a whole is in another encoding; a single broken line is damage, and costs its row.

        Raises:
            SourceError: if two lines or more are not UTF-8 and fewer with more than ASCII are.
        """
        if self.is_settled or self.num_broken < 2 or self.num_broken <= self.num_valid:
            return
        encoding = likely_encoding(bytes(self.sample))
        remedy = (
            f"it looks like {encoding}: import it with --encoding {encoding}"
            if encoding is not None
            else "it looks like none of the usual encodings: import it with --encoding and the one it was written in"
        )
        raise SourceError(
            f"{place} is not UTF-8 text: {self.num_broken} lines are not, the first of them line {self.first_broken}, "
            f"and {self.num_valid} lines with other letters than ASCII are; {remedy}, or with --encoding utf-8 to "
            "reject those lines; for a build convert it"
        )


def check_encoding(name: str) -> None:
    """Refuse what is no encoding of text.

    Raises:
        ConfigError: if Python knows no text encoding of this name.

    >>> check_encoding("klingon")
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: --encoding 'klingon' is no encoding that Python knows; ...
    """
    try:
        b"a".decode(name)
    except (LookupError, ValueError) as error:
        if isinstance(error, LookupError) or not name.isascii() or "\0" in name:
            raise ConfigError(
                f"--encoding {name[:40]!r} is no encoding that Python knows; write a name such as cp1252, latin-1, "
                "utf-16 or gb18030"
            ) from error


def encoding_of_head(head: bytes, place: str) -> str:
    """Return the encoding that a file's first bytes show: utf-8 unless a mark says otherwise.

    Raises:
        SourceError: if they are UTF-16 without a mark, or no text at all.

    >>> encoding_of_head("a,b".encode("utf-16"), "rows.csv"), encoding_of_head(b"a,b", "rows.csv")
    ('utf-16', 'utf-8')
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if head.count(b"\0") <= _NULS_OF_DAMAGE:
        return "utf-8"
    if head.count(b"\0") >= _NULS_OF_UTF16 * len(head):
        # In UTF-16 the zeros of ASCII characters all stand at odd places, or all at even ones.
        encoding = "utf-16-le" if head[1::2].count(b"\0") > head[::2].count(b"\0") else "utf-16-be"
        raise SourceError(
            f"{place} is not UTF-8 text: it looks like {encoding} without a byte order mark, or like no text; "
            f"import it with --encoding {encoding}"
        )
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError as error:
        raise SourceError(f"{place} is not UTF-8 text: it holds zero bytes; name a text file") from error
    return "utf-8"


def is_surely_utf8(stream: BinaryIO) -> bool:
    """Return whether a whole file is UTF-8 with so many letters above ASCII that no other encoding looks so by chance.

    Args:
        stream: the whole file, at its beginning; it is there again afterwards.

    >>> import io
    >>> [is_surely_utf8(io.BytesIO(text.encode())) for text in ("Größe " * 20, "no other letters", "é")]
    [True, False, False]
    >>> is_surely_utf8(io.BytesIO(("Größe " * 20).encode("cp1252")))
    False
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    num_chars = 0
    try:
        while piece := stream.read(_CHUNK_BYTES):
            text = decoder.decode(piece)
            num_chars += 0 if text.isascii() else sum(char > "\x7f" for char in text)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    finally:
        stream.seek(0)
    return num_chars >= _SURE_CHARS


def as_utf8(stream: BinaryIO, encoding: str, place: str) -> BinaryIO:
    """Return the text in UTF-8, in a temporary file that spills to disk; the caller closes it.

    Args:
        stream: the whole file.
        encoding: how its characters are stored.
        place: what errors call the file.

    Raises:
        SourceError: if the file lacks part of a UTF-16 or UTF-32 character: all that follows would be read askew.

    >>> import io
    >>> with as_utf8(io.BytesIO(b"caf" + bytes([0xe9])), "cp1252", "rows.csv") as text:
    ...     text.read().decode()
    'café'
    """
    text = cast(BinaryIO, SpooledTemporaryFile(max_size=_SPOOLED_BYTES))
    try:
        num_bytes = _transcode(stream, encoding, text)
        width = _width(encoding)
        if num_bytes % width:
            raise SourceError(
                f"{place} holds {num_bytes} bytes, which is no whole number of {encoding} characters: it is damaged "
                "or cut off; fetch it again"
            )
    except UnicodeError as error:
        text.close()
        raise SourceError(f"{place} cannot be read as {encoding}: {str(error)[:100]}; check --encoding") from error
    except BaseException:
        text.close()
        raise
    text.seek(0)
    return text


def _transcode(stream: BinaryIO, encoding: str, text: BinaryIO) -> int:
    """Write a text in UTF-8; return how many bytes it had before."""
    decoder = codecs.getincrementaldecoder(encoding)(errors=_UNDECODABLE)
    num_bytes = 0
    while chunk := stream.read(_CHUNK_BYTES):
        num_bytes += len(chunk)
        text.write(decoder.decode(chunk).encode("utf-8", "surrogateescape"))
    text.write(decoder.decode(b"", True).encode("utf-8", "surrogateescape"))
    return num_bytes


def _width(encoding: str) -> int:
    """The bytes of the smallest character, where all have a multiple of them."""
    name = codecs.lookup(encoding).name
    return 4 if name.startswith("utf-32") else 2 if name.startswith("utf-16") else 1
