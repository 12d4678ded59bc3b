"""What passes between raw files and what is made of them: the record, the settings of reading, the file being read."""

from dataclasses import dataclass, field
from typing import Any, BinaryIO

from fedllm_data.upstream.encodings import LetterTally

__all__ = ["AS_SEEN", "RawFile", "ReadSettings", "Record"]


@dataclass(frozen=True, slots=True)
class Record:
    """One raw row and its place: the line in a text file, the row (from 1) in the other formats."""

    fields: dict[str, Any]
    file: str
    line: int


@dataclass(frozen=True, kw_only=True)
class ReadSettings:
    """What a reader cannot always see for itself; None leaves it to the reader."""

    delimiter: str | None = None
    """What separates the columns of a CSV or TSV file."""
    encoding: str | None = None
    """How the characters of a text file are stored, as Python names it: cp1252, utf-16-le, ..."""
    sheet: str | None = None
    """The sheet of a workbook."""


AS_SEEN = ReadSettings()
"""Leaves all of it to the reader."""


@dataclass(kw_only=True)
class RawFile:
    """An open file: decompressed, and in UTF-8 if it is text."""

    stream: BinaryIO
    name: str
    """What records call the file."""
    place: str
    """What errors call the file."""
    suffix: str
    """The format: `.csv` of rows.csv.gz."""
    settings: ReadSettings = AS_SEEN
    letters: LetterTally = field(default_factory=LetterTally)
    """Which lines with more than ASCII are UTF-8."""
