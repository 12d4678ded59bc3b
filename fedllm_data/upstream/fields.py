"""Columns of an upstream record, whichever file format stored them: text, flags, conversations as lists or as JSON.

A column that cannot be used raises `FieldError`, whose message is the reason of a `Rejected`; `convert` turns the one
into the other, so that no record is lost and nothing is raised.
"""

import ast
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from fedllm_data.client_ids import canonical_id, is_missing
from fedllm_data.errors import SourceError
from fedllm_data.schema import ROLES
from fedllm_data.source import Rejected, SourceRow
from fedllm_data.upstream.records import Record

__all__ = ["FieldError", "Message", "convert", "identifier", "is_flagged", "is_true", "messages", "nested", "text"]

Message = dict[str, str]
_FLAG_DEPTH = 3


class FieldError(SourceError):
    """A record cannot be used; the message is the reason."""


def convert(
    items: Iterable[Record | Rejected], row_of: Callable[[Record], SourceRow]
) -> Iterator[SourceRow | Rejected]:
    """Yield one item per record: its row, or why there is none.

    Args:
        items: what a reader yields.
        row_of: makes the row, or raises `FieldError`.

    >>> def row_of(record):
    ...     return SourceRow({"client_id": text(record.fields, "name")}, record.file, record.line)
    >>> [item.reason for item in convert([Record({"name": " "}, "names.csv", 2)], row_of)]
    ['name: is empty']
    """
    for item in items:
        if isinstance(item, Rejected):
            yield item
            continue
        try:
            yield row_of(item)
        except FieldError as error:
            yield Rejected(item.file, item.line, str(error))


def text(fields: Mapping[str, Any], name: str) -> str:
    """Return a column that must hold text.

    Raises:
        FieldError: if the column is missing, null, empty or no valid text.

    >>> text({"judge": "ann"}, "judge")
    'ann'
    """
    if name not in fields:
        raise FieldError(f"{name}: the column is missing")
    value = fields[name]
    if not isinstance(value, str):
        raise FieldError(f"{name}: must be text, got {type(value).__name__}")
    if not value.strip():
        raise FieldError(f"{name}: is empty")
    if not _is_valid(value):
        raise FieldError(f"{name}: is not valid Unicode")
    return value


def identifier(fields: Mapping[str, Any], name: str) -> str | None:
    """Return an id or a name in its one spelling, whole numbers as text; None if there is none that can be used.

    >>> identifier({"turn_identifier": 101001}, "turn_identifier"), identifier({"question_id": ""}, "question_id")
    ('101001', None)
    """
    value = fields.get(name)
    if isinstance(value, int) and abs(value) >= 1 << 64:
        return None
    found = canonical_id(value)
    return found if isinstance(found, str) and not is_missing(found) and _is_valid(found) else None


def nested(fields: Mapping[str, Any], name: str) -> Any:
    """Return a list or a struct; text is read as JSON or, as data frames write to CSV, as Python literals.

    Raises:
        FieldError: if the column is missing, or its text is neither.

    >>> nested({"tag": "{'flagged': True}"}, "tag")
    {'flagged': True}
    """
    if name not in fields:
        raise FieldError(f"{name}: the column is missing")
    value = fields[name]
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in the text
            return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise FieldError(f"{name}: is neither a list nor text in JSON") from error


def messages(fields: Mapping[str, Any], name: str) -> list[Message]:
    """Return a conversation: role and content of its messages; what else upstream keeps of a message is left out.

    Raises:
        FieldError: if the column is no list of messages with the roles of the schema.

    >>> messages({"conversation": [{"role": "user", "content": "Hi", "toxic": False}]}, "conversation")
    [{'role': 'user', 'content': 'Hi'}]
    """
    value = nested(fields, name)
    if not isinstance(value, list) or not value:
        raise FieldError(f"{name}: must be a list of messages, got {type(value).__name__ if value else 'nothing'}")
    for index, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise FieldError(f"{name}[{index}]: must be a message, got {type(message).__name__}")
        if not isinstance(message.get("role"), str) or message["role"] not in ROLES:
            raise FieldError(f"{name}[{index}]: role {str(message.get('role'))[:40]!r} is none of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            raise FieldError(f"{name}[{index}]: content must be text, got {type(message.get('content')).__name__}")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def is_true(value: object) -> bool:
    """Return whether a flag is set, also if a text file spells it out.

    >>> [is_true(value) for value in (True, "True", 1, None, "false")]
    [True, True, True, False, False]
    """
    if isinstance(value, str):
        return value.strip().lower() in ("true", "1")
    return isinstance(value, bool | int | float) and value == 1


def is_flagged(fields: Mapping[str, Any], name: str) -> bool:
    """Whether a moderation column says `flagged`: of its struct, or of one in its list or struct.

    >>> is_flagged({"tag": {"roberta-large": {"flagged": False}, "t5-large": {"flagged": True}}}, "tag")
    True
    """
    try:
        return _is_flagged(nested(fields, name), _FLAG_DEPTH)
    except FieldError:
        return False


def _is_flagged(value: object, depth: int) -> bool:
    inner: Iterable[object] = ()
    if isinstance(value, Mapping):
        if is_true(value.get("flagged")):
            return True
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    return depth > 0 and any(_is_flagged(item, depth - 1) for item in inner)


def _is_valid(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
