"""Speeches in the Japanese Diet (Kokkai), from a local copy: the client is who spoke, or their group or house.

Upstream is the search API of the National Diet Library, which gives a hundred speeches a request and lies on no Hub:
what was fetched from it is read from files. A file holds speeches, pages of the API (`speechRecord`, a list of them)
or meetings (the same list, and what the speeches have in common beside it), as JSON or JSON lines. Of a speech
`speechID`, `date`, `nameOfHouse`, `nameOfMeeting`, `issue`, `speaker`, `speakerGroup` and `speech` are used.

The unit is the speech: it gives one row, or one `Rejected` of its record's line. The record of a meeting begins with a
list of those present under the speaker 会議録情報, which is nobody's. A text begins with the mark ○ and the speaker's
name, which is left out: the row's client tells it. The request names day, house and meeting, so that all speeches of
a meeting lie in one split. Checked against public code that reads the API.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedllm_data.schema import make_row_id
from fedllm_data.source import Filters, Rejected, Source, SourceRow
from fedllm_data.upstream.fields import FieldError, identifier, nested, text
from fedllm_data.upstream.odd_fields import choice_option
from fedllm_data.upstream.records import Record
from fedllm_data.upstream.upstream_files import read_local

__all__ = ["FED_KOKKAI"]

_WHERE = "https://kokkai.ndl.go.jp/api.html"
_CLIENTS = {"speaker": "speaker", "group": "speakerGroup", "house": "nameOfHouse"}
_NOBODY = "会議録情報"
_MARK = re.compile(r"\A[○◯〇][^\s]{1,60}(?:\s+|\Z)")
"""The speaker before a speech; \\s takes the ideographic blank as well."""


def _read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    column = _CLIENTS[choice_option(options, "client", tuple(_CLIENTS))]
    for item in read_local(path, ("*.json", "*.jsonl"), where=f"speeches by the API described at {_WHERE}"):
        if isinstance(item, Rejected):
            yield item
            continue
        try:
            speeches = _speeches_of(item)
        except FieldError as error:
            yield Rejected(item.file, item.line, str(error))
            continue
        for speech in speeches:
            try:
                yield SourceRow(_row_of(speech, column), item.file, item.line)
            except FieldError as error:
                yield Rejected(item.file, item.line, str(error))


def _speeches_of(record: Record) -> list[Any]:
    """The speeches of a record: one, or those of a page or a meeting, with what they have in common."""
    fields = record.fields
    if "speechRecord" not in fields:
        return [fields]
    speeches = nested(fields, "speechRecord")
    if not isinstance(speeches, list) or not speeches:
        raise FieldError("speechRecord: is no list, or empty")
    common = {name: value for name, value in fields.items() if name != "speechRecord"}
    return [common | dict(speech) if isinstance(speech, Mapping) else speech for speech in speeches]


def _row_of(fields: Any, column: str) -> dict[str, Any]:
    if not isinstance(fields, Mapping):
        raise FieldError(f"a speech must be a mapping, got {type(fields).__name__}")
    if identifier(fields, "speaker") == _NOBODY:
        raise FieldError(f"speaker: {_NOBODY} is the list of those present and no speech")
    client_id = identifier(fields, column)
    if client_id is None:
        raise FieldError(f"{column}: is missing")
    words = _MARK.sub("", text(fields, "speech").replace("\r\n", "\n").strip()).strip()
    if not words:
        raise FieldError("speech: holds the speaker's name alone")
    place = {name: identifier(fields, name) for name in ("date", "nameOfHouse", "nameOfMeeting")}
    for name, value in place.items():
        if value is None:
            raise FieldError(f"{name}: is missing")
    issue = identifier(fields, "issue")
    request = " ".join([*map(str, place.values()), *([issue] if issue else [])])
    request += "\n\nこの会議で発言してください。"
    return {
        "client_id": client_id,
        "row_id": make_row_id("fed-kokkai", identifier(fields, "speechID") or words, client_id, request),
        "language": "ja",
        "messages": [{"role": "user", "content": request}, {"role": "assistant", "content": words}],
    }


FED_KOKKAI = Source(
    name="fed-kokkai",
    task="sft",
    summary="Speeches in both houses of the Japanese Diet, to the day and the meeting; a client is the speaker.",
    client="the speaker (`speaker`); with client=group or client=house the parliamentary group or the house",
    licence="Terms of the National Diet Library of Japan",
    licence_url="https://kokkai.ndl.go.jp/#/guidance",
    attribution="Proceedings of the Diet (Kokkai), by the National Diet Library of Japan, and the speakers",
    terms="The library states no open licence: what was said belongs to who said it. Japanese law lets political "
    "speeches be used in general (Article 40 of the Copyright Act), but not one person's collected. Read the terms of "
    "the API before rows are passed on; fetch slowly, as it asks.",
    upstream=_WHERE,
    revision="see source_files: the corpus is read from a local copy",
    citation="""@misc{kokkai,
  title = {Full-text Database System for the Minutes of the Diet},
  author = {{National Diet Library}},
  howpublished = {\\url{https://kokkai.ndl.go.jp}}
}""",
    read=_read,
    options={"client": "speaker (preset), group or house: the same speeches at three levels"},
    filters=Filters(min_rows=2, max_chars=12_000),
    filter_reasons="Two rows are the least that can be split into train and test. Speeches above 12,000 characters, "
    "which Japanese text makes into some 8,000 tokens, are longer than is trained on; the number is an estimate.",
    limits=(
        "Speakers are public figures, known by name alone: two of one name are one client.",
        "Officials and experts who were heard speak beside members of the Diet; `speakerGroup` is empty for them.",
        "A short speech answers another one that the request does not show.",
        "What was fetched from the API is a choice by search words and days, not the whole of the proceedings.",
    ),
)
