"""What can be seen of an answer's quality without a model: four checks, and the mean of all four.

Each check gives a number in [0, 1], higher is better, or NaN where it has nothing to say. They look for faults that
any reader would call one, so good answers get 1 and differences among good answers count for nothing:

- `repetition`: 1 - share of word n-grams that stood in the answer before (n = 4; 8 letters where most of the text is
  in a script without spaces), code blocks and addresses left out. Cf. the filters of
  Gopher (Rae et al. 2021, A.1.1).
- `refusal`: 0 if the answer refuses or evades, else 1 (see `refusals.py`).
- `truncation`: 0 if the answer stops in mid-sentence, else 1.
- `language_match`: 0 if the answer is in another language than its prompt, else 1, by the shipped detector; NaN where
  the prompt asks for a translation or names the language to answer in.

The headline `heuristics` is their mean, a NaN counted as 1: the fraction of checks passed. Each is linear in the
length of the text, needs no model beyond the language detector and no other row.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedllm_data.heterogeneity.quality import SHIPPED
from fedllm_data.pipeline.language_detection import detect_languages, languages_agree
from fedllm_data.scorers.refusals import is_refusal
from fedllm_data.scorers.scorer import Exchange, Scorer

__all__ = ["HEURISTICS", "heuristics", "language_match", "refusal", "repetition", "truncation"]

FloatArray = NDArray[np.float64]

_NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|(?:https?|ftp)://[^\s)>\]]+", re.DOTALL)
_LETTERS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Thai, Lao, Myanmar, Khmer, Kana and Han are written without spaces: a letter is a word."""
_WORD = re.compile(rf"[{_LETTERS}]|[^\W_{_LETTERS}]+")
_IS_LETTER = re.compile(rf"[{_LETTERS}]")
WORD_GRAM, LETTER_GRAM = 4, 8
CODE_CHARS, OPENING_CHARS = 4_000, 240
"""The language is told from the first 240 characters that are no code or address, among the first 4,000."""
MIN_LETTERS = 24
"""Fewest letters of a text whose language is trusted: the detector takes "python cast syntax" for Latin."""

_ASKS_FOR_ANOTHER = re.compile(
    r"\btranslat|\bübersetz|\btradu[cisz]|перев[её]д|перевод|翻[译譯訳]|번역|ترجم|अनुवाद|\bterjemah|\bdịch\b|\bvertaal|"
    r"\b(?:in|into|to|from) (?:english|german|french|spanish|italian|portuguese|dutch|polish|russian|ukrainian|"
    r"turkish|arabic|hebrew|persian|hindi|chinese|mandarin|japanese|korean|vietnamese|thai|indonesian|latin|greek)\b",
    re.IGNORECASE,
)
_FINAL = ".!?…。！？｡．؟۔।॥։።፧༎။៕"
_CLOSERS = " \t\"'“”‘’»›）)]}】」』》*_~`>|"
_SENTENCE_END = re.compile(r"(?:[.!?…؟۔।॥։።](?=[\s\"'”’»)*_])|[。！？｡．])")
_SMILEY = re.compile(r"[:;=]-?['’]?[)(DPp3/*]\Z")
_NO_FINAL_MARK = re.compile(r"[\u0e00-\u0eff\u0f00-\u0fff\u1780-\u17ff]\W*\Z")
"""Thai, Lao, Tibetan and Khmer sentences need not end in a mark."""
_UNPUNCTUATED = re.compile(
    r"^(?:[-*•#|>]|\d+[.)])|https?://\S*$|#\w+\W*$|[\"'“”‘’»›）)\]}】」』》>|;{}=</\\$@%^&+]$|\w ?= ?\w|\(\)"
)
"""Last lines that take no full stop: list items, headings, tables, quotations, addresses, hashtags, code and formulas,
and those that close a bracket or a quotation."""
_OPEN_FENCE = re.compile(r"^\s*`{3,}[^`\n]*$", re.MULTILINE)
SHORT_WORDS, SHORT_LETTERS = 8, 16
"""A last line below this is a name, a greeting or a bare answer."""


def repetition(judged: Sequence[Exchange]) -> FloatArray:
    """Return 1 - the share of n-grams that repeat an earlier one; NaN for answers of fewer than two n-grams.

    >>> looped = "go on and on " * 25
    >>> repetition([Exchange("", looped, "en"), Exchange("", "Paris.", "en")]).round(2).tolist()
    [0.04, nan]
    """
    return np.array([_new_fraction(exchange.answer) for exchange in judged], np.float64)


def refusal(judged: Sequence[Exchange]) -> FloatArray:
    """Return 0 for answers that refuse or evade, 1 for others.

    >>> refusal([Exchange("", "I cannot help with that.", "en"), Exchange("", "It is 4.", "en")]).tolist()
    [0.0, 1.0]
    """
    return np.array([0.0 if is_refusal(exchange.answer) else 1.0 for exchange in judged], np.float64)


def truncation(judged: Sequence[Exchange]) -> FloatArray:
    """Return 0 for answers that stop in mid-sentence or inside a code block, 1 for those that end.

    An answer ends if its last mark, behind closing quotes, brackets and emphasis, is one that ends sentences in any
    script, an emoji, or the fence of a code block. One without such a mark stops short only if its author does
    end sentences elsewhere in it and the last line is no short line, list item, heading, table, address or formula;
    otherwise, and where the script needs no such mark, nobody can tell: NaN.

    >>> texts = ("It rains. Take the bus.", "It rains. You could take the bus that leaves from the old", "Paris")
    >>> truncation([Exchange("", text, "en") for text in texts]).tolist()
    [1.0, 0.0, nan]
    """
    return np.array([_is_finished(exchange.answer) for exchange in judged], np.float64)


def language_match(judged: Sequence[Exchange]) -> FloatArray:
    """Return 1 where prompt and answer are in one language, 0 where in two, NaN where either is undetermined.

    Languages of one macro-language agree (see `pipeline.language_detection.languages_agree`). Texts of fewer than 24
    letters are undetermined, unless they are in a script without spaces. Whether an answer is in the language that
    its prompt asks for is not looked at: it is NaN too.

    >>> pairs = [("Where do the wild strawberries grow?", "Im Wald, gleich hinter dem Haus."), ("How?", "12")]
    >>> language_match([Exchange(prompt, answer, "en") for prompt, answer in pairs]).tolist()
    [0.0, nan]
    """
    prompts = _languages([exchange.prompt for exchange in judged])
    answers = _languages([exchange.answer for exchange in judged])
    return np.array(
        [
            np.nan
            if prompt is None or answer is None or _ASKS_FOR_ANOTHER.search(exchange.prompt)
            else float(languages_agree(prompt, answer))
            for exchange, prompt, answer in zip(judged, prompts, answers, strict=True)
        ],
        np.float64,
    )


def heuristics(judged: Sequence[Exchange]) -> FloatArray:
    """Return the fraction of the four checks that each answer passes, in [0, 1]; an undefined check is passed.

    >>> heuristics([Exchange("", "I cannot help with that.", "en"), Exchange("", "Paris", "en")]).tolist()
    [0.75, 1.0]
    """
    return _mean([check(judged) for check in _CHECKS.values()])


def _mean(checks: Sequence[FloatArray]) -> FloatArray:
    return np.asarray(sum(np.where(np.isnan(scores_N), 1.0, scores_N) for scores_N in checks) / len(checks))


def _languages(texts: Sequence[str]) -> list[str | None]:
    openings = [_NOT_PROSE.sub(" ", text[:CODE_CHARS])[:OPENING_CHARS] for text in texts]
    return detect_languages([text if _enough_letters(text) else "" for text in openings])


def _enough_letters(text: str) -> bool:
    num_letters = 0
    for char in text:
        if char.isalpha():
            num_letters += MIN_LETTERS if _IS_LETTER.match(char) else 1
            if num_letters >= MIN_LETTERS:
                return True
    return False


def _new_fraction(text: str) -> float:
    words, are_letters = _words(_NOT_PROSE.sub(" ", text).casefold())
    size = LETTER_GRAM if are_letters else WORD_GRAM
    num_grams = len(words) - size + 1
    if num_grams < 2:
        return float("nan")
    return len(set(zip(*(words[start:] for start in range(size)), strict=False))) / num_grams


def _words(text: str) -> tuple[list[str], bool]:
    """Words of a text, and whether most of them are single letters of scripts without spaces."""
    words = _WORD.findall(text)
    return words, 2 * sum(1 for word in words if _IS_LETTER.match(word)) > len(words)


def _is_finished(answer: str) -> float:
    text = answer.rstrip()
    if len(_OPEN_FENCE.findall(text)) % 2:
        return 0.0
    bare = text.rstrip(_CLOSERS)
    if text.endswith("```") or not bare or _SMILEY.search(text):
        return 1.0
    last = bare[-1]
    if last in _FINAL or (ord(last) >= 0x2600 and not last.isalnum() and last not in "、，：；・〜～"):
        return 1.0
    last_line = text.rsplit("\n", 1)[-1].strip()
    words, are_letters = _words(last_line)
    is_short = len(words) < (SHORT_LETTERS if are_letters else SHORT_WORDS)
    if is_short or _NO_FINAL_MARK.search(bare) or _UNPUNCTUATED.search(last_line) or not _SENTENCE_END.search(text):
        return float("nan")
    return 0.0


_CHECKS: dict[str, Callable[[Sequence[Exchange]], FloatArray]] = {
    "repetition": repetition,
    "refusal": refusal,
    "truncation": truncation,
    "language_match": language_match,
}
HEURISTICS: tuple[Scorer, ...] = tuple(
    Scorer(info, _CHECKS[info.name])
    if info.name in _CHECKS
    else Scorer(info, heuristics, parts=tuple(_CHECKS), combine=_mean)
    for info in SHIPPED
)
"""What a report uses without being asked; the headline first."""
