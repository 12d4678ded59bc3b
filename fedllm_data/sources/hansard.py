"""Speeches in the House of Commons since 1979: the client is who spoke, or their party or constituency.

Upstream holds one record a speech: `id`, `speech`, `speech_class`, `date`, `major_heading`, `minor_heading`,
`oral_heading`, `person_id` (one a person, whatever they were called), `speakerid` (of older records), `party`,
`constituency`. A missing value is an empty text. A record gives one row: the day and the headings of the debate as the
request, the speech as the answer. What is no speech (headings, divisions, procedure) and what names nobody is a
`Rejected`. The request names the debate and the day, so that all speeches of a debate lie in one split.

The dataset on the Hub was a script, which nothing runs here; its conversion to Parquet is read, or a local copy of
`hansard-speeches-*.csv`. Checked against the script, which lists the columns.

Reference: Odell 2021, "Hansard Speeches 1979-2021: Version 3.1.0", doi:10.5281/zenodo.4843485.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedllm_data.schema import make_row_id
from fedllm_data.source import Filters, KnownSize, Rejected, Source, SourceRow
from fedllm_data.upstream.fields import FieldError, convert, identifier, text
from fedllm_data.upstream.odd_fields import choice_option, quoted
from fedllm_data.upstream.records import Record
from fedllm_data.upstream.upstream_files import HUB_OPTIONS, HubFiles, read_upstream

__all__ = ["FED_HANSARD"]

_FILES = HubFiles(
    hub_id="biglam/hansard_speech",
    revision="cd925f1101f38af22e3d3cb5927a951f0423bbaf",
    files=("data/train-*.parquet", "hansard-speeches-*.csv"),
)
_CLIENTS = {"person": ("person_id", "speakerid"), "party": ("party",), "constituency": ("constituency",)}
_HEADINGS = ("oral_heading", "major_heading", "minor_heading")
_NOBODY = frozenset({"unknown", "unassigned", "not found"})


def _read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    columns = _CLIENTS[choice_option(options, "client", tuple(_CLIENTS))]

    def row_of(record: Record) -> SourceRow:
        fields = record.fields
        kind = identifier(fields, "speech_class")
        if kind is not None and kind.lower() != "speech":
            raise FieldError(f"speech_class: {quoted(kind)} is no speech")
        client_id = _client_of(fields, columns)
        speech, request = text(fields, "speech").strip(), _request_of(fields)
        row = {
            "client_id": client_id,
            "row_id": make_row_id("fed-hansard", identifier(fields, "id") or "", client_id, request, speech),
            "language": "en",
            "messages": [{"role": "user", "content": request}, {"role": "assistant", "content": speech}],
        }
        return SourceRow(row, record.file, record.line)

    return convert(read_upstream(_FILES, path, options), row_of)


def _client_of(fields: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    for column in columns:
        found = identifier(fields, column)
        if found is not None and found.lower() not in _NOBODY:
            return found.removeprefix("uk.org.publicwhip/")
    raise FieldError(f"{' and '.join(columns)}: {'are' if len(columns) > 1 else 'is'} missing")


def _request_of(fields: Mapping[str, Any]) -> str:
    date = identifier(fields, "date")
    if date is None:
        raise FieldError("date: is missing or no date")
    headings = [heading for heading in (identifier(fields, name) for name in _HEADINGS) if heading]
    if not headings:
        raise FieldError(f"{', '.join(_HEADINGS)}: all are missing, so nothing tells what the debate was about")
    subject = ", ".join(dict.fromkeys(headings))
    return f"House of Commons, {date[:10]}: {subject}\n\nGive your speech in this debate."


FED_HANSARD = Source(
    name="fed-hansard",
    task="sft",
    summary="Speeches in the British House of Commons, 1979 to 2021, to the heading of the debate; a client is the "
    "speaker.",
    client="the speaker (`person_id`); with client=party or client=constituency the party or constituency",
    licence="cc-by-4.0",
    licence_url="https://creativecommons.org/licenses/by/4.0/",
    attribution="Hansard Speeches 1979-2021, by Evan Odell; on the Hub by BigLAM. Contains Parliamentary information "
    "licensed under the Open Parliament Licence v3.0",
    terms="The compilation is under CC BY 4.0; the speeches are Parliamentary information under the Open Parliament "
    "Licence, which asks for the attribution above.",
    upstream=_FILES.hub_id,
    revision=_FILES.revision,
    citation="""@misc{odell2021hansard,
  title = {Hansard Speeches 1979-2021: Version 3.1.0},
  author = {Odell, Evan},
  year = {2021},
  publisher = {Zenodo},
  doi = {10.5281/zenodo.4843485}
}""",
    read=_read,
    is_row_per_record=True,
    options={**HUB_OPTIONS, "client": "person (preset), party or constituency: the same speeches at three levels"},
    filters=Filters(min_rows=2, max_chars=24_000),
    filter_reasons="Two rows are the least that can be split into train and test. Speeches above 24,000 characters, "
    "some 6,000 tokens, are longer than a client's device trains on; the number is an estimate.",
    sizes=(
        KnownSize(
            of="upstream, all records",
            num_clients=None,
            num_rows=2_690_000,
            reference="dataset card of biglam/hansard_speech, rounded",
        ),
    ),
    limits=(
        "Speakers are public figures, named by their public number; what they said is on record for good.",
        "Many speeches are a sentence that interrupts another: the request does not show what was said before.",
        "Speeches without a known speaker, before records named one, are left out and listed.",
        "Debates hold what members of Parliament think fit to say, insults and falsehoods included.",
    ),
)
