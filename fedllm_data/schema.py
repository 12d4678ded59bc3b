"""The two row formats of a client repo, and what makes a row valid.

`sft`:        client_id, row_id, language, detected_language, messages
`preference`: client_id, row_id, language, detected_language, prompt, chosen, rejected, chosen_model, rejected_model

A client id has one spelling (`client_ids.py`), and no word for a missing value is one.

`language` is what upstream says, or the detector's word where upstream says nothing; `detected_language` is the
detector's word alone, null where it does not dare or was not asked: where the two differ, both are kept.

A message is `{role, content}`. Both formats go into TRL's `SFTTrainer` and `DPOTrainer` as they are: extra columns
are ignored there, and no nested field is ever null. Imports pyarrow and `client_ids.py` only.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, pairwise
from typing import Any, Literal

import pyarrow as pa

from fedllm_data.client_ids import is_missing
from fedllm_data.errors import SchemaError

__all__ = [
    "MAX_CLIENT_ID_BYTES",
    "PUBLIC_CLIENT",
    "ROLES",
    "SCHEMAS",
    "SPLITS",
    "UNDETERMINED",
    "Task",
    "client_id_problem",
    "is_plain",
    "make_row_id",
    "row_problem",
    "task_of_columns",
]

Task = Literal["sft", "preference"]

ROLES = ("system", "user", "assistant")
SPLITS = ("train", "test", "unseen", "public")
"""`public` rows belong to no client: what a server may use before round 0 (a base model, a codebook)."""
PUBLIC_CLIENT = "public"
UNDETERMINED = "und"
"""ISO 639-2 code for a language nobody determined."""
MAX_CLIENT_ID_BYTES = 256

_MESSAGES = pa.list_(
    pa.struct([pa.field("role", pa.string(), nullable=False), pa.field("content", pa.string(), nullable=False)])
)
_COMMON = [
    pa.field("client_id", pa.string(), nullable=False),
    pa.field("row_id", pa.string(), nullable=False),
    pa.field("language", pa.string(), nullable=False),
    pa.field("detected_language", pa.string()),
]

SCHEMAS: dict[Task, pa.Schema] = {
    "sft": pa.schema([*_COMMON, pa.field("messages", _MESSAGES, nullable=False)]),
    "preference": pa.schema(
        [
            *_COMMON,
            pa.field("prompt", _MESSAGES, nullable=False),
            pa.field("chosen", _MESSAGES, nullable=False),
            pa.field("rejected", _MESSAGES, nullable=False),
            pa.field("chosen_model", pa.string()),
            pa.field("rejected_model", pa.string()),
        ]
    ),
}


def make_row_id(source: str, *upstream_ids: str) -> str:
    """Return a row id that stays the same across rebuilds, whatever other rows there are.

    Args:
        source: name of the corpus.
        upstream_ids: what identifies the row upstream (message ids, or the row's text where upstream has no id).

    >>> make_row_id("fed-oasst", "m1", "m2") == make_row_id("fed-oasst", "m1", "m2")
    True
    >>> make_row_id("fed-oasst", "m1", "m2") == make_row_id("fed-oasst", "m1m2")
    False
    """
    parts = [part.encode() for part in (source, *upstream_ids)]
    lengths = (len(part).to_bytes(8, "big") for part in parts)
    return blake2b(b"".join(chain.from_iterable(zip(lengths, parts, strict=True))), digest_size=12).hexdigest()


def row_problem(row: Mapping[str, Any], task: Task) -> str | None:
    """Return why a row cannot be used for a task, in words for `rejected.jsonl`, or None if it can.

    A row must name its client; its messages must alternate user and assistant after an optional system message and
    hold text; `messages` ends with the assistant; `prompt` ends with the user; `chosen` and `rejected` are one
    assistant turn each. (That they differ is a filter of the build, not a matter of format.)

    >>> turn = {"role": "user", "content": "Hi"}
    >>> row_problem({"client_id": "a", "messages": [turn]}, "sft")
    'messages: must end with an assistant message, ends with user'
    """
    problem = client_id_problem(row.get("client_id"))
    if problem:
        return problem
    if all(is_plain(row.get(column), *ends) for column, *ends in _ENDS[task]):
        return None
    if task == "sft":
        return _messages_problem("messages", row.get("messages"), first="user", last="assistant")
    problem = _messages_problem("prompt", row.get("prompt"), first="user", last="user")
    for column in ("chosen", "rejected"):
        problem = problem or _messages_problem(column, row.get(column), first="assistant", last="assistant")
    return problem


_ENDS: dict[Task, tuple[tuple[str, str, str], ...]] = {
    "sft": (("messages", "user", "assistant"),),
    "preference": (
        ("prompt", "user", "user"),
        ("chosen", "assistant", "assistant"),
        ("rejected", "assistant", "assistant"),
    ),
}
"""The message lists of a task, each with the roles it begins with (after a system message) and ends with."""


def is_plain(messages: object, first: str, last: str) -> bool:
    """Return whether a message list is valid and without any oddity; of False nothing follows.

    Rows pass this one look; only for one that does not the checks go on, one by one, to name what is wrong.

    >>> is_plain([{"role": "user", "content": "Hi"}], "user", "user"), is_plain([], "user", "user")
    (True, False)
    """
    if type(messages) is not list:
        return False
    roles = []
    for message in messages:
        if type(message) is not dict or len(message) != 2:
            return False
        content = message.get("content")
        if type(content) is not str or not content.strip() or "\0" in content:
            return False
        if not content.isascii():
            try:
                content.encode()
            except UnicodeEncodeError:
                return False
        roles.append(message.get("role"))
    try:
        return _are_in_turn(tuple(roles), first, last)
    except TypeError:  # a role that cannot be hashed
        return False


@lru_cache(maxsize=1024)
def _are_in_turn(roles: tuple[object, ...], first: str, last: str) -> bool:
    turns = roles[1:] if roles[:1] == ("system",) else roles
    in_turn = (("user", "assistant") if first == "user" else ("assistant", "user")) * (len(turns) // 2 + 1)
    return bool(turns) and turns == in_turn[: len(turns)] and turns[-1] == last


def client_id_problem(client_id: object) -> str | None:
    """Return why a client id cannot be used, or None if it can; a part of `row_problem`.

    >>> client_id_problem("ann"), client_id_problem("")
    (None, 'client_id: is missing or empty')
    """
    return _text_id_problem(client_id) if type(client_id) is str else _client_id_problem(client_id)


@lru_cache(maxsize=16_384)
def _text_id_problem(client_id: str) -> str | None:
    return _client_id_problem(client_id)


def _client_id_problem(client_id: object) -> str | None:
    if client_id is None or client_id == "":
        return "client_id: is missing or empty"
    if not isinstance(client_id, str):
        return f"client_id: must be a string, got {type(client_id).__name__}"
    num_bytes = len(client_id.encode(errors="surrogatepass"))
    if num_bytes > MAX_CLIENT_ID_BYTES:
        return f"client_id: is {num_bytes} bytes long, at most {MAX_CLIENT_ID_BYTES} are allowed"
    if is_missing(client_id):
        return f"client_id: {client_id!r} stands for a missing id"
    if not client_id.isprintable() and any(ord(char) < 32 or ord(char) == 127 for char in client_id):
        return "client_id: contains a control character"
    return _encoding_problem("client_id", client_id)


def _messages_problem(column: str, messages: object, *, first: str, last: str) -> str | None:
    if not isinstance(messages, list | tuple) or not messages:
        return f"{column}: is missing or empty"
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            return f"{column}[{index}]: must be a mapping with role and content"
        role, content = message["role"], message["content"]
        if role not in ROLES:
            return f"{column}[{index}]: role {str(role)[:40]!r} is none of {', '.join(ROLES)}"
        if not isinstance(content, str):
            return f"{column}[{index}]: content must be text, got {type(content).__name__}"
        if not content.strip():
            return f"{column}[{index}]: content is empty"
        problem = _encoding_problem(f"{column}[{index}]", content)
        if problem:
            return problem
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if not turns or turns[0] != first:
        return f"{column}: must begin with a {first} message, begins with {turns[0] if turns else 'nothing'}"
    for index, (before, role) in enumerate(pairwise(turns), start=len(roles) - len(turns) + 1):
        if role in (before, "system"):
            return f"{column}[{index}]: roles must alternate, got {role} after {before}"
    if turns[-1] != last:
        return f"{column}: must end with {'an' if last == 'assistant' else 'a'} {last} message, ends with {turns[-1]}"
    return None


def _encoding_problem(column: str, text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"{column}: is not valid Unicode at character {error.start}"
    return "contains a NUL character" if "\0" in text else None


def task_of_columns(columns: Iterable[str], name: str) -> Task:
    """Return which of the two row formats some columns are.

    Args:
        columns: column names.
        name: what to call the dataset in the error.

    Raises:
        SchemaError: if they are neither.

    >>> task_of_columns(["client_id", "prompt", "chosen", "rejected"], "memory")
    'preference'
    """
    present = set(columns)
    if {"client_id", "messages"} <= present:
        return "sft"
    if {"client_id", "prompt", "chosen", "rejected"} <= present:
        return "preference"
    raise SchemaError(
        f"{name} has the columns {', '.join(sorted(present))[:200]}; a client dataset needs client_id and messages, "
        "or client_id, prompt, chosen and rejected: `fedllm-data import` makes one"
    )
