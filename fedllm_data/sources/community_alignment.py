"""Community Alignment: people of five countries choose one of four answers, turn by turn; the client is the annotator.

Upstream is one CSV with a line for each conversation: `conversation_id`, `annotator_id`, `assigned_lang`, and for each
of the turns first, second, third and fourth the columns `<turn>_turn_prompt`, `<turn>_turn_response_a` to `_d` and
`<turn>_turn_preferred_response` ("response_a" to "response_d"). A turn gives one row for each answer that was not
preferred; its prompt is the conversation along the preferred answers.

A turn with nothing in its columns did not take place. A conversation that goes on after a turn that is missing or
cannot be used has lost its path: its later turns are rejected. Every turn or answer that gives no row is a `Rejected`
of the conversation's line. First prompts are mostly given (`is_pregenerated_first_prompt`) and then shared by many
annotators, with the same four answers.

Checked against public code that reads version 1.1 (the pinned commit) and 1.0; the code book, Appendix I of the paper,
was not read. "b" for "response_b" and "EMPTY STRING" for nothing occur in that code and are accepted. Version 1.0 came
as `full_community_alignment.csv` and `filtered_community_alignment.csv`: name one of them with --source.

Reference: Zhang et al. 2025, "Cultivating Pluralism In Algorithmic Monoculture: The Community Alignment Dataset",
arXiv:2507.09650.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedllm_data.pipeline.language_detection import language_code
from fedllm_data.schema import make_row_id
from fedllm_data.source import Filters, KnownSize, Rejected, Source, SourceRow
from fedllm_data.upstream.odd_fields import id_of, quoted, text_of
from fedllm_data.upstream.records import Record
from fedllm_data.upstream.upstream_files import HUB_OPTIONS, HubFiles, read_upstream

__all__ = ["FED_COMMUNITY_ALIGNMENT"]

_FILES = HubFiles(
    hub_id="facebook/community-alignment-dataset",
    revision="97343c7f6399fcbea430ed0f37c1768281a78d56",
    files=("community_alignment.csv", "community_alignment.csv.gz"),
)
_TURNS = ("first", "second", "third", "fourth")
_LETTERS = ("a", "b", "c", "d")
_EMPTY = "EMPTY STRING"


def _read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    for item in read_upstream(_FILES, path, options):
        yield from [item] if isinstance(item, Rejected) else _read_conversation(item)


def _read_conversation(record: Record) -> Iterator[SourceRow | Rejected]:
    fields = record.fields
    conversation_id, client_id = id_of(fields.get("conversation_id")), id_of(fields.get("annotator_id"))
    if conversation_id is None or client_id is None:
        missing = "conversation_id" if conversation_id is None else "annotator_id"
        yield Rejected(record.file, record.line, f"{missing}: is missing or no id")
        return
    language = language_code(fields.get("assigned_lang"))
    for item in _pairs_along_the_path(fields):
        if isinstance(item, str):
            yield Rejected(record.file, record.line, item)
            continue
        row, ids = item
        row |= {
            "client_id": client_id,
            "row_id": make_row_id("fed-community-alignment", client_id, conversation_id, *ids),
            "language": language,
        }
        yield SourceRow(row, record.file, record.line)


def _pairs_along_the_path(fields: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], tuple[str, str, str]] | str]:
    """Yield (row, ids in the conversation), and the reason for whatever gives no row."""
    turns = [_turn_of(fields, turn) for turn in _TURNS]
    num_turns = max((number for number, turn in enumerate(turns, start=1) if turn is not None), default=0)
    if num_turns == 0:
        yield "has no turn with a text"
    path: list[dict[str, str]] = []
    lost = ""
    for name, turn in zip(_TURNS, turns[:num_turns], strict=False):
        if turn is None:
            lost = "an earlier turn is missing"  # said of the later turns: of this one there is nothing to reject
            continue
        prompt, preferred, answers = turn
        problem = lost or _turn_problem(prompt, preferred, answers)
        letter = _letter_of(preferred)
        if problem or prompt is None or letter is None:
            yield f"{name} turn: {problem}"
            lost = lost or "an earlier turn cannot be used"
            continue
        messages = [*path, {"role": "user", "content": prompt}]
        chosen = {"role": "assistant", "content": str(answers[letter])}
        for other, answer in answers.items():
            if other == letter:
                continue
            if answer is None:
                yield f"{name} turn: response_{other} is empty"
                continue
            row = {
                "prompt": messages,
                "chosen": [chosen],
                "rejected": [{"role": "assistant", "content": answer}],
            }
            yield row, (name, letter, other)
        path = [*messages, chosen]


_Turn = tuple[str | None, Any, dict[str, str | None]]
"""Prompt, preferred response as it stands, answers by letter."""


def _turn_of(fields: Mapping[str, Any], name: str) -> _Turn | None:
    """The columns of a turn; None if they hold nothing."""
    prompt = _said(fields.get(f"{name}_turn_prompt"))
    preferred = fields.get(f"{name}_turn_preferred_response")
    answers = {letter: _said(fields.get(f"{name}_turn_response_{letter}")) for letter in _LETTERS}
    is_blank = preferred is None or preferred == _EMPTY or (isinstance(preferred, str) and not preferred.strip())
    if prompt is None and is_blank and not any(answers.values()):
        return None
    return prompt, None if is_blank else preferred, answers


def _said(value: Any) -> str | None:
    return None if value == _EMPTY else text_of(value)


def _letter_of(preferred: Any) -> str | None:
    letter = preferred.strip().lower().removeprefix("response_") if isinstance(preferred, str) else ""
    return letter if letter in _LETTERS else None


def _turn_problem(prompt: str | None, preferred: Any, answers: dict[str, str | None]) -> str:
    letter = _letter_of(preferred)
    if prompt is None:
        return "has no prompt"
    if preferred is None:
        return "no response is preferred"
    if letter is None:
        return f"preferred response {quoted(preferred)} is none of response_a to response_d"
    return "" if answers[letter] is not None else "the preferred response is empty"


FED_COMMUNITY_ALIGNMENT = Source(
    name="fed-community-alignment",
    task="preference",
    summary="Which of four answers people of five countries preferred, in five languages and up to four turns; "
    "a client is the annotator.",
    client="the annotator (`annotator_id`)",
    licence="cc-by-4.0",
    licence_url="https://creativecommons.org/licenses/by/4.0/",
    terms="Upstream asks users to filter and moderate before training: annotators wrote about a third of the first "
    "prompts themselves. It takes requests to remove rows.",
    attribution="Community Alignment, by Lily Hong Zhang, Smitha Milli and others, Meta",
    upstream=_FILES.hub_id,
    revision=_FILES.revision,
    citation="""@article{zhang2025cultivating,
  title = {Cultivating Pluralism In Algorithmic Monoculture: The {Community Alignment} Dataset},
  author = {Zhang, Lily Hong and Milli, Smitha and Jusko, Karen and Smith, Jonathan and Amos, Brandon
    and Bouaziz, Wassim and Revel, Manon and Kussman, Jack and Sheynin, Yasha and Titus, Lisa
    and Radharapu, Bhaktipriya and Yu, Jane and Sarma, Vidya and Rose, Kris and Nickel, Maximilian},
  journal = {arXiv preprint arXiv:2507.09650},
  year = {2025}
}""",
    read=_read,
    options=HUB_OPTIONS,
    filters=Filters(min_rows=2),
    filter_reasons="A client needs two pairs, one to train on and one to test on; three come from every choice.",
    sizes=(
        KnownSize(
            of="version 1.0, choices among four answers (about)",
            num_clients=3_196,
            num_rows=200_000,
            reference="summaries of arXiv:2507.09650 version 1 (the paper itself was not read)",
        ),
        KnownSize(
            of="version 1.1, choices among four answers",
            num_clients=None,
            num_rows=233_319,
            reference="abstract of the ICLR 2026 paper; the dataset card says over 3,500 annotators",
        ),
    ),
    limits=(
        "Every choice among four answers gives three pairs, which share the preferred answer.",
        "The language is the one the annotator was assigned; some wrote in another one.",
        "Given first prompts, with the same answers, are judged by many annotators: equal rows are separate verdicts.",
        "Upstream holds each annotator's age, gender, education, politics, ethnicity and country; no row does.",
        "Upstream flags no row as toxic, and names no model.",
    ),
    clients_share_items=True,
)
