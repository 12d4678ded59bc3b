"""Upstream fields that may hold anything: ids, texts, and the options of a source, read without a crash.

Upstream files promise types they do not always keep. What these helpers cannot use is None, and the source says so in
a `Rejected`; values quoted in a reason stand between '…', so that equal faults count together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fedllm_data.client_ids import canonical_id, is_missing
from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import SourceError

__all__ = ["choice_option", "id_of", "quoted", "text_of"]


def text_of(value: Any) -> str | None:
    """Return a text that says something, or None.

    >>> text_of(" hello "), text_of("  "), text_of(3)
    (' hello ', None, None)
    """
    return value if isinstance(value, str) and value.strip() else None


def id_of(value: Any) -> str | None:
    """Return an id in its one spelling: whole numbers are spelled out; missing, broken and other values are None.

    >>> id_of(" user7"), id_of(7), id_of(True), id_of("NaN"), id_of(chr(0xD800))
    ('user7', '7', None, None, None)
    """
    text = canonical_id(value)
    if not isinstance(text, str) or is_missing(text):
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return text


def quoted(value: Any) -> str:
    """Return a value for a reason: in single quotes, at most 40 characters of it; of nested values the type.

    >>> quoted("it's"), quoted(None), quoted(["A"])
    ("'it’s'", "'None'", "'list'")
    """
    shown = str(value)[:40] if value is None or isinstance(value, str | int | float) else type(value).__name__
    return "'" + shown.replace("'", "’") + "'"


def choice_option(options: Mapping[str, str], name: str, choices: Sequence[str]) -> str:
    """Return the value of an option that knows a few words; the first of them is the preset.

    Raises:
        SourceError: if it is another word.

    >>> choice_option({}, "pairs", ("choices", "scores"))
    'choices'
    """
    value = options.get(name, choices[0])
    if value not in choices:
        hint = did_you_mean(value, choices)
        raise SourceError(f"option {name} is {value[:40]!r}; {hint}give {', '.join(choices[:-1])} or {choices[-1]}")
    return value
