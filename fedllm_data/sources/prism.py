"""PRISM: participants choose and score the answers of up to four models, turn by turn; the client is the participant.

Upstream `conversations.jsonl` holds one conversation a line. Its `conversation_history` lists messages of a `turn`
(from 0): the prompt (role user) and the answers (role model) with `score` (slider, 1 to 100; what is no number from 0
to 100 counts as no score), `if_chosen`, `within_turn_id` and `model_name`. Up to four models answer the first turn;
the chosen one gives both answers of every later turn. A row's prompt is the conversation along the chosen answers.

What makes a pair. `pairs=choices`: the chosen answer and every other one of its turn. Upstream calls the answer with
the highest score chosen and breaks ties at random, so an answer scored as high as the chosen one shows no preference,
and one scored above it contradicts the choice; neither makes a pair. `pairs=scores`: every two answers of a turn whose
scores differ by at least `min_margin`. Of the same words chosen twice, the first counts. An empty text is stored as
"EMPTY STRING". After a turn without a chosen answer the path is lost, and so are the later turns. Every answer, pair
or turn that gives no row is a `Rejected` of its conversation's line.

Flags. `metadata.jsonl` holds OpenAI's moderation verdict on every text; `utterances.jsonl` tells whose text it is.
(That its `within_turn_id` is the conversation's follows from the name; no document says so.) A row is toxic where one
of its messages is flagged.

Checked against upstream's code book (`04_codebooks.ipynb`) and its `process_conversations.py`.

Reference: Kirk et al. 2024, "The PRISM Alignment Dataset", arXiv:2404.16019.
"""

import math
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from fedllm_data.errors import SourceError
from fedllm_data.schema import make_row_id
from fedllm_data.source import Filters, KnownSize, Rejected, Source, SourceRow
from fedllm_data.upstream.odd_fields import choice_option, id_of, quoted, text_of
from fedllm_data.upstream.prism_flags import PROMPT, MessageFlags, open_flags
from fedllm_data.upstream.records import Record
from fedllm_data.upstream.upstream_files import HUB_OPTIONS, HubFiles, read_upstream

__all__ = ["FED_PRISM"]

_HUB_ID = "HannahRoseKirk/prism-alignment"
_REVISION = "18ab5cfb37456f4ec8cbc00212ce54cf7b1239f6"
_CONVERSATIONS = HubFiles(hub_id=_HUB_ID, revision=_REVISION, files=("conversations.jsonl", "conversations.jsonl.gz"))
_TYPES = {"unguided": "unguided", "values": "values guided", "controversy": "controversy guided"}
_EMPTY = "EMPTY STRING"


@dataclass(frozen=True, slots=True)
class _Answer:
    """One answer of a turn that has a text."""

    ident: str
    content: str
    model: str | None
    score: float | None
    is_chosen: bool


@dataclass(slots=True)
class _Turn:
    """The messages of one turn, and what is wrong with single answers."""

    prompts: list[Any] = field(default_factory=list)
    answers: list[_Answer] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    num_answers: int = 0


@dataclass(frozen=True, slots=True)
class _Rule:
    """Which answers of a turn make a pair."""

    is_by_score: bool
    min_margin: float


def _read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    rule = _rule_of(options)
    kind = choice_option(options, "conversation_type", ("all", *_TYPES))
    is_moderated = choice_option(options, "moderation", ("upstream", "off")) == "upstream"
    with open_flags(_HUB_ID, _REVISION, path, options, is_moderated) as flags:
        yield from flags.load()
        for item in read_upstream(_CONVERSATIONS, path, options):
            yield from [item] if isinstance(item, Rejected) else _read_conversation(item, rule, kind, flags)


def _rule_of(options: dict[str, str]) -> _Rule:
    is_by_score = choice_option(options, "pairs", ("choices", "scores")) == "scores"
    if not is_by_score and "min_margin" in options:
        raise SourceError("option min_margin is a difference of scores; give pairs=scores with it")
    text = options.get("min_margin", "1")
    try:
        margin = float(text)
    except ValueError:
        margin = math.nan
    if not 0 < margin < math.inf:
        raise SourceError(f"option min_margin is {text[:40]!r}; give a number above 0: scores run from 1 to 100")
    return _Rule(is_by_score, margin)


def _read_conversation(record: Record, rule: _Rule, kind: str, flags: MessageFlags) -> Iterator[SourceRow | Rejected]:
    fields = record.fields
    conversation_id, client_id = id_of(fields.get("conversation_id")), id_of(fields.get("user_id"))
    turns = _turns_of(fields.get("conversation_history"))
    problem = turns if isinstance(turns, str) else None
    for name, value in (("conversation_id", conversation_id), ("user_id", client_id)):
        if value is None:
            problem = f"{name}: is missing or no id"
    if kind != "all" and fields.get("conversation_type") != _TYPES[kind]:
        problem = f"conversation_type: is {quoted(fields.get('conversation_type'))}, asked for was {_TYPES[kind]!r}"
    if problem is not None or conversation_id is None or client_id is None or isinstance(turns, str):
        yield Rejected(record.file, record.line, problem or "cannot be used")
        return
    flagged = flags.of(conversation_id)
    for item in _pairs_along_the_path(turns, rule, flagged):
        if isinstance(item, str):
            yield Rejected(record.file, record.line, item)
            continue
        row, is_toxic, ids = item
        row |= {"client_id": client_id, "row_id": make_row_id("fed-prism", conversation_id, *ids)}
        yield SourceRow(row, record.file, record.line, is_toxic=is_toxic)


def _turns_of(history: Any) -> dict[int, _Turn] | str:
    """The turns by number; or why nobody can tell what belongs where."""
    if not isinstance(history, list) or not history:
        return "conversation_history: is missing or empty"
    turns: dict[int, _Turn] = {}
    for index, message in enumerate(history):
        number = message.get("turn") if isinstance(message, dict) else None
        if not isinstance(message, dict) or not isinstance(number, int) or isinstance(number, bool):
            return f"conversation_history[{index}]: is no message of a numbered turn"
        turn = turns.setdefault(number, _Turn())
        if message.get("role") == "user":
            turn.prompts.append(message.get("content"))
        elif message.get("role") == "model":
            _add_answer(turn, message)
        else:
            return f"conversation_history[{index}]: role {quoted(message.get('role'))} is neither user nor model"
    return turns


def _add_answer(turn: _Turn, message: dict[str, Any]) -> None:
    turn.num_answers += 1
    content, score = message.get("content"), message.get("score")
    if text_of(content) is None or content == _EMPTY:
        turn.problems.append(f"answer {turn.num_answers} is empty")
    elif not isinstance(message.get("if_chosen"), bool):
        turn.problems.append(f"answer {turn.num_answers}: if_chosen is {quoted(message.get('if_chosen'))}")
    else:
        is_score = isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 100
        turn.answers.append(
            _Answer(
                ident=id_of(message.get("within_turn_id")) or f"position {turn.num_answers}",
                content=str(content),
                model=id_of(message.get("model_name")),
                score=score if is_score else None,
                is_chosen=message["if_chosen"],
            )
        )


_Pair = tuple[dict[str, Any], bool, tuple[str, str, str]]


def _pairs_along_the_path(
    turns: dict[int, _Turn], rule: _Rule, flagged: Set[tuple[int, str]]
) -> Iterator[_Pair | str]:
    """Yield (row, is it toxic, ids in the conversation), and the reason for whatever makes no pair."""
    path: list[dict[str, str]] = []
    is_path_toxic = False
    lost: str | None = None
    for position, number in enumerate(sorted(turns)):
        turn = turns[number]
        lost = lost or (None if number == position else "an earlier turn is missing")
        if lost is None and [text_of(prompt) for prompt in turn.prompts] in ([None], []):
            lost = "an earlier turn cannot be used"
            yield f"turn {number}: has no prompt"
        elif lost is None and (len(turn.prompts) > 1 or turn.prompts == [_EMPTY]):
            lost = "an earlier turn cannot be used"
            yield (
                f"turn {number}: has an empty prompt" if len(turn.prompts) == 1 else f"turn {number}: has two prompts"
            )
        elif lost is not None:
            yield f"turn {number}: {lost}"
        else:
            yield from (f"turn {number}: {problem}" for problem in turn.problems)
            prompt = [*path, {"role": "user", "content": turn.prompts[0]}]
            is_path_toxic = is_path_toxic or (number, PROMPT) in flagged
            chosen = _chosen_of(turn)
            for item in _pairs_of_turn(turn, chosen, rule):
                if isinstance(item, str):
                    yield f"turn {number}: {item}"
                    continue
                row = {
                    "prompt": prompt,
                    "chosen": [{"role": "assistant", "content": item[0].content}],
                    "rejected": [{"role": "assistant", "content": item[1].content}],
                    "chosen_model": item[0].model,
                    "rejected_model": item[1].model,
                }
                is_toxic = is_path_toxic or any((number, answer.ident) in flagged for answer in item)
                yield row, is_toxic, (str(number), item[0].ident, item[1].ident)
            if chosen is None:
                lost = "an earlier turn has no chosen answer"
            else:
                path = [*prompt, {"role": "assistant", "content": chosen.content}]
                is_path_toxic = is_path_toxic or (number, chosen.ident) in flagged


def _chosen_of(turn: _Turn) -> _Answer | None:
    chosen = [answer for answer in turn.answers if answer.is_chosen]
    return chosen[0] if len({answer.content for answer in chosen}) == 1 else None


def _pairs_of_turn(turn: _Turn, chosen: _Answer | None, rule: _Rule) -> Iterator[tuple[_Answer, _Answer] | str]:
    if len(turn.answers) < 2:
        yield "has one usable answer only" if turn.answers else "has no usable answer"
    elif rule.is_by_score:
        yield from (f"answer {quoted(answer.ident)} has no score" for answer in turn.answers if answer.score is None)
        for one, other in combinations([answer for answer in turn.answers if answer.score is not None], 2):
            margin = (one.score or 0) - (other.score or 0)
            if abs(margin) < rule.min_margin:
                yield f"two answers are scored less than {rule.min_margin:g} apart"
            else:
                yield (one, other) if margin > 0 else (other, one)
    elif chosen is None:
        is_none = not any(answer.is_chosen for answer in turn.answers)
        yield "no usable answer is chosen" if is_none else "different answers are chosen"
    else:
        for other in turn.answers:
            if other is not chosen:
                yield _why_not(chosen, other) or (chosen, other)


def _why_not(chosen: _Answer, other: _Answer) -> str | None:
    if other.is_chosen:
        return "the chosen answer occurs twice"
    if chosen.score is None or other.score is None or other.score < chosen.score:
        return None
    if other.score == chosen.score:
        return "an answer is scored like the chosen one, and upstream breaks ties at random"
    return "an answer is scored above the chosen one"


FED_PRISM = Source(
    name="fed-prism",
    task="preference",
    summary="What PRISM's participants preferred in conversations with 21 models: the chosen answer of every turn "
    "against the others; a client is the participant.",
    client="the participant (PRISM `user_id`)",
    licence="cc-by-nc-4.0",
    licence_url="https://creativecommons.org/licenses/by-nc/4.0/",
    terms="Texts written by people are under CC-BY-4.0, answers of models under CC-BY-NC-4.0 and the terms of each "
    "model's provider; users agree not to identify anybody in the data, also not by joining it with other data.",
    attribution="The PRISM Alignment Dataset, by Hannah Rose Kirk and others, University of Oxford",
    gate="These are conversations of people with models, with what they preferred. By asking for access you agree to "
    "use the models' answers for non-commercial purposes only and within the terms of the models' providers, and not "
    "to try to find out who a participant is, be it from these rows or by joining them with the survey, demographics "
    "or any other data (no re-identification).",
    upstream=_HUB_ID,
    revision=_REVISION,
    citation="""@article{kirk2024prism,
  title = {The {PRISM} Alignment Dataset: What Participatory, Representative and Individualised Human Feedback Reveals
    About the Subjective and Multicultural Alignment of Large Language Models},
  author = {Kirk, Hannah Rose and Whitefield, Alexander and R{\\"o}ttger, Paul and Bean, Andrew and Margatina, Katerina
    and Ciro, Juan and Mosquera, Rafael and Bartolo, Max and Williams, Adina and He, He and Vidgen, Bertie
    and Hale, Scott A.},
  journal = {arXiv preprint arXiv:2404.16019},
  year = {2024}
}""",
    read=_read,
    options={
        **HUB_OPTIONS,
        "pairs": "choices (preset): the chosen answer against the others; scores: any two answers scored differently",
        "min_margin": "with pairs=scores, the least difference of two scores of 1 to 100; preset 1",
        "conversation_type": "all (preset), unguided, values or controversy: what the participant chose to talk about",
        "moderation": "upstream (preset): flags from metadata.jsonl and utterances.jsonl; off: no row is flagged",
    },
    filters=Filters(min_rows=2),
    filter_reasons="A client needs two pairs, one to train on and one to test on. Rows with a message that upstream's "
    "moderation flagged are left out: its card asks to filter before training.",
    sizes=(
        KnownSize(
            of="upstream, conversations",
            num_clients=1_396,
            num_rows=8_011,
            reference="PRISM dataset card and code book (1,500 participants, 1,396 of them with conversations)",
        ),
        KnownSize(
            of="upstream, scored answers",
            num_clients=1_396,
            num_rows=68_371,
            reference="PRISM dataset card and code book (27,172 turns)",
        ),
    ),
    limits=(
        "99% of the texts are in English; upstream has no language but an automatic one, which is not used.",
        "The difference of two scores is not kept; with pairs=scores it decides which pairs there are.",
        "Paid participants were asked for value-laden and controversial topics in two of three conversations.",
        "The moderation flags come from an automatic classifier of 2023-2024, and it errs.",
    ),
    ids_must_be_hashed=True,
    clients_share_items=True,
)
