"""What a build knows of a row without its text: digests, draws, counts and flags, by which everything is decided.

Symbols: a digest is 16 bytes of BLAKE2b; a draw lies in [0, 1) and follows from the seed and the digest alone, so that
adding a row moves no other. What is decided of a person (the draw of the client, the order in which rows are kept)
follows from the *upstream* id, whatever the id is published as: neither a salt nor the task moves it.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from fedllm_data.pipeline.split import draws
from fedllm_data.schema import Task, make_row_id

__all__ = ["FACTS", "TEXT_COLUMNS", "facts_of", "facts_of_rows", "num_chars_of", "opening_of", "prompt_of"]

TEXT_COLUMNS: dict[Task, tuple[str, ...]] = {"sft": ("messages",), "preference": ("prompt", "chosen", "rejected")}
"""The message lists of a task's rows, in their order."""
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
    columns = facts_of_rows([row], task, name, seed, upstream_ids=[upstream_id or row["client_id"]], groups=[group])
    return {name: values[0] for name, values in columns.items()}


def facts_of_rows(
    rows: Sequence[Mapping[str, Any]],
    task: Task,
    name: str,
    seed: int,
    *,
    upstream_ids: Sequence[str],
    groups: Sequence[str | None],
) -> dict[str, list[Any]]:
    """Return what `facts_of` tells of each row, column by column.

    Args:
        rows: valid rows in the form they are published in.
        task: their format.
        name: name of the corpus.
        seed: seeds the draws.
        upstream_ids: the client's id of each row before it was hashed.
        groups: the group of each row, None where it has none.

    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    >>> row = {"client_id": "ann", "row_id": "1", "language": "en", "messages": turns}
    >>> facts_of_rows([row], "sft", "fed-test", 0, upstream_ids=["ann"], groups=[None])["num_bytes"]
    [41]
    """
    messages = [row["messages"] if task == "sft" else row["prompt"] for row in rows]
    num_turns = [[message["role"] for message in turns].count("user") for turns in messages]
    texts = [_text_of(row, task) for row in rows]
    contents = [_digest(text) for text in texts]
    openings = [_digest(opening_of(row, task).encode()) for row in rows]
    # The first user message is the last one in a single turn: one digest, one draw.
    prompts = [
        opening if num == 1 else _digest(prompt_of(row, task).encode())
        for row, num, opening in zip(rows, num_turns, openings, strict=True)
    ]
    # No opening begins so: its first word is a role.
    openings = [
        opening if group is None else _digest(b"group\0" + group.encode())
        for opening, group in zip(openings, groups, strict=True)
    ]
    client_ids = [row["client_id"] for row in rows]
    row_ids = [
        row.get("row_id") or make_row_id(name, client_id, content.hex())
        for row, client_id, content in zip(rows, client_ids, contents, strict=True)
    ]
    # Which of several rows stays must not depend on the salt, and a published id must not tell the upstream one.
    order_keys = [
        row_id if row.get("row_id") or upstream_id == client_id else make_row_id(name, upstream_id, content.hex())
        for row, row_id, client_id, upstream_id, content in zip(
            rows, row_ids, client_ids, upstream_ids, contents, strict=True
        )
    ]
    return {
        "client_id": client_ids,
        "row_id": row_ids,
        "order_key": order_keys,
        "is_tie": [task == "preference" and row["chosen"] == row["rejected"] for row in rows],
        "language": [row["language"] for row in rows],
        "num_turns": num_turns,
        "num_chars": [num_chars_of(row, task) for row in rows],
        "num_bytes": [len(text) for text in texts],
        "content": contents,
        "opening": openings,
        "is_group": [group is not None for group in groups],
        "prompt": prompts,
        "client_draw": draws(seed, "client", [client_id.encode() for client_id in upstream_ids]),
        "opening_draw": draws(seed, "opening", openings),
        "prompt_draw": draws(seed, "prompt", prompts),
        "content_draw": draws(seed, "content", contents),
    }


def opening_of(row: Mapping[str, Any], task: Task) -> str:
    """Return the words a conversation opens with: up to the first user message, case and spacing levelled.

    >>> opening_of({"messages": [{"role": "user", "content": "Hello  World"}]}, "sft")
    'user:hello world'
    """
    messages = row["messages"] if task == "sft" else row["prompt"]
    stop = [message["role"] for message in messages].index("user") + 1
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


def num_chars_of(row: Mapping[str, Any], task: Task) -> int:
    """Return the number of characters in the messages of a row.

    >>> num_chars_of({"messages": [{"role": "user", "content": "Hi"}]}, "sft")
    2
    """
    return sum([len(message["content"]) for column in TEXT_COLUMNS[task] for message in row[column]])


def _text_of(row: Mapping[str, Any], task: Task) -> bytes:
    """All that a row says, with the roles."""
    return "\0".join(
        [
            f"{column}:{message['role']}:{message['content']}"
            for column in TEXT_COLUMNS[task]
            for message in row[column]
        ]
    ).encode()


def _levelled(messages: list[dict[str, str]]) -> str:
    return "\0".join([f"{message['role']}:{' '.join(message['content'].split()).casefold()}" for message in messages])


def _digest(text: bytes) -> bytes:
    return blake2b(text, digest_size=16).digest()
