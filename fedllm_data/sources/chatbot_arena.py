"""Chatbot Arena conversations: the client is the user who asked two anonymous models and judged their answers.

`fed-chatbot-it` holds the conversation the user preferred. `fed-chatbot-pa` holds pairs. Both models get the same
user messages, but the vote is on the conversations as a whole, and after the first exchange each model answers to a
history of its own. So a pair is made where the two conversations first differ, with what they share as the prompt,
and only if they end there; a vote on more exchanges judges more than the pair, and is left out unless `unfiltered`.
Ties and "both bad" choose nothing: they are rejected in both corpora.

Reference: Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", arXiv:2306.05685.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedllm_data.errors import SourceError
from fedllm_data.pipeline.language_detection import language_code
from fedllm_data.schema import make_row_id
from fedllm_data.source import Filters, KnownSize, Rejected, Source, SourceRow
from fedllm_data.upstream.fields import FieldError, Message, convert, identifier, is_flagged, messages, text
from fedllm_data.upstream.records import Record
from fedllm_data.upstream.upstream_files import HUB_OPTIONS, HubFiles, read_upstream

__all__ = ["FED_CHATBOT_IT", "FED_CHATBOT_PA"]

_FILES = HubFiles(
    hub_id="lmsys/chatbot_arena_conversations",
    revision="1b6335d42a1d2c7e34870c905d03ab964f7f2bd8",
    files=("data/train-*.parquet",),
)
_SIDES = {"model_a": ("a", "b"), "model_b": ("b", "a")}
"""The vote, and the sides it prefers and rejects."""
_TIES = {"tie": "the user called it a tie", "tie (bothbad)": "the user found both answers bad"}


def _read_sft(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    def row_of(record: Record) -> SourceRow:
        better, _ = _vote(record)
        return _source_row(record, {"messages": _answered(record, better)})

    return convert(read_upstream(_FILES, path, options), row_of)


def _read_preference(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    value = options.get("unfiltered", "false")
    if value not in ("true", "false"):
        raise SourceError(f"option unfiltered is {value[:40]!r}; give true or false")

    def row_of(record: Record) -> SourceRow:
        better, worse = _vote(record)
        chosen, rejected = _answered(record, better), _answered(record, worse)
        place = _first_difference(chosen, rejected)
        if len(chosen) > place + 1 and value == "false":
            raise FieldError("the vote is also on exchanges after the first different answers")
        row = {
            "prompt": chosen[:place],
            "chosen": [chosen[place]],
            "rejected": [rejected[place]],
            "chosen_model": identifier(record.fields, f"model_{better}"),
            "rejected_model": identifier(record.fields, f"model_{worse}"),
        }
        return _source_row(record, row)

    return convert(read_upstream(_FILES, path, options), row_of)


def _vote(record: Record) -> tuple[str, str]:
    winner = text(record.fields, "winner")
    if winner in _TIES:
        raise FieldError(_TIES[winner])
    if winner not in _SIDES:
        raise FieldError(f"winner: {winner[:40]!r} is none of {', '.join([*_SIDES, *_TIES])}")
    return _SIDES[winner]


def _answered(record: Record, side: str) -> list[Message]:
    conversation = messages(record.fields, f"conversation_{side}")
    if conversation[-1]["role"] != "assistant":
        raise FieldError(f"conversation_{side}: ends with a {conversation[-1]['role']} message that nobody answered")
    return conversation


def _first_difference(chosen: list[Message], rejected: list[Message]) -> int:
    """Return where two conversations first differ: in an answer; the last answer where they never do."""
    if len(chosen) != len(rejected):
        raise FieldError(f"the conversations have {len(chosen)} and {len(rejected)} messages, not equally many")
    differing = [place for place, pair in enumerate(zip(chosen, rejected, strict=True)) if pair[0] != pair[1]]
    for place in differing:
        if chosen[place]["role"] != "assistant" or rejected[place]["role"] != "assistant":
            raise FieldError("the two models were not asked the same")
    return differing[0] if differing else len(chosen) - 1


def _source_row(record: Record, content: dict[str, Any]) -> SourceRow:
    fields = record.fields
    question_id = identifier(fields, "question_id")
    row = {
        "client_id": text(fields, "judge"),
        "row_id": make_row_id("chatbot-arena", question_id) if question_id else None,
        "language": language_code(fields.get("language")),
        **content,
    }
    is_toxic = is_flagged(fields, "openai_moderation") or is_flagged(fields, "toxic_chat_tag")
    return SourceRow(row, record.file, record.line, is_toxic=is_toxic)


_COMMON: dict[str, Any] = {
    "is_row_per_record": True,
    "client": "the user who asked and judged (Arena `judge`; upstream counts one IP address as one user)",
    "licence": "cc-by-nc-4.0",
    "licence_url": "https://creativecommons.org/licenses/by-nc/4.0/",
    "attribution": "Chatbot Arena Conversations, by LMSYS",
    "upstream": _FILES.hub_id,
    "revision": _FILES.revision,
    "citation": """@article{zheng2023judging,
  title = {Judging {LLM}-as-a-Judge with {MT-Bench} and {Chatbot Arena}},
  author = {Zheng, Lianmin and Chiang, Wei-Lin and Sheng, Ying and Zhuang, Siyuan and others},
  journal = {arXiv preprint arXiv:2306.05685},
  year = {2023}
}""",
    "terms": "User prompts are CC-BY-4.0, model outputs CC-BY-NC-4.0; a model's outputs are also bound by its own "
    "terms of use. Upstream is gated: accept its conditions on the Hub and log in before building.",
    "gate": "These rows come from Chatbot Arena Conversations, whose conditions go on applying here. By asking for "
    "access you agree: to make no attempt at finding out who any person in these rows is; to use the model outputs "
    "for non-commercial purposes only, and within the terms of the model that wrote them; to obey the laws and rules "
    "that apply to you, and to answer for your use yourself; to filter suitably before training a dialogue "
    "system, since rows may be unsafe, offensive or upsetting. What the rows say is not the view of those "
    "who collected, built or host them.",
}
_UPSTREAM_SIZE = KnownSize(
    of="upstream, all votes, ties included",
    num_clients=13_383,
    num_rows=33_000,
    reference=f"dataset card of {_FILES.hub_id} at {_FILES.revision[:7]}",
)
_THRESHOLDS = (
    "The paper states no minimum of rows. An estimate from its counts, both of one source: 237 clients with 26.0 "
    "rows on average for IT, 747 with 12.7 for PA. If activity has a Pareto tail, doubling the minimum doubles the "
    "mean, and the tail's exponent is k = ln(747 / 237) / ln(26.0 / 12.7) = 1.148 / 0.715 = 1.61; the mean above a "
    "minimum m is m k / (k - 1) = 2.65 m, so m = 12.7 / 2.65 = 4.8 for PA and 26.0 / 2.65 = 9.8 for IT: 5 and 10."
)
_LIMITS = (
    "Ties and votes that both answers are bad are left out: they choose nothing.",
    "Conversations that upstream flags as unsafe (by OpenAI moderation or by its own toxicity tags) are left out "
    "unless toxic rows are asked for; the benchmark's own handling is not published.",
    "Votes are opinions given in April to June 2023 on 20 models of that time, unchecked for facts; two people behind "
    "one IP address are one client.",
    "The thresholds are estimates, so the benchmark's counts need not come out.",
)

FED_CHATBOT_IT = Source(
    name="fed-chatbot-it",
    task="sft",
    summary="Questions put to two anonymous models in Chatbot Arena, with the answer the user preferred.",
    read=_read_sft,
    options=HUB_OPTIONS,
    filters=Filters(min_rows=10, max_turns=1),
    filter_reasons=f"{_THRESHOLDS} The benchmark describes this corpus as single-turn, hence at most one turn.",
    sizes=(
        KnownSize(
            of="FedLLM-Bench, Fed-ChatbotIT",
            num_clients=237,
            num_rows=6_166,
            reference="Ye et al. 2024, arXiv:2406.04845, Table 1",
        ),
        _UPSTREAM_SIZE,
    ),
    limits=_LIMITS,
    **_COMMON,
)
FED_CHATBOT_PA = Source(
    name="fed-chatbot-pa",
    task="preference",
    summary="Pairs of answers of two anonymous models in Chatbot Arena, and which of them the user preferred.",
    read=_read_preference,
    options={
        **HUB_OPTIONS,
        "unfiltered": "true also makes pairs of the first different answers where the conversation went on after them",
    },
    filters=Filters(min_rows=5),
    filter_reasons=_THRESHOLDS,
    sizes=(
        KnownSize(
            of="FedLLM-Bench, Fed-ChatbotPA",
            num_clients=747,
            num_rows=9_508,
            reference="Ye et al. 2024, arXiv:2406.04845, Table 1",
        ),
        _UPSTREAM_SIZE,
    ),
    limits=(
        "A vote on several exchanges is left out: after the first one each model answers to its own history, so no "
        "common prompt goes with the vote.",
        *_LIMITS,
    ),
    clients_share_items=True,
    **_COMMON,
)
