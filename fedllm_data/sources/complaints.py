"""Complaints of consumers to a US agency: the client is the company that the complaint is about.

Upstream (the Consumer Complaint Database of the CFPB) holds one record a complaint; those with a text have it in
`Consumer complaint narrative`, with names and numbers struck out as XXXX. The consumer chose `Product`, `Sub-product`,
`Issue` and `Sub-issue` from lists; `Company`, `Complaint ID` and further columns stand beside them. A record gives one
row: the text as the request, product and issue as the answer, which is what the desk of a company sorts complaints by.

Upstream on the Hub is a copy in Parquet whose folder `has-text` holds the complaints with a text; the agency's own
`complaints.csv` has the same columns and may be named with --source. Checked against the card of the copy.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedllm_data.schema import make_row_id
from fedllm_data.source import Filters, Rejected, Source, SourceRow
from fedllm_data.upstream.fields import FieldError, convert, identifier, text
from fedllm_data.upstream.records import Record
from fedllm_data.upstream.upstream_files import HUB_OPTIONS, HubFiles, read_upstream

__all__ = ["FED_COMPLAINTS"]

_FILES = HubFiles(
    hub_id="BEE-spoke-data/consumer-finance-complaints",
    revision="e37cf1e8530c0142ab0750059cceaf1fbd7b0fd3",
    files=("has-text/train-*.parquet", "complaints.csv*"),
)
_LABELS = ("Product", "Sub-product", "Issue", "Sub-issue")
_NEEDED = ("Product", "Issue")
_REQUEST = "A consumer wrote this complaint about a financial company. Name the product and the issue.\n\n"


def _read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    return convert(read_upstream(_FILES, path, options), _row_of)


def _row_of(record: Record) -> SourceRow:
    fields = record.fields
    company = identifier(fields, "Company")
    if company is None:
        raise FieldError("Company: is missing or no name")
    narrative, answer = text(fields, "Consumer complaint narrative").strip(), _answer_of(fields)
    # Early files lack the number; the text then stands for it.
    complaint = identifier(fields, "Complaint ID") or narrative
    row = {
        "client_id": company,
        "row_id": make_row_id("fed-complaints", company, complaint),
        "language": "en",
        "messages": [
            {"role": "user", "content": _REQUEST + narrative},
            {"role": "assistant", "content": answer},
        ],
    }
    return SourceRow(row, record.file, record.line)


def _answer_of(fields: Mapping[str, Any]) -> str:
    labels = {name: identifier(fields, name) for name in _LABELS}
    for name in _NEEDED:
        if labels[name] is None:
            raise FieldError(f"{name}: is missing")
    return "\n".join(f"{name}: {label}" for name, label in labels.items() if label is not None)


FED_COMPLAINTS = Source(
    name="fed-complaints",
    task="sft",
    summary="Complaints about banks, lenders and credit bureaus, sorted by product and issue; "
    "a client is the company.",
    client="the company that the complaint is about (`Company`)",
    licence="cc0-1.0",
    licence_url="https://creativecommons.org/publicdomain/zero/1.0/",
    attribution="Consumer Complaint Database, by the Consumer Financial Protection Bureau; on the Hub by "
    "BEEspoke Data",
    terms="A work of the US government, in the public domain. Consumers agreed that their text is published.",
    upstream=_FILES.hub_id,
    revision=_FILES.revision,
    citation="""@misc{cfpb_complaints,
  title = {Consumer Complaint Database},
  author = {{Consumer Financial Protection Bureau}},
  howpublished = {\\url{https://www.consumerfinance.gov/data-research/consumer-complaints/}}
}""",
    read=_read,
    is_row_per_record=True,
    options=dict(HUB_OPTIONS),
    filters=Filters(min_rows=2, near_duplicates=0.8),
    filter_reasons="Two rows are the least that can be split into train and test. Near-duplicates at the usual "
    "Jaccard similarity of 0.8 go, as many complaints are copies of letters from the web.",
    limits=(
        "Complaints are one side of a quarrel, which nobody checked; companies are named.",
        "Names and numbers were struck out (XXXX) by the agency; what it overlooked is there.",
        "The answer is what the consumer chose from the agency's lists, which changed over the years: one product may "
        "have several names.",
        "It is a task of sorting: few words to write, and hardly any reply of a company.",
    ),
)
