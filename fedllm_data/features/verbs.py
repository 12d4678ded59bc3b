"""Root verb and direct object of an instruction, where a parser of its language is installed.

A parser is a spaCy pipeline, named in the codebook for a language (`{"en": "en_core_web_sm"}`); spaCy is no
dependency. As in Self-Instruct (Wang et al. 2023, figure 3): of the first sentence that has a root verb, its lemma
and that of its object, if that is a noun. What differs: lines are sentences of their own, since people seldom end one
with a full stop; a root that is no word (code, a path) is passed over; and where no sentence has a root verb, one
that asks or says what something *is* has the verb "be", without an object: a fifth of the English questions of
OpenAssistant are of that kind. Figures of two parsers cannot be compared, nor those of two languages.
"""

from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedllm_data.codebook import Codebook
from fedllm_data.errors import ConfigError

__all__ = ["load_parser", "parser_version", "verb_columns"]

MAX_CHARS = 300
"""The request of a long instruction stands at its start."""
OBJECTS = ("dobj", "obj")
NOUNS = ("NOUN", "PROPN")
"""What an object must be: "tell me" and "do it" name nothing."""


def verb_columns(texts: list[str], languages: list[str], codebook: Codebook) -> dict[str, Any]:
    """Return `verb` and `object` (lemmas, None if there is none) and `has_parser`.

    Args:
        texts: the instructions.
        languages: one per text; a text in a language without a parser is not looked at.
        codebook: names the parsers.

    Raises:
        ConfigError: if a parser of the codebook is not installed, or of another version.

    >>> book = Codebook(tokenizer="t", encoder="e", encoder_revision="1", centres=((1,),), prompt_salt="00")
    >>> verb_columns(["Write a poem."], ["en"], book)["has_parser"].tolist()
    [False]
    """
    verbs: list[str | None] = [None] * len(texts)
    objects: list[str | None] = [None] * len(texts)
    has_parser: NDArray[np.bool_] = np.isin(np.array(languages, str), list(codebook.parsers))
    for language, parser in codebook.parsers.items():
        rows = [row for row, code in enumerate(languages) if code == language]
        if not rows:
            continue
        lines = [(row, line) for row in rows for line in texts[row][:MAX_CHARS].splitlines() if line.strip()]
        parsed = load_parser(parser).pipe((line for _, line in lines), batch_size=64)
        for row, found in groupby(zip(lines, parsed, strict=True), key=lambda pair: pair[0][0]):
            verbs[row], objects[row] = _verb_and_object([token for _, document in found for token in document])
    return {"verb": verbs, "object": objects, "has_parser": has_parser}


def parser_version(parser: str) -> str:
    """Return name and version of an installed spaCy pipeline, as a codebook records it.

    Raises:
        ConfigError: if it is not installed.

    >>> parser_version("no_such_parser")
    Traceback (most recent call last):
    ...
    fedllm_data.errors.ConfigError: parser 'no_such_parser' is not installed: pip install spacy and the pipeline ...
    """
    name = parser.partition("==")[0]
    try:
        return f"{name}=={version(name)}"
    except (PackageNotFoundError, ValueError) as error:
        raise ConfigError(
            f"parser {name[:80]!r} is not installed: pip install spacy and the pipeline itself"
        ) from error


@lru_cache(maxsize=8)
def load_parser(parser: str) -> Any:
    """Return the spaCy pipeline of a codebook, loaded once.

    Args:
        parser: name and version, as `parser_version` returns them.

    Raises:
        ConfigError: if it is not installed, or in another version.

    >>> load_parser("no_such_parser==1.0")
    Traceback (most recent call last):
    ...
    fedllm_data.errors.ConfigError: parser 'no_such_parser' is not installed: pip install spacy and the pipeline ...
    """
    found = parser_version(parser)
    if found != parser:
        raise ConfigError(f"the codebook names parser {parser}, {found} is installed: install the codebook's")
    try:
        pipeline = import_module("spacy").load(parser.partition("==")[0], exclude=["ner"])
    except (ImportError, OSError) as error:
        first = str(error).splitlines()[0][:160]
        raise ConfigError(f"parser {parser} cannot be loaded ({first}): pip install spacy") from error
    return pipeline


def _verb_and_object(tokens: list[Any]) -> tuple[str | None, str | None]:
    copula = None
    for token in tokens:
        if token.dep_ != "ROOT":
            continue
        if token.pos_ == "VERB" and _is_word(token):
            things = [child for child in token.children if child.dep_ in OBJECTS and child.pos_ in NOUNS]
            things = [thing for thing in things if _is_word(thing)]
            return token.lemma_.lower(), things[0].lemma_.lower() if things else None
        # Stanford-style trees have "be" at the root, Universal Dependencies below the predicate.
        is_linking = token.pos_ == "AUX" and token.lemma_ == "be"
        linking = [token] if is_linking else [child for child in token.children if child.dep_ == "cop"]
        copula = copula or (linking[0].lemma_.lower() if linking else None)
    return copula, None


def _is_word(token: Any) -> bool:
    """Whether a lemma can be one: code and paths are parsed, too, and single letters are names of variables."""
    return len(token.lemma_) > 1 and token.lemma_.replace("-", "").isalpha()
