"""Collective Alignment 1: people rank four answers to value-laden prompts; the client is the annotator.

Upstream `comparisons.jsonl` holds one prompt a line: `prompt_id`, `prompt.messages`, `responses` (`response_index`
"A" to "D", `messages` with the answer) and `metadata.assessments`. An assessment names its `annotator_id` and holds,
in `ranking_blocks`, a list each of `world`, `personal` and `unacceptable` blocks; a ranking reads "A>B=C>D". One row
is made of every two answers that the ranking puts in a strict order: four answers without ties give six, and tied
answers none. `annotators.jsonl` only tells which ids there are.

`ranking=world` (preset) takes what the annotator thinks best for the world, which every assessment has; `personal`
takes what they like best, which about a quarter have (4,901 of 18,384, says a public audit of the release).

The unit is the assessment: it gives its rows, or one `Rejected` of the prompt's line if its ranking is missing,
cannot be read or prefers nothing. A ranking may leave answers out: they make no pair. An answer without a text is a
`Rejected` and makes no pair either; a line without a usable prompt, two answers and an assessment is one `Rejected`.
Of several blocks of one kind the first counts, the others are `Rejected`. `developer` messages (upstream renamed
`system`) become the system message; several at the start one, parted by an empty line. `author.role` and
`content.parts` occur in public code for this release and are accepted.

Checked against public code that reads the release; of the dataset card only excerpts were read, and no commit could be
verified. The dataset has since been renamed openai/coval, with the same files: `--set hub_id`.
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from fedllm_data.errors import SourceError
from fedllm_data.schema import make_row_id, row_problem
from fedllm_data.source import Filters, KnownSize, Rejected, Source, SourceRow
from fedllm_data.upstream.odd_fields import choice_option, id_of, quoted, text_of
from fedllm_data.upstream.records import Record, data_files
from fedllm_data.upstream.upstream_files import HUB_OPTIONS, HubFiles, read_upstream

__all__ = ["FED_COLLECTIVE_ALIGNMENT"]

_HUB_ID = "openai/collective-alignment-1"
_REVISION = "main"
_COMPARISONS = HubFiles(hub_id=_HUB_ID, revision=_REVISION, files=("comparisons.jsonl", "comparisons.jsonl.gz"))
_ANNOTATORS = HubFiles(hub_id=_HUB_ID, revision=_REVISION, files=("annotators.jsonl", "annotators.jsonl.gz"))
_ROLES = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}
_ANSWER = [{"role": "assistant", "content": "an answer"}]


def _read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    kind = choice_option(options, "ranking", ("world", "personal"))
    annotators: set[str] | None = None
    if choice_option(options, "annotators", ("check", "off")) == "check":
        annotators = set()  # a few bytes for each client, never a text
        _check_annotators_file(path)
        for item in read_upstream(_ANNOTATORS, path, options):
            annotator = None if isinstance(item, Rejected) else id_of(item.fields.get("annotator_id"))
            if isinstance(item, Rejected):
                yield item
            elif annotator is None:
                yield Rejected(item.file, item.line, "annotator_id: is missing or no id")
            else:
                annotators.add(annotator)
    for item in read_upstream(_COMPARISONS, path, options):
        yield from [item] if isinstance(item, Rejected) else _read_comparison(item, kind, annotators)


def _check_annotators_file(path: Path | None) -> None:
    if path is None:
        return
    names = {file.name for file in data_files(path)} if path.is_dir() else set()
    if not names & set(_ANNOTATORS.files):
        raise SourceError(
            f"{path} has no annotators.jsonl with the ids of the annotators; name a folder that holds it beside "
            "comparisons.jsonl, or take the ids as they are: --set annotators=off"
        )


def _read_comparison(record: Record, kind: str, annotators: set[str] | None) -> Iterator[SourceRow | Rejected]:
    fields = record.fields
    prompt_id, prompt, answers = id_of(fields.get("prompt_id")), _prompt_of(fields), _answers_of(fields)
    assessments = _inner(fields, "metadata", "assessments")
    problem: str | None = None
    if prompt_id is None:
        problem = "prompt_id: is missing or no id"
    elif isinstance(prompt, str) or isinstance(answers, str):
        problem = prompt if isinstance(prompt, str) else str(answers)
    elif not isinstance(assessments, list) or not assessments:
        problem = "metadata.assessments: is missing or empty"
    if problem is not None or prompt_id is None or isinstance(prompt, str) or isinstance(answers, str):
        yield Rejected(record.file, record.line, problem or "cannot be used")
        return
    for label, text in answers.items():
        if text is None:
            yield Rejected(record.file, record.line, f"response {quoted(label)} is not one message with a text")
    for assessment in assessments:
        annotator = id_of(assessment.get("annotator_id")) if isinstance(assessment, dict) else None
        if annotator is None:
            yield Rejected(record.file, record.line, "an assessment has no annotator_id")
            continue
        if annotators is not None and annotator not in annotators:
            yield Rejected(record.file, record.line, f"annotator_id: {quoted(annotator)} is not in annotators.jsonl")
            continue
        blocks = _inner(assessment, "ranking_blocks", kind)
        if isinstance(blocks, list) and len(blocks) > 1:
            for _ in blocks[1:]:
                yield Rejected(record.file, record.line, f"a further {kind} ranking of one assessment")
        pairs = _pairs_of(blocks, kind, answers)
        if isinstance(pairs, str):
            yield Rejected(record.file, record.line, pairs)
            continue
        for better, worse in pairs:
            row = {
                "client_id": annotator,
                "row_id": make_row_id("fed-collective-alignment", kind, prompt_id, annotator, better, worse),
                "prompt": prompt,
                "chosen": [{"role": "assistant", "content": answers[better]}],
                "rejected": [{"role": "assistant", "content": answers[worse]}],
            }
            yield SourceRow(row, record.file, record.line)


def _inner(fields: Any, *names: str) -> Any:
    for name in names:
        fields = fields.get(name) if isinstance(fields, dict) else None
    return fields


def _message_of(message: Any) -> tuple[str | None, str | None]:
    """Role and text of a message; None for what is not there."""
    if not isinstance(message, dict):
        return None, None
    role = message.get("role") or _inner(message, "author", "role")
    content = message.get("content")
    if isinstance(content, dict):
        parts = content.get("parts")
        is_text = isinstance(parts, list) and all(isinstance(part, str) for part in parts)
        content = " ".join(parts) if is_text and parts else None
    return _ROLES.get(role) if isinstance(role, str) else None, text_of(content)


def _prompt_of(fields: dict[str, Any]) -> list[dict[str, str]] | str:
    """The prompt as it goes into a row, or why it cannot."""
    messages = _inner(fields, "prompt", "messages")
    if not isinstance(messages, list) or not messages:
        return "prompt.messages: is missing or empty"
    prompt: list[dict[str, str]] = []
    for index, message in enumerate(messages):
        role, content = _message_of(message)
        if role is None:
            return f"prompt.messages[{index}]: has no role developer, system, user or assistant"
        if content is None:
            return f"prompt.messages[{index}]: has no text"
        if role == "system" and len(prompt) == 1 and prompt[0]["role"] == "system":
            prompt[0] = {"role": "system", "content": f"{prompt[0]['content']}\n\n{content}"}
        else:
            prompt.append({"role": role, "content": content})
    # Asked once here instead of for every pair of every assessment of this prompt.
    row = {"client_id": "anyone", "prompt": prompt, "chosen": _ANSWER, "rejected": _ANSWER}
    return row_problem(row, "preference") or prompt


def _answers_of(fields: dict[str, Any]) -> dict[str, str | None] | str:
    """The answers by label, None for one that has no text; or why they cannot be told apart."""
    responses = fields.get("responses")
    if not isinstance(responses, list) or not responses:
        return "responses: is missing or empty"
    answers: dict[str, str | None] = {}
    for index, response in enumerate(responses):
        label, messages = id_of(_inner(response, "response_index")), _inner(response, "messages")
        if label is None:
            return f"responses[{index}]: has no response_index"
        if label in answers:
            return f"responses[{index}]: response_index {quoted(label)} repeats"
        is_one = isinstance(messages, list) and len(messages) == 1
        role, content = _message_of(messages[0]) if is_one else (None, None)
        answers[label] = content if role == "assistant" else None
    if sum(text is not None for text in answers.values()) < 2:
        return "responses: fewer than two are one message with a text"
    return answers


def _pairs_of(blocks: Any, kind: str, answers: dict[str, str | None]) -> list[tuple[str, str]] | str:
    """(better, worse) for every strict order in the first block's ranking, or why there is none."""
    ranking = text_of(_inner(blocks[0], "ranking")) if isinstance(blocks, list) and blocks else None
    if ranking is None:
        return f"has no {kind} ranking"
    tiers = [[label.strip() for label in tier.split("=")] for tier in ranking.split(">")]
    labels = [label for tier in tiers for label in tier]
    if len(set(labels)) < len(labels) or not set(labels) <= set(answers):
        return f"{kind} ranking {quoted(ranking)} cannot be read, or names an answer that is not there"
    tiers = [[label for label in tier if answers[label] is not None] for tier in tiers]
    pairs = [(a, b) for better, worse in combinations(tiers, 2) for a in better for b in worse]
    return pairs or f"{kind} ranking {quoted(ranking)} prefers no usable answer to another"


FED_COLLECTIVE_ALIGNMENT = Source(
    name="fed-collective-alignment",
    task="preference",
    summary="How a thousand people of 19 countries rank answers to value-laden prompts, as pairs; "
    "a client is the annotator.",
    client="the annotator (`annotator_id`)",
    licence="cc-by-4.0",
    licence_url="https://creativecommons.org/licenses/by/4.0/",
    attribution="Collective Alignment 1, by OpenAI",
    upstream=_HUB_ID,
    revision=_REVISION,
    citation="""@misc{openai2025collective,
  title = {Collective alignment: public input on our {Model Spec}},
  author = {{OpenAI}},
  year = {2025},
  howpublished = {\\url{https://openai.com/index/collective-alignment-aug-2025-updates/}}
}""",
    read=_read,
    options={
        **HUB_OPTIONS,
        "ranking": "world (preset): what the annotator thinks best for the world; personal: what they like best",
        "annotators": "check (preset): reject assessments of annotators that annotators.jsonl does not list; off",
    },
    filters=Filters(min_rows=2),
    filter_reasons="A client needs two pairs, one to train on and one to test on; a ranking without ties gives six.",
    sizes=(
        KnownSize(
            of="upstream, assessments of 1,078 prompts",
            num_clients=1_012,
            num_rows=18_384,
            reference="dataset card of openai/collective-alignment-1",
        ),
        KnownSize(
            of="pairs in strict order, world rankings of 968 of the prompts",
            num_clients=None,
            num_rows=80_542,
            reference="public audit of the release (github.com/ivanicu/CoValCrossroad)",
        ),
    ),
    limits=(
        "The pairs of one ranking are not independent: four ranked answers give up to six.",
        "A world ranking is a judgement of what is best for everybody, not a personal taste; see the option ranking.",
        "All annotators judge the same synthetic prompts and answers: equal rows are separate verdicts.",
        "Some annotators assessed one prompt twice, and may have ranked its answers in another order.",
        "Answers that an annotator calls unacceptable are kept: upstream flags no row as toxic.",
        "Upstream holds each annotator's demographics; no row does.",
    ),
    clients_share_items=True,
)
