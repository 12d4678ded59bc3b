"""Read raw records from JSON lines, JSON, CSV, TSV, XML and Parquet files, plain or gzipped, one at a time.

A record that cannot be read becomes a `Rejected` with file, line and reason, and reading goes on with the next line.
What makes the file as a whole unreadable (a folder in its place, no UTF-8, a broken archive) is a `SourceError`.
"""

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from fedllm_data.errors import SourceError
from fedllm_data.source import Rejected

__all__ = ["Record", "data_files", "read_records", "read_stream"]

_MAX_FIELD_CHARS = 1 << 28
_QUOTED = re.compile(rb'"(?:[^"]|"")*"')


@dataclass(frozen=True, slots=True)
class Record:
    """One raw row and its place: the line in a text file, the row (from 1) in a Parquet or JSON file."""

    fields: dict[str, Any]
    file: str
    line: int


def data_files(path: Path) -> list[Path]:
    """Return the file itself, or the readable files under a folder, sorted.

    Raises:
        SourceError: if there is nothing of the kind.

    >>> data_files(Path("no/such/file.csv"))
    Traceback (most recent call last):
    fedllm_data.errors.SourceError: no/such/file.csv does not exist; check the path
    """
    if not path.exists():
        raise SourceError(f"{path} does not exist; check the path")
    if path.is_file():
        _reader_of(path)
        return [path]
    found = sorted(file for file in path.rglob("*") if file.is_file() and _suffix(file) in _READERS)
    if not found:
        raise SourceError(f"{path} is a folder without {', '.join(_READERS)} files; name the files")
    return found


def read_records(path: Path) -> Iterator[Record | Rejected]:
    """Yield the records of one file, in order.

    Args:
        path: a .jsonl, .json, .csv, .tsv, .xml or .parquet file; all but Parquet may end in .gz.

    Raises:
        SourceError: if the file is a folder, has another format, is not UTF-8 or is damaged as a whole.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     path = Path(place, "rows.jsonl")
    ...     _ = path.write_text('{"a": 1}' + chr(10) + '{"a": ')
    ...     [type(item).__name__ for item in read_records(path)]
    ['Record', 'Rejected']
    """
    if path.is_dir():
        raise SourceError(f"{path} is a folder, not a file; name the files in it")
    _reader_of(path)
    try:
        with path.open("rb") as file:
            yield from read_stream(file, path.name, place=str(path))
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}; check the file") from error


def read_stream(stream: BinaryIO, name: str, place: str | None = None) -> Iterator[Record | Rejected]:
    """Yield the records of an open file, in order.

    Args:
        stream: the file's bytes; Parquet and CSV need one that can seek.
        name: what records call the file; its suffix tells the format.
        place: what errors call the file.

    Raises:
        SourceError: if the file has another format, is not UTF-8 or is damaged as a whole.

    >>> [item.line for item in read_stream(io.BytesIO(b'{"a": 1}'), "rows.jsonl")]
    [1]
    """
    place = place or name
    reader = _reader_of(Path(name))
    try:
        stream = cast(BinaryIO, gzip.open(stream)) if name.lower().endswith(".gz") else stream
        if reader is not _read_parquet:
            _check_text(stream, place)
        yield from reader(stream, name)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SourceError(f"{place} cannot be read: {str(error)[:200]}; fetch it again") from error


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _reader_of(path: Path) -> Callable[[BinaryIO, str], Iterator[Record | Rejected]]:
    suffix = _suffix(path)
    if path.is_dir() or suffix in _READERS:
        return _READERS.get(suffix, _read_json_lines)
    raise SourceError(f"{path} ends in {suffix or 'nothing'!r}; readable are {', '.join(_READERS)}, and .gz of these")


def _check_text(stream: BinaryIO, place: str) -> None:
    head = stream.read(4096)
    stream.seek(0)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head:
        raise SourceError(f"{place} is not UTF-8 text (it looks like UTF-16 or binary); convert it to UTF-8")


def _read_json_lines(stream: BinaryIO, name: str) -> Iterator[Record | Rejected]:
    for number, line in enumerate(stream, start=1):
        if line.strip():
            yield _record_of(line, name, number)


def _record_of(line: bytes, name: str, number: int) -> Record | Rejected:
    try:
        fields = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        return Rejected(name, number, f"is not UTF-8 at byte {error.start} of the line")
    except ValueError as error:
        return Rejected(name, number, f"is not JSON: {str(error)[:100]}")
    except RecursionError:
        return Rejected(name, number, "is not JSON: nested too deeply")
    if not isinstance(fields, dict):
        return Rejected(name, number, f"is a JSON {type(fields).__name__}, not an object")
    return Record(fields, name, number)


def _read_json(stream: BinaryIO, name: str) -> Iterator[Record | Rejected]:
    """A JSON list of objects; a file that holds JSON lines under this name is read as such, line by line."""
    head = stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    stream.seek(0)
    if not head.startswith(b"["):
        yield from _read_json_lines(stream, name)
        return
    try:
        rows = json.loads(stream.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{name} is not a JSON list: {str(error)[:150]}; correct it, or give JSON lines") from error
    for number, fields in enumerate(rows, start=1):
        if isinstance(fields, dict):
            yield Record(fields, name, number)
        else:
            yield Rejected(name, number, f"is a JSON {type(fields).__name__}, not an object")


def _read_csv(
    stream: BinaryIO, name: str, delimiter: str = ",", quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
) -> Iterator[Record | Rejected]:
    csv.field_size_limit(_MAX_FIELD_CHARS)
    # Undecodable bytes become lone surrogates, which row validation rejects by line: the other rows stay usable.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, delimiter=delimiter, quoting=quoting, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise SourceError(f"{name} has no header line; give the names of the columns in its first line")
        if len(set(header)) < len(header):
            twice = next(column for column in header if header.count(column) > 1)
            raise SourceError(f"{name} names the column {twice[:60]!r} twice in its header; rename one")
        line = reader.line_num + 1
        for values in reader:
            if not values:
                pass
            elif len(values) != len(header):
                yield Rejected(name, line, f"has {len(values)} fields, the header has {len(header)}")
            else:
                yield Record(dict(zip(header, values, strict=True)), name, line)
            line = reader.line_num + 1
    except csv.Error as error:
        # Where a quote never closes, what follows cannot be told apart into rows any more.
        yield Rejected(name, reader.line_num, f"is not CSV from here on: {error}")
    finally:
        text.detach()  # the stream is the caller's to close


def _read_tsv(stream: BinaryIO, name: str) -> Iterator[Record | Rejected]:
    """Tab-separated values, with or without quoting: the format itself knows no quotes, spreadsheets write them."""
    quoting: Literal[0, 3] = csv.QUOTE_NONE if _has_bare_quotes(stream) else csv.QUOTE_MINIMAL
    stream.seek(0)
    yield from _read_csv(stream, name, delimiter="\t", quoting=quoting)


def _has_bare_quotes(stream: BinaryIO) -> bool:
    """Whether every line holds all fields and some field begins with a quote that does not close where it ends.

    Under quoting, the first means that no field spans lines or holds a tab, and the second that the file is damaged.
    """
    has_bare = False
    num_fields = 0
    for line in stream:
        fields = line.rstrip(b"\r\n").split(b"\t")
        if line.strip() and len(fields) != (num_fields or len(fields)):
            return False
        num_fields = num_fields or len(fields)
        has_bare = has_bare or any(field[:1] == b'"' and not _QUOTED.fullmatch(field) for field in fields)
    return has_bare


def _read_xml(stream: BinaryIO, name: str) -> Iterator[Record | Rejected]:
    """The attributes of every `<row>` element, as the public dumps of Stack Exchange store their tables."""
    from xml.etree import ElementTree

    number = 0
    try:
        root = None
        for event, element in ElementTree.iterparse(stream, events=("start", "end")):
            root = element if root is None else root
            if event == "end" and element.tag == "row":
                number += 1
                yield Record(dict(element.attrib), name, number)
                root.clear()  # else the tree grows with the file
    except ElementTree.ParseError as error:
        # What follows cannot be told apart into rows any more.
        yield Rejected(name, number + 1, f"is not XML from here on: {error}")


def _read_parquet(stream: BinaryIO, name: str) -> Iterator[Record | Rejected]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from fedllm_data.upstream.arrow_values import rows_of_batch

    try:
        number = 0
        for batch in pq.ParquetFile(stream).iter_batches(batch_size=1000):
            for fields in rows_of_batch(batch):
                number += 1
                yield Record(fields, name, number)
    except (pa.ArrowException, ValueError) as error:
        raise SourceError(f"{name} is not a readable Parquet file: {str(error)[:150]}; fetch it again") from error


_READERS: dict[str, Callable[[BinaryIO, str], Iterator[Record | Rejected]]] = {
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".xml": _read_xml,
    ".parquet": _read_parquet,
}
