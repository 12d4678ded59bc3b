"""MultiPref: four people compare two answers to a prompt; the client is the evaluator.

Upstream holds one record a comparison: `comparison_id`, `prompt_id`, `text`, `completion_a`, `completion_b`,
`model_a`, `model_b`, and the lists `normal_worker_annotations` and `expert_worker_annotations`. An annotation names
its `evaluator` and, for each of the criteria overall, helpful, truthful and harmless, `<criterion>_pref`:
A-is-clearly-better, A-is-slightly-better, Tie, B-is-slightly-better or B-is-clearly-better.

The unit is the annotation: it gives one row, or one `Rejected` of the comparison's line if it is a tie, names nobody
or cannot be read. A comparison without a prompt, two answers and an annotation is one `Rejected`. Checked against
public code that reads the release; the card itself was read in excerpts.

Reference: Miranda et al. 2024, "Hybrid Preferences", arXiv:2410.19133.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedllm_data.schema import make_row_id
from fedllm_data.source import Filters, KnownSize, Rejected, Source, SourceRow
from fedllm_data.upstream.fields import FieldError, identifier, nested, text
from fedllm_data.upstream.odd_fields import choice_option, id_of, quoted
from fedllm_data.upstream.records import Record
from fedllm_data.upstream.upstream_files import HUB_OPTIONS, HubFiles, read_upstream

__all__ = ["FED_MULTIPREF_PA"]

_FILES = HubFiles(
    hub_id="allenai/multipref",
    revision="12910233a0238a997ebe425656e9dfed7b0ff031",
    files=("data/train-*.parquet",),
)
_CRITERIA = ("overall", "helpful", "truthful", "harmless")
_LISTS = {"normal": "normal_worker_annotations", "expert": "expert_worker_annotations"}
_WINNERS = {
    "a-is-clearly-better": "a",
    "a-is-slightly-better": "a",
    "b-is-slightly-better": "b",
    "b-is-clearly-better": "b",
}


def _read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    criterion = choice_option(options, "criterion", _CRITERIA)
    people = choice_option(options, "evaluators", ("all", "normal", "expert"))
    columns = [column for name, column in _LISTS.items() if people in ("all", name)]
    for item in read_upstream(_FILES, path, options):
        if isinstance(item, Rejected):
            yield item
            continue
        try:
            rows = _rows_of(item, f"{criterion}_pref", columns)
        except FieldError as error:
            rows = [str(error)]
        for row in rows:
            yield Rejected(item.file, item.line, row) if isinstance(row, str) else SourceRow(row, item.file, item.line)


def _rows_of(record: Record, verdict: str, columns: list[str]) -> list[dict[str, Any] | str]:
    """A row, or the reason why there is none, for every annotation of a comparison."""
    fields = record.fields
    comparison, prompt = identifier(fields, "comparison_id"), text(fields, "text")
    if comparison is None:
        raise FieldError("comparison_id: is missing or no id")
    answers = {letter: text(fields, f"completion_{letter}") for letter in "ab"}
    models = {letter: identifier(fields, f"model_{letter}") for letter in "ab"}
    annotations = [annotation for column in columns for annotation in _annotations_of(fields, column)]
    if not annotations:
        raise FieldError(f"{' and '.join(columns)}: no annotation")
    rows: list[dict[str, Any] | str] = []
    for annotation in annotations:
        found = _verdict_of(annotation, verdict)
        if isinstance(found, str):
            rows.append(found)
            continue
        evaluator, winner = found
        loser = "b" if winner == "a" else "a"
        rows.append(
            {
                "client_id": evaluator,
                "row_id": make_row_id("fed-multipref-pa", verdict, comparison, evaluator),
                "language": "en",
                "prompt": [{"role": "user", "content": prompt}],
                "chosen": [{"role": "assistant", "content": answers[winner]}],
                "rejected": [{"role": "assistant", "content": answers[loser]}],
                "chosen_model": models[winner],
                "rejected_model": models[loser],
            }
        )
    return rows


def _annotations_of(fields: Mapping[str, Any], column: str) -> list[Any]:
    if fields.get(column) is None:
        return []
    annotations = nested(fields, column)
    if not isinstance(annotations, list):
        raise FieldError(f"{column}: must be a list of annotations, got {type(annotations).__name__}")
    return annotations


def _verdict_of(annotation: Any, verdict: str) -> tuple[str, str] | str:
    """Evaluator and the better answer, or the reason why there is no such thing."""
    if not isinstance(annotation, Mapping):
        return f"an annotation must be a mapping, got {type(annotation).__name__}"
    evaluator, preferred = id_of(annotation.get("evaluator")), annotation.get(verdict)
    if evaluator is None:
        return "an annotation has no evaluator"
    word = preferred.strip().lower() if isinstance(preferred, str) else ""
    if word == "tie":
        return f"{verdict}: the evaluator found both answers alike"
    return (evaluator, _WINNERS[word]) if word in _WINNERS else f"{verdict}: {quoted(preferred)} is no verdict"


FED_MULTIPREF_PA = Source(
    name="fed-multipref-pa",
    task="preference",
    summary="Two answers of language models, the one that a person found better chosen; a client is the evaluator.",
    client="the evaluator (`evaluator` of an annotation)",
    licence="odc-by",
    licence_url="https://opendatacommons.org/licenses/by/1-0/",
    attribution="MultiPref, by the Allen Institute for AI (Miranda, Wang, Elazar, Kumar, Pyatkin, Brahman, Smith, "
    "Hajishirzi, Dasigi)",
    terms="ODC-BY for the collection; answers were written by language models, whose makers may have terms of their "
    "own for what they wrote.",
    upstream=_FILES.hub_id,
    revision=_FILES.revision,
    citation="""@article{miranda2024hybrid,
  title = {Hybrid Preferences: Learning to Route Instances for Human vs. {AI} Feedback},
  author = {Miranda, Lester James V. and Wang, Yizhong and Elazar, Yanai and Kumar, Sachin and Pyatkin, Valentina and
            Brahman, Faeze and Smith, Noah A. and Hajishirzi, Hannaneh and Dasigi, Pradeep},
  journal = {arXiv preprint arXiv:2410.19133},
  year = {2024}
}""",
    read=_read,
    options={
        **HUB_OPTIONS,
        "criterion": "overall (preset), helpful, truthful or harmless: which of an annotation's verdicts counts",
        "evaluators": "all (preset), normal (crowd workers) or expert",
    },
    filters=Filters(min_rows=2),
    filter_reasons="Two rows are the least that can be split into train and test. Near-duplicates are kept: two "
    "answers to one prompt may be alike, and what sets them apart is what people judged.",
    sizes=(
        KnownSize(
            of="upstream, comparisons with four annotations each",
            num_clients=None,
            num_rows=10_461,
            reference="Miranda et al. 2024, arXiv:2410.19133",
        ),
    ),
    limits=(
        "Four people judge each pair, two of them experts: equal rows are separate verdicts.",
        "A slight preference counts like a clear one; ties give no row and are listed.",
        "Prompts come from other public collections, some of which are meant to provoke unsafe answers.",
    ),
    clients_share_items=True,
)
