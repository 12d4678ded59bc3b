"""Whether a column called `language` holds languages, and what to say of those that nobody knows.

Code data sets name their programming languages in such a column, surveys their styles ("formal"), and a data frame
writes "nan" for what is missing. A column that nobody asked for is read as languages only if most of its distinct
values are; one that was asked for always is. Either way a word that is no language costs nothing but itself: the row
is `und`, and the detector has its say.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fedllm_data.client_ids import is_missing
from fedllm_data.pipeline.language_detection import language_code
from fedllm_data.schema import UNDETERMINED

__all__ = ["LanguageColumn", "are_languages"]

_NO_ONE_LANGUAGE = frozenset({"und", "mul", "mis", "zxx", "unk", "unknown"})
"""Marks of a column of languages that speak neither for nor against it."""
_PROGRAMMING = frozenset(
    "ada awk apl basic bash c c# c++ cobol cpp csharp css csv d dart elixir elm erlang f# fortran go golang groovy "
    "haskell html io java javascript json julia kotlin latex lisp logo lua matlab nim objective-c ocaml pascal perl "
    "php powershell prolog python python3 r ruby rust sas scala scheme shell solidity sql swift tcl tex typescript "
    "vue xml yaml zig".split()
)
"""Words for programming and mark-up languages, some of which are codes of languages too (Lua, CSS, Awk, Ada)."""
_MOST_WORDS = 1_000


@dataclass
class LanguageColumn:
    """What was decided of the column that tells the language, and what was met in it; for `build.json`."""

    column: str | None
    """Where the language stands; None if no column tells it."""
    is_asked: bool = False
    """`--columns` names it."""
    is_used: bool = False
    values: tuple[str, ...] = ()
    """The first distinct values, for whoever reads the decision."""
    unknown: Counter[str] = field(default_factory=Counter)
    """Words that name no language, and in how many rows; at most a thousand words."""

    def code(self, value: object) -> str:
        """Return a value of the column as a code, `und` where it names no language, and count it then.

        >>> column = LanguageColumn("language", is_used=True)
        >>> column.code("English"), column.code("Elvish"), column.code("nan"), dict(column.unknown)
        ('en', 'und', 'und', {'Elvish': 1})
        """
        code = language_code(value)
        if code == UNDETERMINED and not is_missing(value) and str(value).strip().casefold() not in _NO_ONE_LANGUAGE:
            word = str(value)[:40]
            if word in self.unknown or len(self.unknown) < _MOST_WORDS:
                self.unknown[word] += 1
        return code

    def facts(self) -> dict[str, Any]:
        """Return what `build.json` records.

        >>> LanguageColumn("language", values=("Go", "Rust")).facts()["is_used"]
        False
        """
        names = ("column", "is_asked", "is_used")
        return {
            **{name: getattr(self, name) for name in names},
            "values": list(self.values),
            "num_rows_of_unknown": self.unknown.total(),
            "unknown": dict(sorted(self.unknown.items(), key=lambda item: (-item[1], item[0]))[:10]),
        }


def are_languages(values: Iterable[object]) -> bool:
    """Return whether most of the distinct values are languages; missing ones and "no one language" do not count.

    >>> are_languages(["English", "fra", "pt-BR", "nan", "Elvish"]), are_languages(["Python", "Go", "Lua", "CSS"])
    (True, False)
    >>> are_languages(["lua"]), are_languages(["formal", "casual"]), are_languages([None, "mul"])
    (False, False, False)
    """
    words = {str(value).strip().casefold() for value in values if not is_missing(value)} - _NO_ONE_LANGUAGE
    good = sum(word not in _PROGRAMMING and language_code(word) != UNDETERMINED for word in words)
    return 2 * good > len(words)
