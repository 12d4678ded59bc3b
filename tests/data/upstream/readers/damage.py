"""Files with drawn rows, in every format, and a drawn damage: a byte replaced, inserted or deleted, or the end cut."""

import io
from dataclasses import dataclass

from hypothesis import strategies as st

from fedllm_data.errors import SourceError
from fedllm_data.upstream.records import Record, read_stream

COLUMNS = ("who", "q", "r")
WORDS = st.sampled_from(
    ['"', '""', ",", ";", "\t", "\n", "\\", "'", " ", "a", "Why?", '5"', "été", "语", "{", "}", "<b>", "\u2028"]
)
TEXTS = st.lists(WORDS, max_size=6).map("".join) | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
LINES = TEXTS.map(lambda text: text.replace("\n", " ").replace("\r", " "))


def rows_of(texts, min_size=0):
    """Lists of rows with distinct first columns, so that no two rows are equal."""
    rows = st.lists(st.tuples(texts, texts), min_size=min_size, max_size=7)
    return rows.map(lambda found: [(f"w{index}", *values) for index, values in enumerate(found)])


@dataclass(frozen=True)
class Damage:
    """What happened to a file, and where."""

    content: bytes
    first: int
    """The first byte of the whole file that is concerned."""
    last: int
    """The last one, which may be the byte before the first."""


@st.composite
def damages(draw, content, start):
    """One damage to `content` at or after the byte `start`."""
    place = draw(st.integers(start, len(content) - 1))
    byte = draw(st.sampled_from([b'"', b",", b"\n", b"\t", b"\\", b"{", b"}", b"<", b"\xff", b"\xe9", b"\0", b"x"]))
    kind = draw(st.sampled_from(["replace", "insert", "delete", "cut"]))
    if kind == "cut":
        return Damage(content[:place], place, len(content))
    after = place if kind == "insert" else place + 1
    return Damage(
        content[:place] + (b"" if kind == "delete" else byte) + content[after:], place - (kind == "insert"), place
    )


def read(content, name, **settings):
    return list(read_stream(io.BytesIO(content), name, **settings))


def values_of(items):
    """The rows read, as tuples of texts; a record that lost a column has None there."""
    return [tuple(item.fields.get(name) for name in COLUMNS) for item in items if isinstance(item, Record)]


def read_or_refuse(content, name):
    """The items, or None where the file is refused as a whole."""
    try:
        return read(content, name)
    except SourceError:
        return None
