"""One spelling for ids: what differs in form alone is one id, and what stands for a missing value is none.

Spreadsheets, data frames and databases leave blanks around an id, spell an accented letter as one character or as two
(Unicode NFC and NFD), and write a missing value as a word. Without this a person would be two clients, or everybody
whose id is missing would be one. Case is kept: ids may differ by it.
"""

import difflib
import math
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice

from fedllm_data.errors import ClientNotFoundError

__all__ = ["SEPARATOR", "canonical_id", "client_not_found", "is_missing"]

SEPARATOR = ":"
"""Stands between an organisation and a client of it: `SITE:USER`, `HOSPITAL:DOCTOR`."""
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060\xad\u061c\u200e\u200f" + "".join(
    map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)])
)
"""Byte order mark, zero-width space and joiners, soft hyphen and marks of direction, which spreadsheets put around
Hebrew and Arabic: what copying leaves at the ends of a text."""
_MISSING = frozenset(
    {
        "",
        "nan",
        "+nan",
        "-nan",
        "none",
        "null",
        "nil",
        "n/a",
        "#n/a",
        "#na",
        "#n/a n/a",
        "<na>",
        "<none>",
        "<null>",
        "(null)",
        "[null]",
        "(none)",
    }
    | {"nat", "undefined", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "#null!", "\\n"}
)
"""In any case: what pandas, R, NumPy, SQL, JavaScript and spreadsheets write for a missing value."""
_LARGEST_TOLD_APART = 2.0**53
"""Beyond it a float stands for several whole numbers, so that several people would be one."""
_MOST_CHARS_KEPT = 256
"""Texts up to this length are remembered: the ids of a corpus come again and again."""
_MOST_COMPARED = 20_000
"""Ids that an unknown one is compared with."""
_MISSING_AS_WRITTEN = frozenset({"NA"})
"""R's mark; in other letters it may be somebody's name."""


def canonical_id(value: object) -> object:
    """Return an id in its one spelling: text without blanks at its ends and in Unicode's composed form.

    Args:
        value: what a file holds. Whole numbers become their digits; a float that is no number becomes None; what is
            neither text nor a whole number, and a float above 2^53, which has lost digits, comes back as it is, for
            the row check to judge.

    >>> canonical_id(" ann" + chr(0xA0)), canonical_id("Ame" + chr(0x301) + "lie"), canonical_id(7.0)
    ('ann', 'Amélie', '7')
    """
    if isinstance(value, str):
        return _canonical_text(str(value))
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_TOLD_APART:
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def is_missing(value: object) -> bool:
    """Return whether a value is none, or a text that stands for a missing one.

    >>> [is_missing(value) for value in ("NaN", "None", " null ", "N/A", "NA", "", None, "Na", "Nancy", "0", 0)]
    [True, True, True, True, True, True, True, False, False, False, False]
    """
    if value is None:
        return True
    found = canonical_id(value)
    return _is_missing_text(found) if isinstance(found, str) else found is None


def _canonical_text(text: str) -> str:
    if len(text) > _MOST_CHARS_KEPT:
        return _trimmed(unicodedata.normalize("NFC", text))
    return _known_text(text)


@lru_cache(maxsize=16_384)
def _known_text(text: str) -> str:
    return _trimmed(unicodedata.normalize("NFC", text))


def _is_missing_text(text: str) -> bool:
    if len(text) > _MOST_CHARS_KEPT:
        return False
    return text.casefold() in _MISSING or text in _MISSING_AS_WRITTEN


def _trimmed(text: str) -> str:
    before = None
    while text != before:
        before, text = text, text.strip().strip(_INVISIBLE)
    return text


def client_not_found(client_id: object, known: Iterable[str], where: str) -> ClientNotFoundError:
    """Return the error for an id that names no client, with up to three similar ids.

    >>> print(client_not_found("anne", ["ann", "bob"], "memory, split train"))
    no client 'anne' in memory, split train; did you mean 'ann'?
    """
    ids = list(islice(known, _MOST_COMPARED))
    near = difflib.get_close_matches(str(client_id)[:100], ids, n=3)
    if near:
        remedy = f"did you mean {', '.join(map(repr, near))}?"
    else:
        remedy = f"its ids are like {', '.join(map(repr, ids[:3])) or 'none'}"
    return ClientNotFoundError(f"no client {str(client_id)[:100]!r} in {where}; {remedy}")
