"""Words of the card that depend on a column, a count or a licence, and the escaping of all that is not ours.

Standard library and pyarrow only.
"""

import html
import re
from typing import Any

import pyarrow as pa

__all__ = [
    "COLUMN_MEANINGS",
    "COUNT_LABELS",
    "SPLIT_COUNT_LABELS",
    "SPLIT_PURPOSES",
    "Markdown",
    "arrow_type_words",
    "escape_markdown",
    "link",
]


class Markdown(str):
    """Text that goes into the card as it is: written by us, or made safe."""


SPLIT_PURPOSES = {
    "train": "rows to train on",
    "test": "rows held out from the same clients",
    "unseen": "all rows of clients held out whole: does it hold for new people?",
    "public": "rows of no client: what a server may use before the first round",
}

COLUMN_MEANINGS = {
    "client_id": "who the row belongs to; the same in all splits",
    "row_id": "stays the same when the repo is built again",
    "language": "ISO 639 code, or `und`: what the source says, or the detector where the source says nothing",
    "detected_language": "what the language detector says; null where it does not dare, or was not asked",
    "messages": "an optional system message, then user and assistant in turn, ending with the assistant",
    "prompt": "the conversation so far, ending with the user",
    "chosen": "the preferred answer",
    "rejected": "the other answer",
    "chosen_model": "which model wrote the preferred answer, where known",
    "rejected_model": "which model wrote the other answer, where known",
}

COUNT_LABELS = {
    "num_rejected": "rows that could not be used",
    "num_valid": "valid rows",
    "num_toxic": "removed: rows that the source flags as toxic",
    "num_other_languages": "removed: rows in other languages",
    "num_too_few_turns": "removed: conversations with too few turns",
    "num_too_many_turns": "removed: conversations with too many turns",
    "num_wrong_turns": "removed: conversations with too few or too many turns",
    "num_too_long": "removed: rows that are too long",
    "num_same_text_pairs": "removed: pairs whose two answers are the same text",
    "num_same_text_pairs_kept": "kept: pairs whose two answers are the same text",
    "num_duplicates_in_client": "removed: exact duplicates within a client",
    "num_duplicates_across_clients": "removed: exact duplicates of another client's row",
    "num_duplicates_in_client_kept": "kept: exact duplicates within a client",
    "num_duplicates_across_clients_kept": "kept: exact duplicates of another client's row",
    "num_near_duplicates_in_client": "removed: near-duplicates within a client",
    "num_near_duplicates_across_clients": "removed: near-duplicates of another client's row",
    "num_small_clients": "clients left out because they have too few rows",
    "num_rows_of_small_clients": "removed: rows of those clients",
    "num_clients_over_max": "clients left out because only the largest are kept",
    "num_rows_of_clients_over_max": "removed: rows of those clients",
    "num_rows_over_max": "removed: rows above the largest number a client may have",
    "num_kept": "rows kept",
}

SPLIT_COUNT_LABELS = {
    "num_clients_drawn_unseen": "clients drawn to be `unseen`",
    "num_clients_unseen_by_sharing": "clients made `unseen` because all their conversations are held out",
    "num_openings": "conversations (rows with the same opening)",
    "num_template_openings": "openings that are templates, not conversations",
    "num_openings_shared_with_unseen": "conversations held out because an `unseen` client takes part in them",
    "num_openings_drawn_for_test": "conversations drawn for `test`",
    "num_openings_given_to_test": "conversations given to `test` by clients that had none there",
    "num_public_rows_dropped": "rows of the `public` part dropped because their conversation is held out",
}

_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_LINE_START = re.compile(r"^(?:(?=[#=]|[+-](?!\d))|(\d+)(?=[.)](?:\s|$)))")


def escape_markdown(value: Any) -> Any:
    r"""Make a value safe to stand in a paragraph or a table cell of the card; `Markdown` passes as it is.

    >>> escape_markdown("<b>a|b</b>\n# c"), escape_markdown(12345)
    ('&lt;b&gt;a\\|b&lt;/b&gt; # c', '12,345')
    """
    if isinstance(value, Markdown):
        return value
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, int | float):
        return f"{value:,}".removesuffix(".0")
    text = " ".join("".join(char if char.isprintable() else " " for char in str(value)).split())
    text = _SPECIAL.sub(r"\\\1", html.escape(text, quote=False))
    return _LINE_START.sub(r"\1\\", text)


def link(text: str, url: str) -> Markdown:
    """Return a link if the URL is a plain web address, else the text alone; both made safe.

    >>> link("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0")
    '[Apache-2.0](https://www.apache.org/licenses/LICENSE-2.0)'
    >>> link("x", "javascript:alert(1)")
    'x'
    """
    words = escape_markdown(text)
    is_plain = re.fullmatch(r"https?://[A-Za-z0-9._~:/?#@!&+,;=%-]+", url) is not None
    return Markdown(f"[{words}]({url})" if is_plain else words)


def arrow_type_words(field: pa.Field) -> str:
    """Return a column's type for readers.

    >>> arrow_type_words(pa.field("a", pa.string())), arrow_type_words(pa.field("b", pa.string(), nullable=False))
    ('text or null', 'text')
    """
    words = "text" if pa.types.is_string(field.type) else "list of {role, content}"
    return f"{words} or null" if field.nullable else words
