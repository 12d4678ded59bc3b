"""What the summary of a build says of decisions that were taken for the rows: duplicates, languages, groups."""

from collections.abc import Mapping
from typing import Any

__all__ = ["row_lines"]


def row_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return the lines, of the content of build.json.

    >>> facts = {"task": "sft", "clients_share_items": False, "counts": {"num_duplicates_across_clients": 2}}
    >>> row_lines(facts | {"reading": {}})[0]
    'equal rows of different clients: one of them was kept; --shared-items keeps all'
    """
    reading = facts.get("reading")
    lines = _duplicate_lines(facts, is_import=reading is not None)
    if reading and reading.get("language"):
        lines += _language_lines(reading["language"])
    if num_groups := facts.get("split_counts", {}).get("num_groups"):
        lines.append(f"groups: {num_groups:,}, each whole in one split")
    return lines


def _duplicate_lines(facts: Mapping[str, Any], *, is_import: bool) -> list[str]:
    counts = facts["counts"]
    if not is_import or "num_duplicates_in_client_kept" in counts:
        return []
    if facts["clients_share_items"]:
        return [
            "equal rows of different clients: all were kept, each is a verdict of its own; repetitions within a "
            "client went; --no-shared-items keeps one of all"
        ]
    if counts.get("num_duplicates_across_clients") or counts.get("num_near_duplicates_across_clients"):
        return ["equal rows of different clients: one of them was kept; --shared-items keeps all"]
    return []


def _language_lines(language: Mapping[str, Any]) -> list[str]:
    column, values = language["column"], ", ".join(repr(value) for value in language["values"][:4])
    if column is None:
        return []
    if not language["is_used"]:
        if language["is_asked"] or not values:
            return []
        return [
            f"column {column!r} was not used as the language: most of its values ({values}) are none; "
            f"--columns language={column} uses it nevertheless"
        ]
    lines = [] if language["is_asked"] else [f"column {column!r} was used as the language ({values})"]
    if language["num_rows_of_unknown"]:
        words = ", ".join(f"{word!r} ({count:,})" for word, count in list(language["unknown"].items())[:4])
        lines.append(f"words that name no language, left to the detector: {words}")
    return lines
