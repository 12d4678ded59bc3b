"""Whether an answer keeps to the language of its question: a story that a score does not tell.

An answer is cut into its clauses, and the project's detector tells the language of each; what it does not dare to tell
counts as kept. One clause in another language is enough: a courtesy in Spanish after an English answer is what a
reader stumbles over.
"""

import re
from collections.abc import Sequence
from typing import Any

from fedllm_data.pipeline.language_detection import detect_languages, languages_agree

__all__ = ["stray_language", "with_strays"]

_CLAUSES = re.compile(r"[.!?…。！？؟،;:\n]+|, ")
_MIN_LETTERS = 6
"""A detector guesses at a shorter clause."""


def stray_language(language: str, answer: str) -> str | None:
    """Return the code of the first other language in an answer; None where it keeps to that of the question.

    Args:
        language: of the question, an ISO 639 code; with `und` nothing is said.
        answer: what a model wrote.

    >>> stray_language("en", "long, that is the opposite. ¡Con mucho gusto, que tengas un buen día!")
    'es'
    >>> stray_language("en", "long, that is the opposite. Happy to help, have a nice day!")
    """
    if language == "und":
        return None
    clauses = [clause.strip() for clause in _CLAUSES.split(answer)]
    clauses = [clause for clause in clauses if sum(letter.isalpha() for letter in clause) >= _MIN_LETTERS]
    for found in detect_languages(clauses):
        if found is not None and not languages_agree(found, language):
            return found
    return None


def with_strays(answers: Sequence[dict[str, Any]], policies: Sequence[str]) -> list[dict[str, Any]]:
    """Return the answers, each with `stray`: policy -> the other language in its answer, or None.

    >>> with_strays([{"language": "und", "base": "Guten Tag"}], ["base"])[0]["stray"]
    {'base': None}
    """
    return [
        item | {"stray": {policy: stray_language(item["language"], item[policy]) for policy in policies}}
        for item in answers
    ]
