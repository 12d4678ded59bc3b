"""Sentences in the language of the page: English as it stands in the code, any other from the compiled catalogue.

A message is a whole sentence, or a whole label, with named places: `words("{num} of {total} clients gain", ...)`.
Which language is spoken is set around the making of a page (`in_language`), so that what is called deep inside speaks
it, too; files such as heterogeneity.json are written outside of it and stay English. The standard library only.
"""

import gettext
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError

__all__ = [
    "CATALOGUES",
    "LANGUAGES",
    "catalogue_of",
    "in_language",
    "language_now",
    "marked",
    "plural_words",
    "words",
]

LANGUAGES = {"en": "English", "ja": "日本語"}
"""Languages of the pages -> what each calls itself; the first needs no catalogue."""
CATALOGUES = Path(__file__).parent
_NOW: ContextVar[str] = ContextVar("language", default="en")


@contextmanager
def in_language(language: str) -> Iterator[None]:
    """Speak a language for as long as the block runs.

    Raises:
        ConfigError: if there is no catalogue of that language.

    >>> with in_language("ja"):
    ...     print(words("client"))
    クライアント
    """
    if language not in LANGUAGES:
        raise ConfigError(f"no page speaks language {language!r}; choose one of {', '.join(LANGUAGES)}")
    token = _NOW.set(language)
    try:
        yield
    finally:
        _NOW.reset(token)


def language_now() -> str:
    """Return the language that is spoken.

    >>> language_now()
    'en'
    """
    return _NOW.get()


def words(message: str, /, **values: Any) -> str:
    """Return a sentence in the language of the page.

    Args:
        message: the English sentence, with a named place for each value; it is the key of the catalogue.
        values: what stands in the places, as it is to be shown.

    >>> words("{num} of {total} clients gain", num=3, total="1,200")
    '3 of 1,200 clients gain'
    """
    said = catalogue_of(_NOW.get()).gettext(message) if message else ""
    return said.format(**values) if values else said


def plural_words(one: str, many: str, num: int, /, **values: Any) -> str:
    """Return the sentence that fits a number; the place `num` takes it, with separators of thousands.

    >>> plural_words("{num} client", "{num} clients", 1), plural_words("{num} client", "{num} clients", 1200)
    ('1 client', '1,200 clients')
    """
    return catalogue_of(_NOW.get()).ngettext(one, many, num).format(num=f"{num:,}", **values)


def marked(message: str, /) -> str:
    """Return the message as it is: it is said later, by `words`, and `update.py` finds it here.

    >>> marked("held-out loss")
    'held-out loss'
    """
    return message


@cache
def catalogue_of(language: str) -> gettext.NullTranslations:
    """Return the compiled catalogue of a language; that of English says every message as it stands.

    >>> type(catalogue_of("en")).__name__
    'NullTranslations'
    """
    if language == "en":
        return gettext.NullTranslations()
    with (CATALOGUES / f"{language}.mo").open("rb") as file:
        return gettext.GNUTranslations(file)
