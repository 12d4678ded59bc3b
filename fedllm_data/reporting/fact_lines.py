"""The facts of an axis as lines of a label and a text, for the page."""

from collections.abc import Mapping
from typing import Any

from fedllm_data.reporting.numbers import format_number
from fedllm_data.reporting.report_words import title_of, visible
from fedllm_data.wording.catalogue import words
from fedllm_data.wording.recorded import again

__all__ = ["plain_facts"]

NUM_LABELS_IN_FACTS = 8
MAX_FACT_CHARS = 200


def plain_facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the facts of an axis that fit on a line each, as label and text.

    >>> plain_facts({"num_languages": 2, "rows_per_language": {"en": 1200, "fr": 3}, "odd": [[]]})
    [('languages', '2'), ('rows per language', 'en 1,200, fr 3')]
    >>> plain_facts({"scorers": {"length": "revision 1"}})
    [('scorers: length', 'revision 1')]
    """
    lines = []
    for name, value in facts.items():
        if isinstance(value, Mapping) and any(isinstance(entry, str) for entry in value.values()):
            told = ((label, entry) for label, entry in value.items() if _is_plain(entry))
            lines += [(f"{again(title_of(name))}: {visible(str(label), 40)}", _plain(entry)) for label, entry in told]
            continue
        if isinstance(value, Mapping) and all(_is_plain(entry) for entry in value.values()):
            parts = [f"{visible(str(label), 40)} {_plain(entry)}" for label, entry in value.items()]
            more = len(parts) - NUM_LABELS_IN_FACTS
            text = ", ".join(parts[:NUM_LABELS_IN_FACTS])
            text = words("{listed} and {num} more", listed=text, num=more) if more > 0 else text
        elif _is_plain(value):
            text = _plain(value)
        else:
            continue
        if text:
            lines.append((again(title_of(name)), text))
    return lines


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return words("yes") if value else words("no")
    if isinstance(value, int):
        return f"{value:,}"
    return again(visible(value, MAX_FACT_CHARS)) if isinstance(value, str) else format_number(value)
