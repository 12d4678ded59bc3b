"""Frames as `fedllm_train/engines/remote/frames.py` has them; this environment does not have that package."""

import json
import struct

LENGTHS = struct.Struct(">IQ")
MAX_HEADER, MAX_BODY = 8 << 20, (2 << 30) - 1


def send(line, header, body=b""):
    """Send one frame over a socket."""
    text = json.dumps(header, allow_nan=False).encode()
    line.sendall(LENGTHS.pack(len(text), len(body)) + text)
    if body:
        line.sendall(body)


def receive(line):
    """Receive one frame from a socket; EOFError where the other end has left."""
    header_length, body_length = LENGTHS.unpack(read(line, LENGTHS.size))
    if header_length > MAX_HEADER or body_length > MAX_BODY:
        raise ValueError(f"a frame of {header_length} and {body_length} bytes is too long")
    header = json.loads(read(line, header_length))
    return header, bytes(read(line, body_length))


def read(line, length):
    """Read exactly so many bytes."""
    content = bytearray()
    while len(content) < length:
        piece = line.recv(min(length - len(content), 1 << 20))
        if not piece:
            raise EOFError("the other end has left")
        content += piece
    return content
