"""The rows of JSON files: an object a line, or one document, whatever the ending (.jsonl, .ndjson, .json) says.

An object a line costs one row where it is damaged. Two objects on one line, as a lost line end leaves them, are two
rows. A document is a list of objects or another form of `json_forms.py`, or objects that go over several lines each;
of the latter one that is damaged costs itself, while a damaged list is refused with the line.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

from fedllm_data.errors import SourceError
from fedllm_data.source import Rejected
from fedllm_data.upstream.raw import RawFile, Record
from fedllm_data.upstream.readers.json_forms import is_list_of_rows, rows_of_document

__all__ = ["read_json"]

_BOM = b"\xef\xbb\xbf"
_START = re.compile(r"^\{", re.MULTILINE)
_GAP = re.compile(r"[\s,]*[^\s{]?[\s,]*(?=\{)")
"""What may stand between two objects on one line: space, a comma, or the byte that was a line end."""
_SEARCHED_LINES = 1_000
_BETWEEN = " \t\r\n,"
_SPACE = re.compile(r"[ \t\r\n,]*")


class _Doubled(dict[str, Any]):
    """An object that names a key twice; of the two values the first would vanish without a word."""

    key = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) == len(pairs):
        return fields
    doubled = _Doubled(fields)
    names = [name for name, _ in pairs]
    doubled.key = next(name for name in names if names.count(name) > 1)
    return doubled


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def read_json(raw: RawFile) -> Iterator[Record | Rejected]:
    """Yield the rows of a JSON file, in either form."""
    if _is_document(raw):
        yield from _read_document(raw)
    else:
        yield from _read_lines(raw)


def _is_document(raw: RawFile) -> bool:
    """Whether the file is one document, or objects over several lines, by its first two lines that say something."""
    first, second = _next_line(raw.stream).removeprefix(_BOM), _next_line(raw.stream)
    raw.stream.seek(0)
    if not second and raw.suffix == ".json":
        return True
    whole = _parsed(first)
    if isinstance(whole, dict | list) and second:
        return False
    if isinstance(whole, dict):
        # The only line of a .jsonl file is a row, unless nothing but lists is in it.
        return all(isinstance(value, list) for value in whole.values())
    if isinstance(whole, list):
        return True
    if not second:
        return False
    if first.lstrip().startswith((b"[", b"{")):
        # A file with an object a line whose first line is broken has a sound second one; a lone `[` begins a list.
        return first.strip() == b"[" or not isinstance(_parsed(second), dict)
    # Objects over several lines may follow a first one that is broken.
    is_spread = any(line.rstrip() == b"{" for line in islice(raw.stream, _SEARCHED_LINES))
    raw.stream.seek(0)
    return is_spread


def _next_line(stream: BinaryIO) -> bytes:
    for line in stream:
        if line.strip():
            return line
    return b""


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _read_lines(raw: RawFile) -> Iterator[Record | Rejected]:
    for number, line in enumerate(raw.stream, start=1):
        if not line.strip():
            continue
        if not line.isascii() and not raw.letters.see(line, number):
            yield Rejected(raw.name, number, f"is not UTF-8 at byte {_first_fault(line)} of the line")
            continue
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        try:
            fields = _DECODER.decode(text)
        except ValueError as error:
            yield from _several(text, f"is not JSON: {str(error)[:100]}", raw.name, number)
        except RecursionError:
            yield Rejected(raw.name, number, "is not JSON: nested too deeply")
        else:
            # A line may hold a list of rows, as one that was written batch by batch does.
            rows = fields if isinstance(fields, list) and is_list_of_rows(fields) else [fields]
            yield from (_item(row, raw.name, number) for row in rows)


def _first_fault(line: bytes) -> int:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _item(fields: object, name: str, number: int) -> Record | Rejected:
    if isinstance(fields, dict):
        key = _doubled_key(fields)
        return Record(fields, name, number) if key is None else Rejected(name, number, f"names the key {key!r} twice")
    return Rejected(name, number, f"is a JSON {type(fields).__name__}, not an object")


def _doubled_key(value: object) -> str | None:
    """The first key that an object anywhere inside a value names twice."""
    waiting = [value]
    while waiting:  # not by recursion: a tree of messages may be hundreds of levels deep
        inside = waiting.pop()
        if isinstance(inside, _Doubled):
            return inside.key[:60]
        items = inside.values() if isinstance(inside, dict) else inside if isinstance(inside, list) else ()
        waiting += [item for item in items if isinstance(item, dict | list)]
    return None


def _several(text: str, reason: str, name: str, number: int) -> Iterator[Record | Rejected]:
    """The objects of a line that is no single one; what is left after them is one rejected row."""
    found: list[dict[str, Any]] = []
    place = _past_space(text, 0)
    while place < len(text):
        try:
            fields, end = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            break
        if not isinstance(fields, dict):
            break
        found.append(fields)
        gap = _GAP.match(text, end)
        place = gap.end() if gap else _past_space(text, end)
        if gap is None:
            break
    rest = text[place:].strip()
    if rest and "{" not in rest and "\n" not in rest and found:
        found.pop()  # what follows the last object is part of its row, which is damaged
    yield from (_item(fields, name, number) for fields in found)
    if rest:
        yield Rejected(name, number, reason)


def _past_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


def _read_document(raw: RawFile) -> Iterator[Record | Rejected]:
    content = raw.stream.read().removeprefix(_BOM)
    if not content.isascii():
        raw.letters.see_objects(content)
    # Undecodable bytes become lone surrogates, which row validation rejects by row.
    text = content.decode("utf-8", "surrogateescape")
    try:
        document = _DECODER.decode(text)
    except (json.JSONDecodeError, RecursionError) as error:
        if text.lstrip().startswith("["):
            raise SourceError(
                f"{raw.place} is not a JSON list: {str(error)[:150]}; correct it, or give an object a line"
            ) from error
        yield from _read_spread_objects(text, raw.name)
        return
    except ValueError as error:  # a number of more digits than Python reads
        raise SourceError(f"{raw.place} is not a JSON list: {str(error)[:150]}; correct it") from error
    if isinstance(document, _Doubled):
        raise SourceError(f"{raw.place} names {document.key[:60]!r} twice; leave one out")
    for number, fields in enumerate(rows_of_document(document, raw.place), start=1):
        yield _item(fields, raw.name, number)


def _read_spread_objects(text: str, name: str) -> Iterator[Record | Rejected]:
    """Objects one after another, each over several lines; where one is damaged, the next begins a line."""
    objects: list[tuple[Any, int]] = []
    place = _past_space(text, 0)
    try:
        while place < len(text):
            fields, end = _DECODER.raw_decode(text, place)
            objects.append((fields, place))
            place = _past_space(text, end)
    except (ValueError, RecursionError):
        starts = sorted({_past_space(text, 0), *(match.start() for match in _START.finditer(text))})
    else:
        lines = _LineNumbers(text)
        for fields, start in objects:
            yield _item(fields, name, lines.of(start))
        return
    lines = _LineNumbers(text)
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        try:
            yield _item(_DECODER.decode(text[start:end].rstrip(_BETWEEN)), name, lines.of(start))
        except (ValueError, RecursionError) as error:
            yield from _several(text[start:end], f"is not JSON: {str(error)[:100]}", name, lines.of(start))


class _LineNumbers:
    """The line of places in a text, asked for in order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place, self._line = 0, 1

    def of(self, place: int) -> int:
        self._line += self._text.count("\n", self._place, place)
        self._place = place
        return self._line
