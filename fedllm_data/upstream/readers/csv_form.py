"""What separates the columns of a CSV file, read off its beginning.

A separator counts if the header line holds it and the rows below have as many fields as the header. The one of the
file's ending is kept unless another one fits better; where several others fit equally well, the file is refused.
"""

import csv
import io
import re
from collections.abc import Sequence
from typing import BinaryIO

from fedllm_data.errors import ConfigError, SourceError

__all__ = ["DELIMITER_NAMES", "check_delimiter", "sample_lines", "separator_line", "sniff_delimiter"]

DELIMITER_NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|"}
"""Separators that are hard to type, by name."""
_CANDIDATES = (",", ";", "\t", "|")
_SAMPLE_BYTES = 1 << 20
_SAMPLE_RECORDS = 200
_MARGIN = 0.1
"""How much better another separator must fit than the one of the file's ending."""
_SEPARATOR_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?[\r\n]*')


def check_delimiter(delimiter: str) -> str:
    r"""Return the separator that a flag names, as one character.

    Raises:
        ConfigError: if it is no single character, or one that CSV needs for itself.

    >>> check_delimiter(";"), check_delimiter("tab")
    (';', '\t')
    """
    character = DELIMITER_NAMES.get(delimiter.lower(), delimiter)
    if len(character) != 1 or character in '"\r\n\0\\' or not character.isascii():
        raise ConfigError(
            f"--delimiter {delimiter[:40]!r} is no single character that can separate columns; give ';' or a name "
            f"({', '.join(name for name in DELIMITER_NAMES if name.isalpha())})"
        )
    return character


def sample_lines(stream: BinaryIO) -> list[str]:
    r"""Return the first lines of a file, without one that the sample cuts, and go back to its start.

    >>> sample_lines(io.BytesIO(b"a,b" + bytes([10]) + b"1,2"))
    ['a,b\n', '1,2']
    """
    head = stream.read(_SAMPLE_BYTES)
    stream.seek(0)
    # As the reader itself parts lines: at line ends alone, not at every character that `splitlines` knows.
    lines = list(io.StringIO(head.decode("utf-8-sig", "surrogateescape"), newline=""))
    return lines[:-1] if len(head) == _SAMPLE_BYTES and len(lines) > 1 else lines


def separator_line(line: str) -> str | None:
    """Return the separator that a first line `sep=;` names, as spreadsheets write it; None for any other line.

    >>> separator_line("sep=;"), separator_line("who;what")
    (';', None)
    """
    match = _SEPARATOR_LINE.fullmatch(line)
    return match[1] if match else None


def sniff_delimiter(lines: Sequence[str], usual: str, place: str) -> str:
    r"""Return what separates the columns.

    Args:
        lines: the beginning of the file.
        usual: the separator of the file's ending, kept unless another one fits better.
        place: what errors call the file.

    Raises:
        SourceError: if several others fit equally well.

    >>> sniff_delimiter(["who;what\n", "ann;Hi, there\n", "bob;Hello\n"], ",", "rows.csv")
    ';'
    """
    fits = {delimiter: _fit(lines, delimiter) for delimiter in dict.fromkeys((usual, *_CANDIDATES))}
    best = max(fits.values())
    if best == 0 or fits[usual] >= best - _MARGIN:
        return usual
    good = [delimiter for delimiter, fit in fits.items() if fit >= best - _MARGIN]
    if len(good) > 1:
        raise SourceError(
            f"{place}: its columns may be separated by {' or '.join(map(repr, good))}; say which by --delimiter"
        )
    return good[0]


def _fit(lines: Sequence[str], delimiter: str) -> float:
    """The fraction of rows with as many fields as the header, which counts as one; 0 where it is one field."""
    num_fields = num_rows = num_fitting = 0
    # Not strict: here a quote that does not match must not end the sample.
    for values in csv.reader(lines, delimiter=delimiter):
        if not num_fields:
            num_fields = len(values)
        elif values:
            num_rows += 1
            num_fitting += len(values) == num_fields
        if num_rows == _SAMPLE_RECORDS:
            break
    if num_fields < 2:
        return 0.0
    return (num_fitting + 1) / (num_rows + 1)
