"""What a build knows of a row without its text: digests, draws, counts and flags, by which everything is decided.

Symbols: a digest is 16 bytes of BLAKE2b; a draw lies in [0, 1) and follows from the seed and the digest alone, so that
adding a row moves no other. What is decided of a person (the draw of the client, the order in which rows are kept)
follows from the *upstream* id, whatever the id is published as: neither a salt nor the task moves it.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from fedllm_data.pipeline.split import draw
from fedllm_data.schema import Task, make_row_id

__all__ = ["FACTS", "facts_of", "opening_of", "prompt_of", "texts_of"]

_TEXT_COLUMNS = ("messages", "prompt", "chosen", "rejected")
FACTS = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("client_id", pa.string()),
        ("row_id", pa.string()),
        ("order_key", pa.string()),
        ("is_public", pa.bool_()),
        ("is_tie", pa.bool_()),
        ("is_toxic", pa.bool_()),
        ("language", pa.string()),
        ("is_upstream_language", pa.bool_()),
        ("is_detected", pa.bool_()),
        ("is_disagreement", pa.bool_()),
        ("num_turns", pa.int64()),
        ("num_chars", pa.int64()),
        ("num_bytes", pa.int64()),
        ("content", pa.binary()),
        ("opening", pa.binary()),
        ("is_group", pa.bool_()),
        ("prompt", pa.binary()),
        ("client_draw", pa.float64()),
        ("opening_draw", pa.float64()),
        ("prompt_draw", pa.float64()),
        ("content_draw", pa.float64()),
    ]
)
"""What the filters and the split rule look at: digests, draws in [0, 1), counts and flags; no text."""


def facts_of(
    row: Mapping[str, Any],
    task: Task,
    name: str,
    seed: int,
    *,
    upstream_id: str | None = None,
    group: str | None = None,
) -> dict[str, Any]:
    """Return the facts that follow from a row itself, of the columns of `FACTS`.

    Args:
        row: a valid row in the form it is published in.
        task: its format.
        name: name of the corpus; part of the row id where the source gave none.
        seed: seeds the draws.
        upstream_id: the client's id before it was hashed; None if it is published as it is.
        group: what the row belongs to and must not be parted from (a thread, a ticket, a document); None takes the
            words that the conversation opens with.

    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    >>> row = {"client_id": "ann", "row_id": "1", "language": "en", "messages": turns}
    >>> facts = facts_of(row, "sft", "fed-test", seed=0)
    >>> facts["num_turns"], facts["num_chars"], facts["is_tie"]
    (1, 7, False)
    """
    pieces: list[str] = []
    num_chars = 0
    for column in _TEXT_COLUMNS:
        for message in row.get(column) or ():
            pieces.append(f"{column}:{message['role']}:{message['content']}")
            num_chars += len(message["content"])
    text = "\0".join(pieces).encode()
    content = _digest(text)
    client_id = row["client_id"]
    upstream_id = client_id if upstream_id is None else upstream_id
    messages = row["messages"] if task == "sft" else row["prompt"]
    num_turns = [message["role"] for message in messages].count("user")
    opening = _digest(opening_of(row, task).encode())
    # The first user message is the last one in a single turn: one digest, one draw.
    prompt = opening if num_turns == 1 else _digest(prompt_of(row, task).encode())
    if group is not None:
        # No opening begins so: its first word is a role.
        opening = _digest(b"group\0" + group.encode())
    row_id = row.get("row_id") or make_row_id(name, client_id, content.hex())
    # Which of several rows stays must not depend on the salt, and a published id must not tell the upstream one.
    is_own = upstream_id == client_id or bool(row.get("row_id"))
    return {
        "client_id": client_id,
        "row_id": row_id,
        "order_key": row_id if is_own else make_row_id(name, upstream_id, content.hex()),
        "is_tie": task == "preference" and row["chosen"] == row["rejected"],
        "language": row["language"],
        "num_turns": num_turns,
        "num_chars": num_chars,
        "num_bytes": len(text),
        "content": content,
        "opening": opening,
        "is_group": group is not None,
        "prompt": prompt,
        "client_draw": _client_draw(seed, upstream_id),
        "opening_draw": draw(seed, "opening", opening),
        "prompt_draw": draw(seed, "prompt", prompt),
        "content_draw": draw(seed, "content", content),
    }


def opening_of(row: Mapping[str, Any], task: Task) -> str:
    """Return the words a conversation opens with: up to the first user message, case and spacing levelled.

    >>> opening_of({"messages": [{"role": "user", "content": "Hello  World"}]}, "sft")
    'user:hello world'
    """
    messages = row["messages"] if task == "sft" else row["prompt"]
    stop = next(index for index, message in enumerate(messages) if message["role"] == "user") + 1
    return _levelled(messages[:stop])


def prompt_of(row: Mapping[str, Any], task: Task) -> str:
    """Return the whole prompt, all messages up to the last user message, case and spacing levelled.

    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    >>> prompt_of({"messages": turns}, "sft")
    'user:hi'
    """
    messages = row["messages"] if task == "sft" else row["prompt"]
    last = max(index for index, message in enumerate(messages) if message["role"] == "user")
    return _levelled(messages[: last + 1])


def texts_of(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the text of every message of a row, in order.

    >>> list(texts_of({"messages": [{"role": "user", "content": "Hi"}]}))
    ['Hi']
    """
    for column in _TEXT_COLUMNS:
        for message in row.get(column) or ():
            yield message["content"]


@lru_cache(maxsize=16_384)
def _client_draw(seed: int, client_id: str) -> float:
    return draw(seed, "client", client_id)


def _levelled(messages: list[dict[str, str]]) -> str:
    return "\0".join(f"{message['role']}:{' '.join(message['content'].split()).casefold()}" for message in messages)


def _digest(text: bytes) -> bytes:
    return blake2b(text, digest_size=16).digest()
