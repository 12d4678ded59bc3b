"""The forms in which one JSON document holds many rows: a list, a list under a name, and tables by column.

Besides the list of objects: an object with one list of objects (`{"data": [...]}`, beside other values such as a
version), columns as lists of equal length (`{"a": [1, 2], "b": [3, 4]}`), and what pandas writes with its `orient`
columns, index and split. An object that is none of these is a row itself; lists of messages (`role` and `content`,
`from` and `value`) are a conversation and never rows.
"""

from collections.abc import Mapping
from typing import Any

from fedllm_data.errors import SourceError

__all__ = ["is_list_of_rows", "rows_of_document"]


def rows_of_document(document: object, place: str) -> list[Any]:
    """Return the rows of a document; each is an object, or something that a reader must reject.

    Args:
        document: what JSON makes of the whole file, a list or an object.
        place: what errors call the file.

    Raises:
        SourceError: if nobody can tell which of several lists holds the rows.

    >>> rows_of_document({"a": [1, 2], "b": [3, 4]}, "rows.json")
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]
    >>> rows_of_document({"version": 1, "data": [{"a": 1}]}, "rows.json")
    [{'a': 1}]
    """
    if isinstance(document, list):
        return document
    if not isinstance(document, dict):
        return [document]
    lists = {name: value for name, value in document.items() if is_list_of_rows(value)}
    others = [value for name, value in document.items() if name not in lists]
    if len(lists) == 1 and not any(
        isinstance(item, dict) for value in others if isinstance(value, list) for item in value
    ):
        return next(iter(lists.values()))
    if len(lists) > 1:
        names = ", ".join(repr(name[:40]) for name in list(lists)[:5])
        raise SourceError(f"{place} holds several lists of rows ({names}); write each into a file of its own")
    if set(document) in ({"columns", "data"}, {"columns", "data", "index"}):
        rows = _split_rows(document["columns"], document["data"])
        if rows is not None:
            return rows
    if _are_columns(document):
        return [dict(zip(document, values, strict=True)) for values in zip(*document.values(), strict=True)]
    return _indexed_rows(document) or [document]


def is_list_of_rows(value: object) -> bool:
    """Return whether a value is a list of objects, of which some may be damaged, and no conversation.

    >>> is_list_of_rows([{"a": 1}]), is_list_of_rows([{"role": "user", "content": "Hi"}]), is_list_of_rows([1])
    (True, False, False)
    """
    if not isinstance(value, list) or not value:
        return False
    num_objects = sum(isinstance(item, dict) for item in value)
    return num_objects > len(value) / 2 and not any(_is_message(item) for item in value)


def _is_message(value: object) -> bool:
    return isinstance(value, Mapping) and ({"role", "content"} <= set(value) or {"from", "value"} <= set(value))


def _are_columns(document: dict[str, Any]) -> bool:
    values = list(document.values())
    if len(values) < 2 or not all(isinstance(value, list) and value for value in values):
        return False
    return len({len(value) for value in values}) == 1 and not any(_is_message(value[0]) for value in values)


def _split_rows(columns: object, data: object) -> list[Any] | None:
    """The rows of pandas' `orient="split"`; a row of another length stays what it is."""
    if not isinstance(columns, list) or not isinstance(data, list) or not all(isinstance(c, str) for c in columns):
        return None
    if not all(isinstance(row, list) for row in data):
        return None
    return [dict(zip(columns, row, strict=True)) if len(row) == len(columns) else row for row in data]


def _indexed_rows(document: dict[str, Any]) -> list[Any] | None:
    """The rows of pandas' `orient="columns"` and `orient="index"`: objects of objects, one level named by numbers."""
    inner = list(document.values())
    if len(inner) < 1 or not all(isinstance(value, dict) and value for value in inner):
        return None
    if all(name.isdigit() for name in document):
        return inner
    index = list(inner[0])
    if len(inner) > 1 and all(name.isdigit() for name in index) and all(list(value) == index for value in inner):
        return [{name: values[label] for name, values in document.items()} for label in index]
    return None
