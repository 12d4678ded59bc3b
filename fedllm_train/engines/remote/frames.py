"""Frames: the one form in which bytes go between a server and an organisation's worker.

A frame is two lengths, a JSON object (the header) and raw bytes (the body). Nothing is ever unpickled. Whoever reads
says how long a header and a body may be, so that a hostile length costs no memory. Imports no torch.
"""

import json
import math
import socket
import struct
from collections.abc import Mapping
from typing import Any, NoReturn

from fedllm_data.errors import FedLLMError

__all__ = ["MAX_BODY", "MAX_HEADER", "FrameError", "LineClosed", "frame_bytes", "receive_frame", "send_frame"]

MAX_HEADER = 8 << 20
"""Longest header in bytes: ids and facts of some ten thousand clients."""
MAX_BODY = (2 << 30) - 1
"""Longest body in bytes; one of Flower's messages holds no more."""

_LENGTHS = struct.Struct(">IQ")
_PIECE = 1 << 20


class FrameError(FedLLMError):
    """What came over a line is no frame."""


class LineClosed(FedLLMError):
    """The other end of a line left between two frames."""


def frame_bytes(header: Mapping[str, Any]) -> bytes:
    """Return a header as it is sent.

    Raises:
        FrameError: if it holds what JSON has no form for, or is too long.

    >>> frame_bytes({"kind": "hello"})
    b'{"kind": "hello"}'
    """
    try:
        text = json.dumps(header, allow_nan=False, ensure_ascii=True).encode()
    except (TypeError, ValueError) as error:
        raise FrameError(f"a header cannot be sent: {error}") from error
    if len(text) > MAX_HEADER:
        raise FrameError(f"a header of {len(text):,} bytes is longer than the {MAX_HEADER:,} that are allowed")
    return text


def send_frame(line: socket.socket, header: Mapping[str, Any], body: bytes | memoryview = b"") -> None:
    """Send one frame.

    Args:
        line: a connected stream socket.
        header: JSON-ready.
        body: at most `MAX_BODY` bytes.

    Raises:
        FrameError: if it cannot be sent as a frame.
        OSError: if the line is gone.
    """
    text = frame_bytes(header)
    if len(body) > MAX_BODY:
        raise FrameError(f"a body of {len(body):,} bytes is longer than the {MAX_BODY:,} that are allowed")
    line.sendall(_LENGTHS.pack(len(text), len(body)) + text)
    if len(body):
        line.sendall(body)


def receive_frame(
    line: socket.socket, *, max_header: int = MAX_HEADER, max_body: int = MAX_BODY
) -> tuple[dict[str, Any], bytearray]:
    """Receive one frame.

    Args:
        line: a connected stream socket.
        max_header: longest header in bytes.
        max_body: longest body in bytes.

    Returns:
        The header, and the body.

    Raises:
        LineClosed: if the other end left before the frame began.
        FrameError: if what came is no frame, too long, or ends in its middle.
        OSError: if the line is gone, or its timeout has passed.
    """
    start = _read(line, _LENGTHS.size, "lengths", may_end=True)
    header_length, body_length = _LENGTHS.unpack(start)
    for what, length, most in (("header", header_length, max_header), ("body", body_length, max_body)):
        if length > most:
            raise FrameError(f"a {what} of {length:,} bytes is longer than the {most:,} that are allowed")
    header = _object_of(_read(line, header_length, "header"))
    return header, _read(line, body_length, "body")


def _read(line: socket.socket, length: int, what: str, *, may_end: bool = False) -> bytearray:
    """Read exactly so many bytes; memory grows with what has come, not with what was announced."""
    content = bytearray()
    while len(content) < length:
        room = min(length - len(content), max(_PIECE, len(content)))
        before = len(content)
        content.extend(bytes(room))
        with memoryview(content) as view:
            got = line.recv_into(view[before:])
        del content[before + got :]
        if not got:
            if may_end and not content:
                raise LineClosed("the other end of the line has left")
            raise FrameError(f"the line ended after {len(content):,} of {length:,} bytes of a {what}")
    return content


def _object_of(text: bytearray) -> dict[str, Any]:
    """Parse a header, which must be one JSON object that names no key twice and holds finite numbers."""
    try:
        header = json.loads(
            text, parse_float=_finite, parse_constant=_refuse_constant, object_pairs_hook=_without_twins
        )
    except FrameError:
        raise
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a header is not JSON: {str(error).splitlines()[0][:120]}") from None
    if not isinstance(header, dict):
        raise FrameError(f"a header is a JSON {type(header).__name__}, not an object")
    return header


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise FrameError("a header holds a number that is too large")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise FrameError(f"a header holds {name}, which is no JSON")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise FrameError("a header names a key twice")
    return found
