"""The clients of a report as the data behind the page's table: compact, safe inside a page, and bounded in size."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fedllm_data.reporting.report_words import telling, title_of, visible
from fedllm_data.reporting.similarity import column_groups

__all__ = ["MAX_TABLE_BYTES", "clients_table", "embedded_json"]

MAX_TABLE_BYTES = 4_500_000
"""With figures and text, the page stays below 6 MB."""
NUM_DIGITS = 4
NUM_OVERVIEW_COLUMNS = 8


def clients_table(document: Mapping[str, Any], max_bytes: int = MAX_TABLE_BYTES) -> dict[str, Any]:
    """Return the columns of the table, clients with the most rows first.

    Args:
        document: the content of heterogeneity.json.
        max_bytes: largest size of the result as JSON; where all clients need more, those with the fewest rows are left
            out.

    Returns:
        `columns`: key, title, group, kind ("text" or "number") and values, where a text column other than the ids
        holds positions in its `labels`; `groups`: name -> keys of its columns; `num_clients` of the report.

    >>> columns = {"client_id": ["a", "b"], "num_rows": [1, 9], "main_language": ["en", None]}
    >>> table = clients_table({"clients": columns, "axes": {}})
    >>> [column["values"] for column in table["columns"]], table["columns"][2]["labels"]
    ([['b', 'a'], [9, 1], [-1, 0]], ['en'])
    """
    columns = document["clients"]
    num_clients = len(columns["client_id"])
    rows = columns.get("num_rows", [0] * num_clients)
    order = sorted(range(num_clients), key=lambda index: (-(rows[index] or 0), columns["client_id"][index]))
    groups = column_groups(document)
    table = _table(columns, groups, order)
    size = len(embedded_json(table).encode())
    while size > max_bytes and len(order) > 1:
        order = order[: max(1, int(len(order) * max_bytes / size * 0.97))]
        table = _table(columns, groups, order)
        size = len(embedded_json(table).encode())
    return table | {"num_clients": num_clients}


def _table(columns: Mapping[str, Sequence[Any]], groups: Mapping[str, list[str]], order: list[int]) -> dict[str, Any]:
    ids = [visible(str(columns["client_id"][index])) for index in order]
    described: list[dict[str, Any]] = [
        {"key": "client_id", "title": "client", "group": "", "kind": "id", "values": ids}
    ]
    for group, names in groups.items():
        described += [
            {"key": name, "title": title_of(name), "group": group} | _values(columns[name], order) for name in names
        ]
    first = [name for name in ("num_rows", "main_language") if name in columns]
    numeric = {column["key"] for column in described if column["kind"] == "number"}
    for names in groups.values():
        more = [name for name in telling(names) if name in numeric and name not in first]
        first += [] if "num_rows" in names else more[:1]
    return {"columns": described, "groups": {"overview": first[:NUM_OVERVIEW_COLUMNS], **groups}}


def _values(values: Sequence[Any], order: list[int]) -> dict[str, Any]:
    if any(isinstance(value, str) for value in values):
        labels = sorted({str(values[index]) for index in order if values[index] is not None})
        position = {label: code for code, label in enumerate(labels)}
        codes = [-1 if values[index] is None else position[str(values[index])] for index in order]
        return {"kind": "text", "values": codes, "labels": [visible(label) for label in labels]}
    return {"kind": "number", "values": [_short(values[index]) for index in order]}


def _short(value: Any) -> int | float | None:
    if value is None or isinstance(value, int):
        return value
    short = float(f"{value:.{NUM_DIGITS}g}")
    return int(short) if short.is_integer() else short


def embedded_json(value: Any) -> str:
    r"""Return JSON that can stand inside a script element: nothing in it can end the element or open another.

    >>> print(embedded_json({"id": "</script>"}))
    {"id":"\u003c/script\u003e"}
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
