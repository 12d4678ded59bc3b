"""The rows of CSV and TSV files: a row whose quotes do not match costs no other row.

Rows are read strictly (RFC 4180). Where the quotes of a row do not match, other readings are tried, each believed only
if it gives as many fields as the header has and takes no other whole row with it: backslash escapes, quotes inside
quoted fields as text, and quotes as text altogether. If none is, the row's first line is rejected and reading goes on
with the next line, so a quote that is never closed swallows nothing. Python's csv module, pandas and DuckDB see the
same rows where they see rows at all; their text of `"5" nail?"` differs (`5 nail?"` in the first two).

A row of several lines that was rejected takes those of its lines along that cannot be rows of their own. A row that
is well formed only because a quote was left open, and another one begins a field much later, is found out by what is
between: all of it would be rows, and what follows would not.
"""

import csv
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from fedllm_data.errors import SourceError
from fedllm_data.source import Rejected
from fedllm_data.upstream.encodings import LetterTally
from fedllm_data.upstream.raw import RawFile, Record
from fedllm_data.upstream.readers.column_names import column_names
from fedllm_data.upstream.readers.csv_form import check_delimiter, sample_lines, separator_line, sniff_delimiter
from fedllm_data.upstream.readers.csv_quotes import (
    Dialect,
    Lines,
    OneLine,
    Reading,
    is_clean,
    lenient,
    literal,
    strict,
)

__all__ = ["read_csv", "read_tsv"]

_MAX_FIELD_CHARS = 1 << 28
_PEEK_CHARS = 1 << 20
_MAX_LINES_OF_WRONG = 100
_QUOTED = re.compile(rb'"(?:[^"]|"")*"')
_MISMATCH = "the quotes of this row do not match: a quoted field is not closed, or a quote within it is not doubled"


def read_csv(raw: RawFile) -> Iterator[Record | Rejected]:
    """Yield the rows of a CSV file; the separator is read off the file unless the settings name it."""
    yield from _read(raw, ",")


def read_tsv(raw: RawFile) -> Iterator[Record | Rejected]:
    """Yield the rows of a tab-separated file, likewise."""
    yield from _read(raw, "\t")


def _read(raw: RawFile, usual: str) -> Iterator[Record | Rejected]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    sample = sample_lines(raw.stream)
    named = separator_line(sample[0]) if sample else None
    if raw.settings.delimiter is not None:
        delimiter = check_delimiter(raw.settings.delimiter)
    else:
        delimiter = named or sniff_delimiter(sample, usual, raw.place)
    is_quoted = True
    if delimiter == "\t":
        # The format itself knows no quotes; spreadsheets write them.
        is_quoted = not _has_bare_quotes(raw.stream)
        raw.stream.seek(0)
    # Undecodable bytes become lone surrogates, which row validation rejects by line: the other rows stay usable.
    text = io.TextIOWrapper(raw.stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        lines = Lines(text, raw.letters)
        if named is not None:
            lines.take()
        header = _header(lines, Dialect(delimiter=delimiter), is_quoted, raw.place)
        is_escaped = is_quoted and _is_escaped(sample[1 + (named is not None) :], delimiter, len(header))
        rows = _Rows(raw.name, lines, header, Dialect(delimiter=delimiter, is_escaped=is_escaped), is_quoted)
        yield from rows.read()
    finally:
        text.detach()  # the stream is the caller's to close


def _header(lines: Lines, dialect: Dialect, is_quoted: bool, place: str) -> list[str]:
    line = lines.take()
    while line is not None and not line.strip("\r\n"):
        line = lines.take()
    if line is None:
        raise SourceError(f"{place} has no header line; give the names of the columns in its first line")
    header = strict(line, lines, dialect).values if is_quoted else line.rstrip("\r\n").split(dialect.delimiter)
    if header is None:
        raise SourceError(f"{place}: the quotes of its header line do not match; correct its first line")
    return column_names(header, place)


class _Rows:
    """The rows below a header."""

    def __init__(self, name: str, lines: Lines, header: list[str], dialect: Dialect, is_quoted: bool) -> None:
        self.name = name
        self.lines = lines
        self.header = header
        self.dialect = dialect
        self.is_quoted = is_quoted

    def read(self) -> Iterator[Record | Rejected]:
        delimiter, num_fields = self.dialect.delimiter, len(self.header)
        one_line = OneLine(self.dialect)
        while (line := self.lines.take()) is not None:
            number = self.lines.number
            if self.is_quoted and ('"' in line or (self.dialect.is_escaped and "\\" in line)):
                fields = one_line.fields(line)
                if fields is not None and len(fields) == num_fields:
                    yield Record(dict(zip(self.header, fields, strict=True)), self.name, number)
                else:
                    yield self._quoted(line, number)
            elif bare := line.rstrip("\r\n"):
                values = bare.split(delimiter)
                if len(values) == num_fields:
                    yield Record(dict(zip(self.header, values, strict=True)), self.name, number)
                else:
                    yield self._rejected(number, values)

    def _quoted(self, first: str, number: int) -> Record | Rejected:
        """The row that begins with a line, and its lines taken."""
        reading = strict(first, self.lines, self.dialect)
        num_fields = len(self.header)
        if reading.fits(num_fields) and (len(reading.lines) == 1 or not self._swallows(reading)):
            return self._record(number, reading)
        is_whole = not reading.fits(num_fields) and self._is_one_row(reading)
        self.lines.put_back(reading.lines[1:])
        for other in self._other_readings(first, is_matched=reading.values is not None):
            if other.fits(num_fields) and not self._holds_a_row(other.lines):
                return self._record(number, other)
            self.lines.put_back(other.lines[1:])
        if is_whole and reading.values is not None:
            for _ in reading.lines[1:]:
                self.lines.take()
            return self._rejected(number, reading.values)
        self._skip_rest_of(first)
        return Rejected(self.name, number, _MISMATCH)

    def _is_one_row(self, reading: Reading) -> bool:
        """Whether a reading with the wrong number of fields is one row, and not an open quote with many behind it."""
        is_short = reading.values is not None and len(reading.lines) <= _MAX_LINES_OF_WRONG
        return is_short and not self._holds_a_row(reading.lines)

    def _other_readings(self, first: str, is_matched: bool) -> Iterator[Reading]:
        delimiter = self.dialect.delimiter
        if "\\" in first:
            yield strict(first, self.lines, Dialect(delimiter=delimiter, is_escaped=not self.dialect.is_escaped))
        if not is_matched:
            yield lenient(first, self.lines, self.dialect)
            yield lenient(first, Lines([], LetterTally()), self.dialect, is_doubled=False)
            yield literal(first, self.dialect)

    def _skip_rest_of(self, first: str) -> None:
        """Take the lines that go on a rejected row: it lacked separators, and they cannot be rows themselves.

        A line that opens a quote is left, as it may be another row that is damaged: rather two rejected lines of one
        row than one of two.
        """
        delimiter = self.dialect.delimiter
        num_missing = len(self.header) - 1 - first.count(delimiter)
        while num_missing > 0 and (line := self.lines.take()) is not None:
            if line.startswith('"') or f'{delimiter}"' in line or self._peek(line):
                self.lines.put_back([line])
                return
            num_missing -= line.count(delimiter)

    def _holds_a_row(self, lines: list[str]) -> bool:
        """Whether another row begins on one of the lines after the first, which were taken."""
        self.lines.put_back(lines[1:])
        found = False
        num_taken = 0
        while not found and num_taken < len(lines) - 1:
            line = self.lines.take()
            assert line is not None
            num_taken += 1
            found = self._peek(line)
        self.lines.put_back(lines[1 : 1 + num_taken])
        for _ in lines[1:]:
            self.lines.take()
        return found

    def _swallows(self, reading: Reading) -> bool:
        """Whether a row of several lines fits only because its last quote begins a field of another row.

        Then its lines after the first are rows. Either the last of them goes beyond it, and what follows it is none,
        or it holds a quote in a field that does not begin with one, which no writer makes.
        """
        inner = reading.lines[1:]
        self.lines.put_back(inner)
        taken: list[str] = []
        are_rows = True
        while are_rows and len(taken) < len(inner) and (line := self.lines.take()) is not None:
            row = self._read_row(line)
            taken += row.lines
            are_rows = row.fits(len(self.header))
        self.lines.put_back(taken)
        for _ in inner:
            self.lines.take()
        if not are_rows:
            return False
        if len(taken) == len(inner):
            return not is_clean("".join(reading.lines), self.dialect)
        following = taken[len(inner)]
        self.lines.take()
        is_row = self._peek(following)
        self.lines.put_back([following])
        return not is_row

    def _peek(self, line: str) -> bool:
        """Whether a line that was taken begins a whole row; afterwards all is as it was."""
        reading = self._read_row(line)
        self.lines.put_back(reading.lines[1:])
        return reading.fits(len(self.header))

    def _read_row(self, line: str) -> Reading:
        if line.count(self.dialect.delimiter) < len(self.header) - 1 and '"' not in line:
            return Reading(None, [line])  # cannot be a whole row
        return strict(line, self.lines, self.dialect, max_chars=_PEEK_CHARS)

    def _record(self, number: int, reading: Reading) -> Record:
        assert reading.values is not None
        return Record(dict(zip(self.header, reading.values, strict=True)), self.name, number)

    def _rejected(self, number: int, values: list[str]) -> Rejected:
        return Rejected(self.name, number, f"has {len(values)} fields, the header has {len(self.header)}")


def _is_escaped(sample: list[str], delimiter: str, num_fields: int) -> bool:
    """Whether quotes in texts are escaped by backslashes: some rows need it to be read, and none doubles a quote."""
    if not any('\\"' in line for line in sample):
        return False
    lines = Lines(sample, LetterTally())
    plain, escaped = Dialect(delimiter=delimiter), Dialect(delimiter=delimiter, is_escaped=True)
    is_needed = False
    while (line := lines.take()) is not None:
        if '"' not in line:
            continue
        reading = strict(line, lines, plain, max_chars=_PEEK_CHARS)
        if reading.fits(num_fields):
            if any('"' in value for value in reading.values or ()) and any('""' in line for line in reading.lines):
                return False
            continue
        lines.put_back(reading.lines[1:])
        other = strict(line, lines, escaped, max_chars=_PEEK_CHARS)
        is_needed = is_needed or other.fits(num_fields)
        if not other.fits(num_fields):
            lines.put_back(other.lines[1:])
    return is_needed


def _has_bare_quotes(stream: BinaryIO) -> bool:
    """Whether quotes are text in a tab-separated file, as its format has it, and not what fields stand in.

    Then every line holds all fields, as no field spans lines or holds a tab, some field begins with a quote that does
    not close where it ends, and no writer's quoting shows: no doubled quotes within quotes, most fields without any.
    A single field with a damaged quote is no reason to take the quotes of all others as text.
    """
    num_fields = num_lines = num_bare = num_quoted = 0
    for line in stream:
        fields = line.rstrip(b"\r\n").split(b"\t")
        if line.strip() and len(fields) != (num_fields or len(fields)):
            return False
        num_fields = num_fields or len(fields)
        num_lines += bool(line.strip())
        for field in fields:
            if field[:1] != b'"':
                continue
            if not _QUOTED.fullmatch(field):
                num_bare += 1
            elif b'""' in field[1:-1]:
                return False
            else:
                num_quoted += 1
    return num_bare > 0 and num_quoted <= num_lines * num_fields / 2
