"""WildChat: conversations that people had with ChatGPT on a free public site; the client is the hashed IP address.

Upstream's hash of the address is never published: a build replaces it by a hash with a salt of the publisher's own.
Both corpora are made of whole conversations, `fed-wildchat` of those with one exchange, `fed-wildchat-multi` of the
longer ones, so no conversation is in both. A conversation is cut before its first message that is empty or that
nobody answered (upstream's site let people send nothing); the pieces that upstream redacted stay redacted.

References: Zhao et al. 2024, "WildChat: 1M ChatGPT Interaction Logs in the Wild", arXiv:2405.01470; Ye et al. 2024,
"FedLLM-Bench", arXiv:2406.04845.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedllm_data.pipeline.language_detection import language_code
from fedllm_data.schema import make_row_id, row_problem
from fedllm_data.source import Filters, KnownSize, Rejected, Source, SourceRow
from fedllm_data.upstream.fields import FieldError, Message, convert, identifier, is_flagged, is_true, messages, nested
from fedllm_data.upstream.records import Record
from fedllm_data.upstream.upstream_files import HUB_OPTIONS, HubFiles, read_upstream

__all__ = ["FED_WILDCHAT", "FED_WILDCHAT_MULTI"]

_FILES = HubFiles(
    hub_id="allenai/WildChat-1M",
    revision="7d6490e462285cf85d91eabea0f9a954fbddcd1f",
    files=("data/train-*.parquet",),
)


def _read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    return convert(read_upstream(_FILES, path, options), _row_of)


def _row_of(record: Record) -> SourceRow:
    fields = record.fields
    conversation = messages(fields, "conversation")
    raw: list[Mapping[str, Any]] = nested(fields, "conversation")
    client_id = identifier(fields, "hashed_ip") or next(filter(None, (identifier(m, "hashed_ip") for m in raw)), None)
    if client_id is None:
        raise FieldError("hashed_ip: is missing, also in the messages")
    row = {
        "client_id": client_id,
        "row_id": _row_id(fields, raw),
        "language": language_code(fields.get("language")),
        "messages": _answered_part(conversation),
    }
    is_toxic = (
        is_true(fields.get("toxic"))
        or any(is_true(message.get("toxic")) for message in raw)
        or is_flagged(fields, "openai_moderation")
    )
    return SourceRow(row, record.file, record.line, is_toxic=is_toxic)


def _row_id(fields: Mapping[str, Any], raw: list[Mapping[str, Any]]) -> str | None:
    """Different conversations of equal words share `conversation_hash`; the first turn's number tells them apart."""
    ids = (identifier(fields, "conversation_hash"), identifier(raw[0], "turn_identifier"))
    return make_row_id("wildchat", *(part or "" for part in ids)) if any(ids) else None


def _answered_part(conversation: list[Message]) -> list[Message]:
    """The conversation up to the last answer before anything is empty, unanswered or out of turn."""
    end = start = int(conversation[0]["role"] == "system")
    while (
        [message["role"] for message in conversation[end : end + 2]] == ["user", "assistant"]
        and conversation[end]["content"].strip()
        and conversation[end + 1]["content"].strip()
    ):
        end += 2
    if end == start:
        problem = row_problem({"client_id": "any", "messages": conversation}, "sft")
        raise FieldError(problem or "messages: the first exchange is incomplete")
    return conversation[:end]


_COMMON: dict[str, Any] = {
    "task": "sft",
    "client": "the IP address that the conversation came from (WildChat `hashed_ip`, hashed again with a salt)",
    "licence": "odc-by",
    "licence_url": "https://opendatacommons.org/licenses/by/1-0/",
    "attribution": "Contains information from WildChat-1M by the Allen Institute for AI, which is made available "
    "under the ODC Attribution License",
    "upstream": _FILES.hub_id,
    "revision": _FILES.revision,
    "citation": """@inproceedings{zhao2024wildchat,
  title = {{WildChat}: 1M {ChatGPT} Interaction Logs in the Wild},
  author = {Zhao, Wenting and Ren, Xiang and Hessel, Jack and Cardie, Claire and Choi, Yejin and Deng, Yuntian},
  booktitle = {International Conference on Learning Representations},
  year = {2024}
}""",
    "read": _read,
    "is_row_per_record": True,
    "options": HUB_OPTIONS,
    "terms": "ODC-BY since 2024-06-26, for earlier downloads too; the answers were written by OpenAI models, whose "
    "terms bind those who use them to develop models.",
    "limits": (
        "Upstream removed all conversations flagged as toxic on 2024-07-22 and those with personal or sensitive "
        "content on 2024-10-17, after the benchmark was built: its published counts cannot come out.",
        "An IP address is not a person: a household, a school or a proxy may be one client, and one person several.",
        "Upstream de-identified the text; what it redacted stays redacted, and some that it missed may be left.",
        "The language is that of the whole conversation as upstream detected it; people switch languages within one.",
        "A conversation is cut before its first message that is empty or that nobody answered.",
        "Some addresses sent one template over and over; near-duplicates are left out unless asked for.",
    ),
    "ids_must_be_hashed": True,
}
_UPSTREAM_SIZES = (
    KnownSize(
        of="upstream, all conversations",
        num_clients=None,
        num_rows=837_989,
        reference=f"dataset card of {_FILES.hub_id} at {_FILES.revision[:7]}",
    ),
    KnownSize(
        of="upstream as first released, toxic conversations included",
        num_clients=204_736,
        num_rows=1_039_785,
        reference="Zhao et al. 2024, arXiv:2405.01470",
    ),
)
_CHOICE = (
    "How FedLLM-Bench chose its clients is not published. Ours are the addresses with the most conversations once "
    "near-duplicates are gone, as many as the benchmark has. No client is given more rows than the largest one that "
    "the benchmark's scripts name ({max_rows}), since a few addresses with very many conversations would outweigh all "
    "others{evidence}. Both are estimates."
)

FED_WILDCHAT = Source(
    name="fed-wildchat",
    summary="Single questions that people put to ChatGPT on a public site, and its answers; a client is an address.",
    filters=Filters(max_clients=100, max_rows=1_702, max_turns=1, near_duplicates=0.8),
    filter_reasons=_CHOICE.format(
        max_rows="1,702", evidence=", which the published 527 rows a client with a standard deviation of 477 rule out"
    ),
    sizes=(
        KnownSize(
            of="FedLLM-Bench, Fed-WildChat, single turn",
            num_clients=100,
            num_rows=52_703,
            reference="Ye et al. 2024, arXiv:2406.04845, Table 1",
        ),
        *_UPSTREAM_SIZES,
    ),
    **_COMMON,
)
FED_WILDCHAT_MULTI = Source(
    name="fed-wildchat-multi",
    summary="Conversations of several turns that people had with ChatGPT on a public site; a client is an address.",
    filters=Filters(max_clients=50, max_rows=635, min_turns=2, near_duplicates=0.8),
    filter_reasons=_CHOICE.format(max_rows="635", evidence="; the published mean is 308 rows"),
    sizes=(
        KnownSize(
            of="FedLLM-Bench, Fed-WildChat, multi-turn",
            num_clients=50,
            num_rows=15_406,
            reference="FedLLM-Bench's training scripts (file wildchat_50c.json)",
        ),
        *_UPSTREAM_SIZES,
    ),
    **_COMMON,
)
