"""What a token is: handed in by name, and counted a batch of texts at a time.

The default, `unicode-words`, needs no model and no hub: a token is a run of letters, marks and digits ("don't" is
one), and every single letter of a script written without spaces (Han, Kana, Thai, Lao, Khmer, Myanmar); punctuation,
symbols and emoji are none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedllm_data.errors import ReportError

__all__ = ["UNICODE_WORDS", "Tokenizer", "count_tokens", "per_text"]

IntArray = NDArray[np.int64]

_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\x{30FC}\x{FF70}"
_FIRST = rf"[^\pP\pS\pZ\pC\pM{_SPACELESS}]"
# Joiners (Cf) belong to Persian and Indic words, so inside a word only control characters (Cc) are excluded.
_NEXT = rf"[^\pP\pS\pZ\p{{Cc}}{_SPACELESS}]"
WORD_PATTERN = rf"[{_SPACELESS}]\pM*|{_FIRST}{_NEXT}*(?:['’]{_FIRST}{_NEXT}*)*"
"""RE2 syntax."""


@dataclass(frozen=True)
class Tokenizer:
    """A named way to count tokens. The name goes into every profile and report, so it must pin what it names."""

    name: str
    count: Callable[[pa.StringArray], IntArray]
    """Texts -> the number of tokens in each."""


def _count_words(texts: pa.StringArray) -> IntArray:
    counts = pc.count_substring_regex(texts, pattern=WORD_PATTERN)
    return np.asarray(counts.to_numpy(zero_copy_only=False), np.int64)


UNICODE_WORDS = Tokenizer("unicode-words", _count_words)


def per_text(name: str, encode: Callable[[str], Sequence[Any]]) -> Tokenizer:
    """Return a tokenizer that counts what a function makes of one text, e.g. a Hub tokenizer's `encode`.

    Args:
        name: pins what `encode` is: model id and revision for a Hub tokenizer.
        encode: text -> its tokens.

    >>> per_text("characters", list).count(pa.array(["abc", ""])).tolist()
    [3, 0]
    """
    return Tokenizer(name, lambda texts: np.array([len(encode(text)) for text in texts.to_pylist()], np.int64))


def count_tokens(tokenizer: Tokenizer, texts: pa.StringArray) -> IntArray:
    """Return the number of tokens of each text, checked.

    Raises:
        ReportError: if the tokenizer gives another number of counts than it got texts.

    >>> count_tokens(UNICODE_WORDS, pa.array(["Hi there", ""])).tolist()
    [2, 0]
    """
    tokens = np.asarray(tokenizer.count(texts), np.int64)
    if len(tokens) != len(texts):
        raise ReportError(
            f"tokenizer {tokenizer.name!r} gave {len(tokens)} counts for {len(texts)} texts: it must give one for each"
        )
    return tokens
