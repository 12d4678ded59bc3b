"""Decisions of US courts (COLD Cases): the client is the court; one row is one opinion.

Upstream holds one record a case: `id`, `case_name`, `case_name_full`, `case_name_short`, `date_filed`,
`court_full_name`, `court_short_name`, `court_jurisdiction`, `court_type` and `opinions`, a list with `opinion_text`,
`type` (010combined, 020lead, 030concurrence, 040dissent, ...) and `author_str`. The text is of one piece, without what
was asked: the request names case, court and day, and the answer is the opinion.

The unit is the opinion: it gives one row, or one `Rejected` of the case's line if it has no text. A case without a
court, a name or an opinion is one `Rejected`. All opinions of a case lie in one split. Checked against the program
that writes the dataset (github.com/harvard-lil/cold-cases-export) and the glossary of its card.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedllm_data.schema import make_row_id
from fedllm_data.source import Filters, KnownSize, Rejected, Source, SourceRow
from fedllm_data.upstream.fields import FieldError, identifier, nested, text
from fedllm_data.upstream.odd_fields import choice_option
from fedllm_data.upstream.records import Record
from fedllm_data.upstream.upstream_files import HUB_OPTIONS, HubFiles, read_upstream

__all__ = ["FED_CASES"]

_FILES = HubFiles(
    hub_id="harvard-lil/cold-cases",
    revision="5d8d0d8457ef63b6463af9737da21d3badd924ad",
    files=("part-*.parquet",),
)
_COURTS = {"court": ("court_full_name", "court_short_name"), "jurisdiction": ("court_jurisdiction",)}
_NAMES = ("case_name", "case_name_full", "case_name_short")
_KINDS = {
    "combined": "opinion",
    "unamimous": "unanimous opinion",  # as CourtListener spells it
    "unanimous": "unanimous opinion",
    "lead": "lead opinion",
    "plurality": "plurality opinion",
    "concurrence": "concurring opinion",
    "concurrenceinpart": "opinion concurring in part",
    "dissent": "dissenting opinion",
}
"""Type of an opinion, without the number before it -> words; other types are opinions."""


def _read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    columns = _COURTS[choice_option(options, "client", tuple(_COURTS))]
    for item in read_upstream(_FILES, path, options):
        if isinstance(item, Rejected):
            yield item
            continue
        try:
            yield from _read_case(item, columns)
        except FieldError as error:
            yield Rejected(item.file, item.line, str(error))


def _read_case(record: Record, columns: tuple[str, ...]) -> Iterator[SourceRow | Rejected]:
    """Yield an item for every opinion; raise, before the first, if the case cannot be used."""
    fields = record.fields
    client_id, court = _first(fields, columns), _first(fields, _COURTS["court"])
    name, date = _first(fields, _NAMES), identifier(fields, "date_filed")
    opinions = nested(fields, "opinions")
    if not isinstance(opinions, list) or not opinions:
        raise FieldError("opinions: is no list, or empty")
    day = f", {date[:10]}" if date else ""
    for number, opinion in enumerate(opinions):
        try:
            if not isinstance(opinion, Mapping):
                raise FieldError(f"an opinion must be a mapping, got {type(opinion).__name__}")
            body = text(opinion, "opinion_text").strip()
        except FieldError as error:
            yield Rejected(record.file, record.line, f"opinions: {error}")
            continue
        request = f"{name}\n{court}{day}\n\nWrite the {_kind_of(opinion)} in this case."
        row = {
            "client_id": client_id,
            "row_id": make_row_id("fed-cases", identifier(fields, "id") or body, court, name, day, str(number)),
            "language": "en",
            "messages": [{"role": "user", "content": request}, {"role": "assistant", "content": body}],
        }
        yield SourceRow(row, record.file, record.line, group=f"{court}\n{name}{day}")


def _first(fields: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    found = next((name for name in (identifier(fields, column) for column in columns) if name), None)
    if found is None:
        raise FieldError(f"{' and '.join(columns)}: {'are' if len(columns) > 1 else 'is'} missing")
    return found


def _kind_of(opinion: Mapping[str, Any]) -> str:
    kind = identifier(opinion, "type") or ""
    return _KINDS.get(re.sub(r"^\d+", "", kind.lower()), "opinion")


FED_CASES = Source(
    name="fed-cases",
    task="sft",
    summary="Opinions of United States courts, to the name of the case; a client is the court.",
    client="the court (`court_full_name`); with client=jurisdiction the state or the federation",
    licence="cc0-1.0",
    licence_url="https://creativecommons.org/publicdomain/zero/1.0/",
    attribution="COLD Cases, by the Harvard Library Innovation Lab, from the data of CourtListener (Free Law Project)",
    terms="CC0; decisions of US courts are in the public domain.",
    upstream=_FILES.hub_id,
    revision=_FILES.revision,
    citation="""@misc{coldcases2023,
  title = {Collaborative Open Legal Data ({COLD}) - Cases},
  author = {{Harvard Library Innovation Lab}},
  year = {2023},
  howpublished = {\\url{https://huggingface.co/datasets/harvard-lil/cold-cases}}
}""",
    read=_read,
    options={**HUB_OPTIONS, "client": "court (preset) or jurisdiction: the same opinions at two levels"},
    filters=Filters(min_rows=2, max_chars=24_000),
    filter_reasons="Two rows are the least that can be split into train and test. Opinions above 24,000 characters, "
    "some 6,000 tokens, are longer than is trained on; the number is an estimate, and longer ones are counted.",
    sizes=(
        KnownSize(
            of="upstream, decisions",
            num_clients=None,
            num_rows=8_300_000,
            reference="dataset card of harvard-lil/cold-cases, rounded",
        ),
    ),
    limits=(
        "The request tells neither the facts nor the question of law: rows teach how a court writes, and what a model "
        "writes to such a request is no law.",
        "Parties, witnesses and victims are named as the courts named them.",
        "Tags were taken out upstream by a pattern; character references (&amp;) and page numbers may be left in.",
        "Old opinions were read by OCR, with its mistakes.",
    ),
)
