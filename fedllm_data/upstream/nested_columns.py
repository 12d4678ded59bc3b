"""Columns within columns: `metadata.user` is the value of `user` in the column `metadata`.

Works for objects of JSON, structs and maps of Parquet and Arrow, and for text that spells a JSON object, as CSV files
hold it. A number counts the items of a list from 0. A column whose own name holds the dots comes first.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["nested_columns"]

_MISSING = object()


def nested_columns(fields: Mapping[str, Any], names: Iterable[str]) -> dict[str, tuple[str, Any]]:
    """Return what the nested columns among some names hold, each with the column of the record that it lies in.

    Args:
        fields: a record.
        names: names of columns, nested or not; what the record does not hold is not returned.

    >>> nested_columns({"q": "Hi", "metadata": {"user": 7}}, ["q", "metadata.user", "metadata.age"])
    {'metadata.user': ('metadata', 7)}
    """
    found = {}
    for name in names:
        if "." in name and name not in fields:
            value = _value(fields, name)
            if value is not _MISSING:
                columns = [name[:place] for place in range(len(name)) if name[place] == "." and name[:place] in fields]
                found[name] = (columns[-1], value)
    return found


def _value(inside: Any, name: str) -> Any:
    """The value that a name leads to; its parts may themselves hold dots, the longest that is there counts."""
    if isinstance(inside, str) and inside.lstrip().startswith(("{", "[")):
        try:
            inside = json.loads(inside)
        except (ValueError, RecursionError):
            return _MISSING
    if isinstance(inside, list):
        head, _, rest = name.partition(".")
        if not head.isdecimal() or int(head) >= len(inside):
            return _MISSING
        return _value(inside[int(head)], rest) if rest else inside[int(head)]
    if not isinstance(inside, Mapping):
        return _MISSING
    if name in inside:
        return inside[name]
    place = len(name)
    while (place := name.rfind(".", 0, place)) > 0:
        if name[:place] in inside:
            value = _value(inside[name[:place]], name[place + 1 :])
            if value is not _MISSING:
                return value
    return _MISSING
