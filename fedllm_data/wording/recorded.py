"""Say again, in the language of the page, what a file holds in English.

heterogeneity.json, results.json and comparison.json hold sentences; they are written once, in English, by `words`.
A page in another language finds the message that a sentence was made from, takes the values out of their places and
puts them into the translation. Where two messages fit, the one with more words of its own is taken. What no message
fits, such as a note of another release or a name, stays as it is. The standard library only.
"""

import re
import struct
from functools import cache

from fedllm_data.wording.catalogue import CATALOGUES, language_now

__all__ = ["again", "is_known"]

_PLACE = re.compile(r"\{(\w+)\}")
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?]) ")
_PERCENT = re.compile(r"(?<=\d) %")
_MAX_DEPTH = 3
_ALWAYS_NUMBERS = frozenset(("num", "number", "value", "low", "high", "least", "p", "share", "told", "total"))
"""Places of these names take a number, whatever the message is."""
_NUMBER = r"[-−+±≤~0-9.,eE %∞–]+?"
_NUM_TELLING = 12
"""With fewer letters of its own than this a message fits anything, so that its places take numbers only."""


def again(text: str) -> str:
    """Return a text that a file holds in English, in the language of the page.

    >>> from fedllm_data.wording.catalogue import in_language
    >>> with in_language("ja"):
    ...     print(again("0.1 to 0.2"), again("held-out loss"), again("nobody wrote this"))
    0.1〜0.2 未学習データでの損失 nobody wrote this
    """
    found = _found(text, language_now(), 0)
    return text if found is None else found


def is_known(text: str) -> bool:
    """Return whether `again` finds the text in the catalogue of the language of the page.

    >>> is_known("what nobody wrote")
    True
    """
    return _found(text, language_now(), 0) is not None


@cache
def _found(text: str, language: str, depth: int) -> str | None:
    if language == "en":
        return text
    if not text.strip() or not re.search(r"[A-Za-z]{2}", text):
        return text
    exact = _exact(language)
    if text in exact:
        return exact[text]
    if depth > _MAX_DEPTH:
        return None
    items = re.split(r", | and ", text)
    if len(items) > 1 and all(item in exact for item in items):
        return exact[", "].join(exact[item] for item in items) if ", " in exact else None
    sentences = _BETWEEN_SENTENCES.split(text)
    if len(sentences) > 1:
        said = [_found(sentence, language, depth + 1) for sentence in sentences]
        if None not in said:
            return "".join(sentence for sentence in said if sentence is not None)
    for pattern, translation in _patterns(language):
        if match := pattern.fullmatch(text):
            values = {name: _value(value, language, depth) for name, value in match.groupdict().items()}
            # "The one client ..." has no place for its number, and a translation may have one.
            return translation.format(**({"num": "1"} | values))
    if len(sentences) > 1:
        return None
    if text.endswith("."):
        # A reason or a note that became a sentence by its full stop, and perhaps by its first letter.
        for fragment in (text[:-1], text[0].lower() + text[1:-1]):
            if (known := _found(fragment, language, depth + 1)) is not None:
                return known.removesuffix("。") + "。"
    elif text[0].isupper() and text[1:2].islower():
        return _found(text[0].lower() + text[1:], language, depth + 1)
    return None


def _value(value: str, language: str, depth: int) -> str:
    found = _found(value, language, depth + 1)
    return _PERCENT.sub("%", value if found is None else found)


@cache
def _exact(language: str) -> dict[str, str]:
    return {message: said.replace("{num}", "1") for message, said in _messages(language) if not _PLACE.search(message)}


@cache
def _patterns(language: str) -> list[tuple[re.Pattern[str], str]]:
    """Messages with places as patterns, those with the most words of their own first."""
    found = []
    for message, said in _messages(language):
        pieces = _PLACE.split(message)
        literal = "".join(pieces[::2])
        if len(pieces) == 1 or not re.search(r"[A-Za-z]{2}", literal):
            continue
        anything = ".+?" if len(re.findall("[A-Za-z]", literal)) >= _NUM_TELLING else _NUMBER
        seen: set[str] = set()
        parts = [re.escape(pieces[0])]
        for name, after in zip(pieces[1::2], pieces[2::2], strict=True):
            kind = _NUMBER if name in _ALWAYS_NUMBERS else anything
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{kind})")
            parts.append(re.escape(after))
            seen.add(name)
        found.append((len(literal), message, re.compile("".join(parts), re.DOTALL), said))
    return [(pattern, said) for _, _, pattern, said in sorted(found, key=lambda item: (-item[0], item[1]))]


def _messages(language: str) -> list[tuple[str, str]]:
    """English -> translation, each form of a plural for itself; gettext keeps only the first form as its key."""
    content = (CATALOGUES / f"{language}.mo").read_bytes()
    num, originals, translations = struct.unpack_from("<3I", content, 8)
    found = []
    for position in range(num):
        pair = []
        for table in (originals, translations):
            length, start = struct.unpack_from("<2I", content, table + 8 * position)
            pair.append(content[start : start + length].decode().split("\0"))
        messages, said = pair
        # Japanese has one form for every number.
        found += [(message, said[min(form, len(said) - 1)]) for form, message in enumerate(messages) if message]
    return found
