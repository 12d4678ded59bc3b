"""Read raw records from files, one at a time: JSON, CSV, TSV, XML, Parquet, Arrow and Excel, plain or compressed.

A record that cannot be read becomes a `Rejected` with file, line and reason, and reading goes on with the next one:
every row of a file is one `Record` or one `Rejected`. What makes the file as a whole unreadable (a folder in its
place, another encoding, a broken archive) is a `SourceError`.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from fedllm_data.errors import ConfigError, SourceError
from fedllm_data.source import Rejected
from fedllm_data.upstream.compressed_files import COMPRESSIONS, DAMAGED, bare_name, decompressed, is_damage
from fedllm_data.upstream.encodings import LetterTally, as_utf8, check_encoding, encoding_of_head, is_surely_utf8
from fedllm_data.upstream.raw import AS_SEEN, RawFile, ReadSettings, Record
from fedllm_data.upstream.read_counts import counts_in_progress
from fedllm_data.upstream.readers.csv_form import check_delimiter
from fedllm_data.upstream.readers.csv_rows import read_csv, read_tsv
from fedllm_data.upstream.readers.json_rows import read_json
from fedllm_data.upstream.readers.sheet_rows import read_workbook
from fedllm_data.upstream.readers.table_rows import read_arrow, read_parquet
from fedllm_data.upstream.readers.xml_rows import read_xml

__all__ = ["AS_SEEN", "ReadSettings", "Record", "check_settings", "data_files", "read_records", "read_stream"]

_HEAD_BYTES = 4096
_UTF8_NAMES = ("utf-8", "utf8", "utf-8-sig", "ascii", "us-ascii")


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
    found = sorted(file for file in path.rglob("*") if file.is_file() and _suffix(file.name) in _READERS)
    if not found:
        raise SourceError(f"{path} is a folder without {', '.join(_READERS)} files; name the files")
    return found


def check_settings(settings: ReadSettings, paths: list[Path]) -> None:
    """Refuse settings that are wrong, or that no file would be read with.

    Raises:
        ConfigError: if a setting cannot be honoured.

    >>> check_settings(ReadSettings(delimiter=";"), [Path("rows.parquet")])
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: --delimiter is for .csv and .tsv files, and none of the files is one; leave it out
    """
    suffixes = {_suffix(path.name) for path in paths}
    for flag, value, kinds in (
        ("--delimiter", settings.delimiter, _DELIMITED),
        ("--encoding", settings.encoding, _TEXTS),
        ("--sheet", settings.sheet, _SHEETS),
    ):
        if value is not None and not suffixes & set(kinds):
            names = " and ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))
            raise ConfigError(f"{flag} is for {names} files, and none of the files is one; leave it out")
    if settings.delimiter is not None:
        check_delimiter(settings.delimiter)
    if settings.encoding is not None:
        check_encoding(settings.encoding)


def read_records(path: Path, settings: ReadSettings = AS_SEEN) -> Iterator[Record | Rejected]:
    """Yield the records of one file, in order.

    Args:
        path: a .jsonl, .ndjson, .json, .csv, .tsv, .xml, .parquet, .arrow, .feather or .xlsx file; may end in .gz,
            .bz2, .xz or .zst besides.
        settings: what the file does not show.

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
            yield from read_stream(file, path.name, place=str(path), settings=settings)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}; check the file") from error


def read_stream(
    stream: BinaryIO, name: str, place: str | None = None, settings: ReadSettings = AS_SEEN
) -> Iterator[Record | Rejected]:
    """Yield the records of an open file, in order.

    Args:
        stream: the file's bytes; one that can seek.
        name: what records call the file; its suffix tells the format.
        place: what errors call the file.
        settings: what the file does not show.

    Raises:
        SourceError: if the file has another format, is not UTF-8 or is damaged as a whole.

    >>> import io
    >>> [item.line for item in read_stream(io.BytesIO(b'{"a": 1}'), "rows.jsonl")]
    [1]
    """
    place = place or name
    reader = _reader_of(Path(name))
    suffix = _suffix(name)
    with ExitStack() as opened:
        try:
            content = decompressed(stream, name)
            if content is not stream:
                opened.enter_context(content)
            letters = LetterTally(is_settled=settings.encoding is not None)
            if suffix in _TEXTS:
                # The encoding that is named is that of files which are not UTF-8.
                is_named = settings.encoding is not None and not is_surely_utf8(content)
                encoding = str(settings.encoding) if is_named else encoding_of_head(_head(content), place)
                if encoding.lower().replace("_", "-") not in _UTF8_NAMES:
                    content = opened.enter_context(as_utf8(content, encoding, place))
                    letters.is_settled = True
            raw = RawFile(stream=content, name=name, place=place, suffix=suffix, settings=settings, letters=letters)
            counts = counts_in_progress()
            for item in reader(raw):
                if isinstance(item, Record):
                    counts.num_records += 1
                else:
                    counts.num_rejected += 1
                yield item
            letters.refuse_if_mostly_broken(place)
        except DAMAGED as error:
            raise SourceError(f"{place} cannot be read: {str(error)[:200]}; fetch it again") from error
        except OSError as error:
            if not is_damage(error):
                raise
            raise SourceError(f"{place} cannot be read: {str(error)[:200]}; fetch it again") from error


def _head(stream: BinaryIO) -> bytes:
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    return head


def _suffix(name: str) -> str:
    return Path(bare_name(name)).suffix


def _reader_of(path: Path) -> Callable[[RawFile], Iterator[Record | Rejected]]:
    suffix = _suffix(path.name)
    if path.is_dir() or suffix in _READERS:
        return _READERS.get(suffix, read_json)
    raise SourceError(
        f"{path} ends in {suffix or 'nothing'!r}; readable are {', '.join(_READERS)}, and {', '.join(COMPRESSIONS)} "
        "of these"
    )


_READERS: dict[str, Callable[[RawFile], Iterator[Record | Rejected]]] = {
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".xml": read_xml,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".xlsx": read_workbook,
}
_DELIMITED = (".csv", ".tsv")
_SHEETS = (".xlsx",)
_TEXTS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".xml")
