"""The attributes of every `<row>` element, as the public dumps of Stack Exchange store their tables.

The file is parsed as a stream. Where it is not well formed, the rest is read row by row: `<` cannot stand in an
attribute, so every `<row` begins an element, and a damaged one costs itself.
"""

import io
import logging
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO
from xml.etree import ElementTree

from fedllm_data.source import Rejected
from fedllm_data.upstream.raw import RawFile, Record

__all__ = ["read_xml"]

_LOG = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 20
_ROW = re.compile(rb"<row(?=[\s/>])")
_MARK = b"<row"
_DECLARED = re.compile(rb"""<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z][\w.-]*)["']""")


def read_xml(raw: RawFile) -> Iterator[Record | Rejected]:
    """Yield the rows of an XML file; the place of a row is its number, from 1."""
    encoding = "utf-8" if raw.letters.is_settled else _declared(raw.stream)
    # Text that was brought into UTF-8 may still declare what it was in before.
    parser = ElementTree.XMLParser(encoding="utf-8") if raw.letters.is_settled else None
    number = 0
    problem = "a row begins within another one"
    try:
        root = None
        is_open = False
        for event, element in ElementTree.iterparse(raw.stream, events=("start", "end"), parser=parser):
            root = element if root is None else root
            if element.tag != "row":
                continue
            if event == "start" and is_open:
                break  # the end of the row before was damaged
            is_open = event == "start"
            if event == "end":
                number += 1
                yield Record(dict(element.attrib), raw.name, number)
                root.clear()  # else the tree grows with the file
        else:
            return
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: an encoding nobody knows
        problem = str(error)
    raw.stream.seek(0)
    num_rows = 0
    for piece in _pieces(raw.stream):
        num_rows += 1
        if num_rows <= number:
            continue
        attributes = _attributes(piece, encoding)
        if encoding.lower() == "utf-8" and not piece.isascii():
            raw.letters.see(piece, num_rows)
        if isinstance(attributes, str):
            yield Rejected(raw.name, num_rows, attributes)
        else:
            yield Record(attributes, raw.name, num_rows)
    if num_rows == number:
        _LOG.warning(
            "%s is damaged after its %d rows (%s); fetch it again if more are due", raw.place, number, problem
        )


def _declared(stream: BinaryIO) -> str:
    match = _DECLARED.search(stream.read(1024))
    stream.seek(0)
    return match[1].decode() if match else "utf-8"


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    """What begins with `<row`, up to before the next one."""
    waiting = b""
    while chunk := stream.read(_CHUNK_BYTES):
        waiting += chunk
        starts = [match.start() for match in _ROW.finditer(waiting)]
        yield from (waiting[start:end] for start, end in pairwise(starts))
        waiting = waiting[starts[-1] :] if starts else waiting[-len(_MARK) :]
    if waiting.endswith(_MARK):  # cut off within its first row after the last whole one
        waiting, cut = waiting.removesuffix(_MARK), _MARK
        yield from filter(None, (waiting if _ROW.match(waiting) else b"", cut))
    elif _ROW.match(waiting):
        yield waiting


def _attributes(piece: bytes, encoding: str) -> dict[str, str] | str:
    """The attributes of the element that a piece begins with, or what is wrong with it."""
    try:
        # What follows the element, such as the end of the table, is an error, which comes after the element.
        for _, element in ElementTree.iterparse(io.BytesIO(piece.decode(encoding).encode())):
            if element.tag == "row":
                return dict(element.attrib)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        return f"is not XML: {str(error)[:100]} of the row"
    return "is not XML: the row is cut off"
