"""The rows of Excel workbooks (.xlsx): the cells of one sheet, below a line with the names of the columns.

Needs the extra `xlsx`. A formula counts as the value that the program which saved the file last calculated.
"""

import datetime
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import ParseError

from fedllm_data.errors import ConfigError, SourceError
from fedllm_data.source import Rejected
from fedllm_data.upstream.plain_values import plain_value
from fedllm_data.upstream.raw import RawFile, Record
from fedllm_data.upstream.readers.column_names import column_names

__all__ = ["read_workbook"]

_DAMAGED = (zipfile.BadZipFile, zlib.error, ParseError, KeyError, ValueError, TypeError, AttributeError, EOFError)
"""What openpyxl raises on files that are no workbooks; the archive's own checksums are verified before."""


def read_workbook(raw: RawFile) -> Iterator[Record | Rejected]:
    """Yield the rows of a workbook's only sheet that holds any, or of the one that the settings name."""
    try:
        import openpyxl
    except ImportError as error:
        raise ConfigError(
            f"{raw.place} is an Excel workbook; reading it needs openpyxl: pip install 'fedllm-commons[xlsx]'"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and extensions, which hold no values
            if (broken := zipfile.ZipFile(raw.stream).testzip()) is not None:
                raise zipfile.BadZipFile(f"{broken} has a wrong checksum")
            book = openpyxl.load_workbook(raw.stream, read_only=True, data_only=True)
            sheets = {sheet.title: list(sheet.iter_rows(values_only=True)) for sheet in book.worksheets}
            book.close()
    except _DAMAGED as error:
        raise SourceError(f"{raw.place} is not a readable .xlsx file: {str(error)[:150]}; save it again") from error
    rows = [
        (number, [_value(cell) for cell in cells])
        for number, cells in enumerate(_sheet(sheets, raw), start=1)
        if any(cell is not None for cell in cells)
    ]
    if not rows:
        raise SourceError(f"{raw.place} has no header line; give the names of the columns in its first line")
    header = _header(rows[0][1], raw.place)
    for number, values in rows[1:]:
        extra = [value for value in values[len(header) :] if value is not None]
        if extra:
            yield Rejected(raw.name, number, f"has a cell to the right of the {len(header)} named columns")
        else:
            values += [None] * (len(header) - len(values))
            yield Record(dict(zip(header, values, strict=False)), raw.name, number)


def _sheet(sheets: dict[str, list[Any]], raw: RawFile) -> list[Any]:
    wanted = raw.settings.sheet
    if wanted is not None and wanted not in sheets:
        raise SourceError(f"{raw.place} has no sheet {wanted[:60]!r}; it has {', '.join(map(repr, sheets))}")
    used = [name for name, rows in sheets.items() if any(cell is not None for row in rows for cell in row)]
    if wanted is None and len(used) > 1:
        names = ", ".join(repr(name[:40]) for name in used[:8])
        raise SourceError(f"{raw.place} holds the sheets {names}; name one with --sheet")
    name = wanted or (used[0] if used else "")
    return sheets.get(name, [])


def _header(values: list[Any], place: str) -> list[str]:
    while values and values[-1] is None:
        values = values[:-1]
    return column_names(["" if value is None else str(value) for value in values], place)


def _value(cell: Any) -> Any:
    """A cell's value; Excel has no dates without a time, and midnight stands for the day."""
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()
    return plain_value(cell)
