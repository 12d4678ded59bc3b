"""RealHumanEval chat logs: the client is the programmer, a row one whole conversation with a model.

Upstream logs every answer: `request` holds the conversation up to the question as a Python literal, `response` the
answer. The request of a later log holds the earlier turns, so only logs that no other log of the programmer goes on
from become rows. Where the assistant failed to answer, the programmer asked on and two questions stand in a row: they
become one message, and a question asked again in the same words stands once.

Reference: Mozannar et al. 2024, "The RealHumanEval", arXiv:2404.02806.
"""

import ast
import json
import warnings
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedllm_data.client_ids import canonical_id
from fedllm_data.schema import make_row_id
from fedllm_data.source import Filters, KnownSize, Rejected, Source, SourceRow
from fedllm_data.upstream.records import Record
from fedllm_data.upstream.scratch import fill_table, open_scratch, stream_rows, text_problem
from fedllm_data.upstream.upstream_files import HUB_OPTIONS, HubFiles, read_upstream

__all__ = ["FED_REALHUMANEVAL"]

_FILES = HubFiles(
    hub_id="hsseinmz/realhumaneval",
    revision="022f90390fddc07b9f6c5bb275127d084b994efc",
    files=("*chat_data.csv",),
)
_ROLES = ("user", "assistant")
_LOGS = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("client_id", pa.string()),
        ("messages", pa.string()),
        ("digest", pa.string()),
        ("earlier", pa.list_(pa.string())),
    ]
)


def _read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
    records = read_upstream(_FILES, path, options)
    with open_scratch() as connection:
        logs = (_log_of(record, ordinal) for ordinal, record in enumerate(records))
        yield from fill_table(connection, "logs", _LOGS, logs)
        connection.execute("""
            CREATE TABLE continued AS SELECT DISTINCT client_id, unnest(earlier) AS digest FROM logs
        """)
        rows = stream_rows(
            connection,
            """
            SELECT file, line, client_id, messages, logs.digest, continued.digest IS NOT NULL AS is_continued,
                   row_number() OVER (PARTITION BY client_id, logs.digest ORDER BY ordinal) > 1 AS is_repeated
            FROM logs LEFT JOIN continued USING (client_id, digest) ORDER BY ordinal
            """,
        )
        for log in rows:
            if log["is_continued"]:
                yield Rejected(log["file"], log["line"], "a longer log of this chat holds the same turns")
            elif log["is_repeated"]:
                yield Rejected(log["file"], log["line"], "repeats an earlier log of this chat")
            else:
                row = {
                    "client_id": log["client_id"],
                    "row_id": make_row_id("realhumaneval", log["client_id"], log["digest"]),
                    "language": "en",
                    "messages": json.loads(log["messages"]),
                }
                yield SourceRow(row, log["file"], log["line"])


def _log_of(record: Record | Rejected, ordinal: int) -> dict[str, Any] | Rejected:
    if isinstance(record, Rejected):
        return record
    fields = record.fields
    programmer = canonical_id(fields.get("programmer_id"))
    problem = text_problem("programmer_id", programmer) or text_problem("response", fields.get("response"))
    turns = fields.get("request")
    if problem is None and isinstance(turns, str):
        turns = _literal(turns)
        if turns is None:
            problem = "request: is not a list in Python's notation"
    problem = problem or _turns_problem(turns)
    if problem is None and not fields["response"].strip():
        problem = "response: is empty"
    if problem:
        return Rejected(record.file, record.line, problem)
    messages = [{"role": turn["role"], "content": turn["content"]} for turn in turns or ()]
    messages.append({"role": "assistant", "content": fields["response"]})
    digests = _digests(messages)
    return {
        "ordinal": ordinal,
        "file": record.file,
        "line": record.line,
        "client_id": programmer,
        "messages": json.dumps(_alternating(messages)),
        "digest": digests[-1],
        "earlier": digests[:-1],
    }


def _literal(text: str) -> list[Any] | None:
    """The list that a Python literal spells, without running anything; None for any other text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\d" in a message is an invalid escape to Python's parser
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def _turns_problem(turns: object) -> str | None:
    if not isinstance(turns, list):
        return f"request: must be a list of messages, got {type(turns).__name__}"
    if not turns:
        return "request: holds no message"
    for turn in turns:
        if not isinstance(turn, dict) or "role" not in turn or "content" not in turn:
            return "request: a message is no mapping with role and content"
        if turn["role"] not in _ROLES:
            return f"request: role {str(turn['role'])[:40]!r} is neither user nor assistant"
        problem = text_problem("request", turn["content"])
        if problem:
            return problem
    if turns[-1]["role"] != "user":
        return "request: does not end with a question"
    return None


def _digests(messages: list[dict[str, str]]) -> list[str]:
    """What identifies the conversation up to each answer."""
    running, digests = blake2b(digest_size=16), []
    for message in messages:
        for text in (message["role"], message["content"]):
            encoded = text.encode()
            running.update(len(encoded).to_bytes(8, "big") + encoded)
        if message["role"] == "assistant":
            digests.append(running.hexdigest())
    return digests


def _alternating(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Join questions that follow one another by a blank line; what is asked again in the same words stands once."""
    joined: list[dict[str, str]] = []
    last = ""
    for message in messages:
        if not joined or message["role"] == "assistant" or joined[-1]["role"] == "assistant":
            joined.append(dict(message))
        elif message["content"].strip() and message["content"] != last:
            joined[-1]["content"] += "\n\n" + message["content"]
        last = message["content"]
    return joined


FED_REALHUMANEVAL = Source(
    name="fed-realhumaneval",
    task="sft",
    summary="Conversations of programmers with a model while they solved coding tasks; a client is the programmer.",
    client="the programmer, a participant of the study (RealHumanEval `programmer_id`)",
    licence="cc0-1.0",
    licence_url="https://creativecommons.org/publicdomain/zero/1.0/",
    attribution="The RealHumanEval, by Mozannar, Chen, Alsobay, Das, Zhao, Wei, Nagireddy, Sattigeri, Talwalkar and "
    "Sontag",
    terms="The authors' repository gives its licence as CC0 1.0, the dataset's page on the Hub as `cc`. The answers "
    "were written by GPT-3.5, GPT-4o, CodeLlama 7b and CodeLlama 34b, whose makers have terms of their own.",
    upstream=_FILES.hub_id,
    revision=_FILES.revision,
    citation="""@misc{mozannar2024realhumaneval,
  title = {The {RealHumanEval}: Evaluating Large Language Models' Abilities to Support Programmers},
  author = {Mozannar, Hussein and Chen, Valerie and Alsobay, Mohammed and Das, Subhro and Zhao, Sebastian and
            Wei, Dennis and Nagireddy, Manish and Sattigeri, Prasanna and Talwalkar, Ameet and Sontag, David},
  year = {2024},
  eprint = {2404.02806},
  archivePrefix = {arXiv}
}""",
    read=_read,
    is_row_per_record=True,
    options=HUB_OPTIONS,
    filters=Filters(min_rows=2, near_duplicates=0.8),
    filter_reasons="Two rows are the least that can be split into train and test. Near-duplicates at the usual "
    "Jaccard similarity of 0.8; at the pinned commit there are none.",
    sizes=(
        KnownSize(
            of="upstream, logged answers",
            num_clients=107,
            num_rows=1_055,
            reference="chat_data.csv at the pinned commit",
        ),
    ),
    limits=(
        "Each programmer talked to one model alone, so clients differ by the model that answers as well.",
        "Programmers share 17 short Python tasks, so prompts are alike across clients.",
        "Which model answered and which answers were copied into the code is not kept.",
        "Where the model failed to answer, the questions before and after the failure are one message.",
    ),
)
