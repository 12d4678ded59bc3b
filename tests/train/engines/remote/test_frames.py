"""Frames: what is sent is received; whatever else comes is refused in one line, without hanging or eating memory."""

import json
import random
import socket
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_train.engines.remote.frames import FrameError, LineClosed, frame_bytes, receive_frame, send_frame

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def received(content, **limits):
    """What is received of some bytes, after which the line is closed."""
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(10)
        sender = threading.Thread(target=lambda: (there.sendall(content), there.shutdown(socket.SHUT_WR)))
        sender.start()
        try:
            return receive_frame(here, **limits)
        finally:
            here.close()
            sender.join()


@given(st.dictionaries(st.text(), PLAIN, max_size=5), st.binary(max_size=5000))
@settings(max_examples=60, deadline=None)
def test_what_is_sent_is_received(header, body):
    here, there = socket.socketpair()
    with here, there:
        send_frame(here, header, body)
        assert receive_frame(there) == (header, body)


def test_a_body_of_many_pieces_is_whole():
    body = random.Random(0).randbytes(5_000_000)
    here, there = socket.socketpair()
    with here, there:
        sender = threading.Thread(target=send_frame, args=(here, {"a": 1}, body))
        sender.start()
        assert receive_frame(there) == ({"a": 1}, body)
        sender.join()


def framed(header, body=b""):
    return struct.pack(">IQ", len(header), len(body)) + header + body


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\0\0", "ended after 2 of 12 bytes of a lengths"),
        (framed(b'{"a": 1}')[:-3], "ended after 5 of 8 bytes of a header"),
        (framed(b"{}", b"abc")[:-1], "ended after 2 of 3 bytes of a body"),
        (framed(b"[1]"), "a JSON list, not an object"),
        (framed(b"{"), "is not JSON"),
        (framed(b"\xff\xfe{}"), "is not JSON"),
        (framed(b'{"a": NaN}'), "holds NaN"),
        (framed(b'{"a": -Infinity}'), "holds -Infinity"),
        (framed(b'{"a": 1, "a": 2}'), "names a key twice"),
        (framed(b'{"a":' * 100_000), "is not JSON"),
        (framed(b"[" * 500_000), "is not JSON"),
        (framed(b'{"a":' + b"1" * 5000 + b"}"), "is not JSON"),
        (struct.pack(">IQ", 4_000_000_000, 0), "header of 4,000,000,000 bytes is longer"),
        (struct.pack(">IQ", 2, 2**62) + b"{}", "bytes is longer than"),
    ],
)
def test_what_is_no_frame_is_refused_by_name(content, reason):
    with pytest.raises(FrameError, match=reason) as error:
        received(content)
    assert "\n" not in str(error.value)


def test_an_announced_length_costs_no_memory():
    with pytest.raises(FrameError, match="ended after 3 of 2,000,000,000"):
        received(struct.pack(">IQ", 2, 2_000_000_000) + b"{}" + b"abc")


def test_leaving_between_two_frames_is_no_error_of_the_frame():
    with pytest.raises(LineClosed):
        received(b"")


@pytest.mark.parametrize("header", [{"a": float("nan")}, {"a": {1, 2}}, {"a": b"x"}, {"a": "x" * 9_000_000}])
def test_what_json_has_no_form_for_is_not_sent(header):
    with pytest.raises(FrameError):
        frame_bytes(header)


def fuzzed(rng):
    """Bytes that are nearly a frame."""
    header = json.dumps(
        {"kind": rng.choice(["hello", "work", "begin", "stop", "x"]), "run": rng.choice(["ab" * 8, 1, None])}
    )
    content = bytearray(framed(header.encode(), rng.randbytes(rng.randrange(40))))
    for _ in range(rng.randrange(1, 6)):
        kind = rng.randrange(4)
        if kind == 0 and content:
            content[rng.randrange(len(content))] = rng.randrange(256)
        elif kind == 1 and content:
            del content[rng.randrange(len(content)) :]
        elif kind == 2:
            content[rng.randrange(len(content) + 1) : 0] = rng.randbytes(rng.randrange(8))
        elif kind == 3 and content:
            content[rng.randrange(min(12, len(content)))] = 0
    return bytes(content)


@pytest.mark.parametrize("number", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_drawn_bytes_are_a_frame_or_refused(number):
    rng = random.Random(number)
    for _ in range(number):
        try:
            header, body = received(fuzzed(rng), max_body=1 << 20)
        except (FrameError, LineClosed):
            continue
        assert isinstance(header, dict)
        assert isinstance(body, bytearray)


@pytest.mark.parametrize("text", [b'{"a": 1e400}', b'{"a": [-1e999]}'])
def test_a_number_that_becomes_infinite_is_refused(text):
    with pytest.raises(FrameError, match="too large"):
        received(len(text).to_bytes(4, "big") + bytes(8) + text)
