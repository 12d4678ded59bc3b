"""What a client repo's card says in its front matter; standard library and YAML only."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from fedllm_data.errors import HubError, SchemaError
from fedllm_data.repo import ClientRepo
from fedllm_data.unique_keys import RepeatedKeyError, read_yaml

__all__ = ["card_licence", "licence_in", "licence_of", "read_front_matter"]

_BEGIN = re.compile(r"\A\ufeff?---[ \t]*\r?\n")
_END = re.compile(r"^---[ \t]*\r?$", re.MULTILINE)


def licence_of(repo: ClientRepo) -> str | None:
    """Return the licence that a repo's card names, or None if there is no card or it names none."""
    try:
        with repo.open("README.md") as file:
            return card_licence(file.read().decode("utf-8"))
    except (OSError, UnicodeDecodeError, HubError):
        return None


def card_licence(card: str) -> str | None:
    r"""Return the licence in a card's front matter; several are joined by commas.

    >>> card_licence("---\nlicense: cc-by-4.0\n---\n# Words")
    'cc-by-4.0'
    >>> card_licence("# Words") is None
    True
    """
    try:
        return licence_in(read_front_matter(card))
    except SchemaError:
        return None


def licence_in(front_matter: Mapping[str, Any]) -> str | None:
    """Return the licence that front matter names: its identifier, or its name where the identifier is `other`.

    >>> licence_in({"license": "other", "license_name": "acme-terms"}), licence_in({"license": ["mit", "cc0-1.0"]})
    ('acme-terms', 'mit, cc0-1.0')
    """
    licence = front_matter.get("license")
    if isinstance(licence, list):
        return ", ".join(str(each) for each in licence if each) or None
    name = front_matter.get("license_name") if licence == "other" else None
    return str(name or licence) if licence else None


def read_front_matter(card: str) -> dict[str, Any]:
    r"""Return the front matter of a card.

    Raises:
        SchemaError: if it is missing, is not closed, is no YAML, names a key twice, or holds no keys and values.

    >>> read_front_matter("---\nlicense: mit\nlicense: cc0-1.0\n---\n")
    Traceback (most recent call last):
    fedllm_data.errors.SchemaError: the front matter names the key 'license' twice (line 3); leave one out
    """
    begin = _BEGIN.match(card)
    if begin is None:
        raise SchemaError("the front matter is missing: the first line must be three dashes; write the card again")
    end = _END.search(card, begin.end())
    if end is None:
        raise SchemaError("the front matter is not closed: a line of three dashes must follow it; add the line")
    try:
        facts = read_yaml(card[begin.end() : end.start()])
    except RepeatedKeyError as error:
        line = error.line + 1  # after the line of dashes
        raise SchemaError(
            f"the front matter names the key {error.key!r} twice (line {line}); leave one out"
        ) from error
    except yaml.YAMLError as error:
        raise SchemaError(f"the front matter is no YAML ({' '.join(str(error).split())[:100]}); correct it") from error
    if not isinstance(facts, dict):
        raise SchemaError("the front matter holds no keys and values; write the card again")
    return facts
