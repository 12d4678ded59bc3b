"""One CSV record at a time, from lines that can be put back: strictly (RFC 4180), with escapes, or leniently.

`strict` reads what is well formed. `lenient` is for a record whose quotes do not match: a quote within a quoted
field that no separator and no line end follows is text, as Go's LazyQuotes and DuckDB's `strict_mode=false` have it,
so `"5" nail?"` is `5" nail?`. Both say which lines they took, so that a caller who does not believe a reading can put
them back and go on elsewhere.
"""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fedllm_data.upstream.encodings import LetterTally

__all__ = ["Dialect", "Lines", "OneLine", "Reading", "is_clean", "lenient", "literal", "strict"]

MAX_RECORD_CHARS = 1 << 26
"""A record that goes on for longer has a quote that was never closed."""
_LENIENT_LINES = 30
_ESCAPE = re.compile(r'\\(["\\])')
# Lone surrogates of a range that undecodable bytes never become: they stand for what was escaped.
_MARK_OF = {'"': "\ud800", "\\": "\ud801"}
_UNMARKED = {0xD800: '"', 0xD801: "\\"}


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How the records of a file are written."""

    delimiter: str
    is_escaped: bool = False
    """A backslash before a quote or a backslash makes it part of the text."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one way of reading makes of a record."""

    values: list[str] | None
    """The fields; None if the quotes do not match."""
    lines: list[str]
    """The lines it took."""

    def fits(self, num_fields: int) -> bool:
        """Whether this is a row with this number of fields."""
        return self.values is not None and len(self.values) == num_fields


class Lines:
    """The lines of a text, each with its number; lines that were taken can be put back."""

    def __init__(self, text: Iterable[str], letters: LetterTally) -> None:
        """Read from `text`, and count in `letters` which lines are UTF-8."""
        self._text = iter(text)
        self._letters = letters
        self._back: deque[str] = deque()
        self._num_read = 0

    @property
    def number(self) -> int:
        """The number of the line taken last, from 1."""
        return self._num_read - len(self._back)

    def take(self) -> str | None:
        """Return the next line with its line end; None after the last."""
        if self._back:
            return self._back.popleft()
        line = next(self._text, None)
        if line is not None:
            self._num_read += 1
            if not line.isascii():
                self._letters.see(line.encode("utf-8", "surrogateescape"), self._num_read)
        return line

    def put_back(self, lines: list[str]) -> None:
        """Take these lines, in this order, before all others."""
        self._back.extendleft(reversed(lines))


class OneLine:
    """Reads records of one line, most of them in most files, without the cost of being able to go back."""

    def __init__(self, dialect: Dialect) -> None:
        """Read as the dialect has it."""
        self._is_escaped = dialect.is_escaped
        self._line: str | None = None
        self._reader = csv.reader(self, delimiter=dialect.delimiter, strict=True)

    def __iter__(self) -> Iterator[str]:
        """Return what the reader takes lines from."""
        return self

    def __next__(self) -> str:
        """Give the line, once."""
        if self._line is None:
            raise StopIteration
        line, self._line = self._line, None
        return line

    def fields(self, line: str) -> list[str] | None:
        """Return the fields of a line; None if it is no well-formed record, or holds what may be an escape."""
        if self._is_escaped and "\\" in line:
            return None
        self._line = line
        try:
            return next(self._reader)
        except csv.Error:
            self._line = None
            return None


def strict(first: str, lines: Lines, dialect: Dialect, max_chars: int = MAX_RECORD_CHARS) -> Reading:
    r"""Read the record that begins with a line, as it stands or with backslash escapes.

    >>> lines = Lines(['two\n', 'lines",c\n', 'next'], LetterTally())
    >>> strict('a,"', lines, Dialect(delimiter=",")).values
    ['a', 'two\nlines', 'c']
    """
    taken = [first]
    is_marked = False

    def feed() -> Iterator[str]:
        nonlocal is_marked
        line: str | None = first
        num_chars = 0
        while line is not None and num_chars <= max_chars:
            num_chars += len(line)
            if dialect.is_escaped and "\\" in line:
                is_marked = True
                line = _ESCAPE.sub(lambda match: _MARK_OF[match[1]], line)
            yield line
            if (line := lines.take()) is not None:
                taken.append(line)

    try:
        values = next(csv.reader(feed(), delimiter=dialect.delimiter, strict=True))
    except csv.Error:
        return Reading(None, taken)
    return Reading([value.translate(_UNMARKED) for value in values] if is_marked else values, taken)


def is_clean(record: str, dialect: Dialect) -> bool:
    """Whether quotes stand only around fields and, doubled, within them, as writers put them.

    >>> is_clean('ann,"a ""b"" c"', Dialect(delimiter=",")), is_clean('ann,b"', Dialect(delimiter=","))
    (True, False)
    """
    delimiter = re.escape(dialect.delimiter)
    field = f'(?:"(?:[^"]|"")*+"|[^"{delimiter}]*+)'
    return re.fullmatch(f"{field}(?:{delimiter}{field})*+[\r\n]*", record) is not None


def literal(line: str, dialect: Dialect) -> Reading:
    """Read a line in which quotes are text; it is believed if every field has single quotes, in pairs.

    >>> literal('ann,"Why?" I ask.', Dialect(delimiter=",")).values
    ['ann', '"Why?" I ask.']
    """
    values = line.rstrip("\r\n").split(dialect.delimiter)
    is_odd = any(value.count('"') % 2 or '""' in value for value in values)
    return Reading(None if is_odd else values, [line])


def lenient(first: str, lines: Lines, dialect: Dialect, is_doubled: bool = True) -> Reading:
    """Read the record that begins with a line, taking quotes that end no field as text.

    Args:
        first: the line.
        lines: what follows it.
        dialect: how the file is written.
        is_doubled: two quotes before a separator are a quote of the text; otherwise a quote of the text and the end.

    >>> lenient('ann,"5" nail?",yes', Lines([], LetterTally()), Dialect(delimiter=",")).values
    ['ann', '5" nail?', 'yes']
    """
    # Spaces between the quote that closes and the separator are no text.
    end = re.compile(f'("+) *(?={re.escape(dialect.delimiter)}|[\r\n]|$)')
    values: list[str] = []
    taken = [first]
    line, place = first, 0
    while True:
        if not line.startswith('"', place):
            stop = line.find(dialect.delimiter, place)
            if stop < 0:
                return Reading([*values, line[place:].rstrip("\r\n")], taken)
            values.append(line[place:stop])
            place = stop + 1
            continue
        place += 1
        parts: list[str] = []
        while (match := _closing(end, line, place, is_doubled)) is None:
            parts.append(line[place:])
            following = lines.take() if len(taken) < _LENIENT_LINES else None
            if following is None:
                return Reading(None, taken)
            taken.append(following)
            line, place = following, 0
        parts.append(line[place : match.end(1) - 1])
        values.append("".join(parts).replace('""', '"'))
        place = match.end()
        if not line.startswith(dialect.delimiter, place):
            return Reading(values, taken)
        place += 1


def _closing(end: re.Pattern[str], line: str, place: int, is_doubled: bool) -> re.Match[str] | None:
    """The quotes that end a field: an odd number, of which the last closes; in an even number all are text."""
    found = end.finditer(line, place)
    return next((match for match in found if not is_doubled or len(match[1]) % 2), None)
