"""Which of the older encodings a text is likely in: the one in which it is written with some language's own letters.

Encodings of one byte a character all decode to something; what tells them apart is which letters come out. In
languages with Latin letters the bytes above 127 mostly stand alone, and the letters of one language explain them
(`ñ` and `ó` are Spanish, `ř` and `ě` Czech). In other alphabets they stand in runs, and the likelihood of the letters
decides, by how common each is in the language. East Asian encodings fail to decode one another, or give characters
that nobody uses. Where nothing fits, nothing is guessed: a wrong name would be followed, and its letters imported.
"""

import math
import re
from collections.abc import Callable

__all__ = ["likely_encoding"]

_HIGH_RUN = re.compile(rb"[\x80-\xff]+")
_LEAST_RUNS = 0.5
"""Fraction of the bytes above 127 that stand in runs of two or more where the alphabet is not Latin."""
_LEAST_LETTERS = 0.9
"""Fraction of the characters above ASCII that must be letters of the alphabet."""
_LEAST_GAIN = 0.4
"""By how much the mean logarithm of the letters' probabilities must exceed that of letters drawn evenly."""
_DECAY = 8.0
"""Letters in order of frequency become rarer by a factor e over this many ranks, roughly, in every alphabet here."""
_CAPITAL = 0.7
"""What a capital counts where small letters are expected; read in a wrong encoding, most letters are capitals."""
_LEAST_LATIN = 0.65
"""Fraction of the characters above ASCII that the letters of one language must explain."""
_MIXED = 0.85
"""What a mixture of Western languages counts, which a single one explains better."""
_MARGIN = 0.08
"""By how much a rarer encoding must explain the letters better than one named before it."""

_SIGNS = "’‘“”„–—…«»¿¡°º§€"
_WESTERN = (
    "àâæçèéêëîïôœùûüÿ",
    "äöüßé",
    "áéíñóúü",
    "ãáàâçéêíóôõúü",
    "àèéìíòóùú",
    "åäöæøéü",
    "áéëïíóöúèê",
    "áðéíóúýþæö",
)
_CENTRAL = ("áčďéěíňóřšťúůýž", "ąćęłńóśźż", "áéíóöőúüű", "ăâîşţșț", "čćđšž", "áäčďéíĺľňóôŕšťúýž")
_TURKISH = ("çğıöşüâîûi̇",)
_LATIN = (
    *((encoding, letters, 1.0) for encoding in ("cp1252", "mac_roman", "cp850") for letters in _WESTERN),
    *((encoding, "".join(_WESTERN), _MIXED) for encoding in ("cp1252", "mac_roman", "cp850")),
    *((encoding, letters, 1.0) for encoding in ("cp1250", "iso8859-2", "cp852") for letters in _CENTRAL),
    *(("cp1254", letters, 1.0) for letters in _TURKISH),
)
_RUSSIAN = "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё"
_UKRAINIAN = "оаинтвреслкдумпязьбгчйіхжїюшцщєфґ"
_GREEK = "αοιετσνηυρπκμλςίόάγέδήωχθύφβώξζψϊϋ"
_ALPHABETS = (
    ("cp1251", _RUSSIAN),
    ("koi8-r", _RUSSIAN),
    ("cp866", _RUSSIAN),
    ("cp1251", _UKRAINIAN),
    ("koi8-u", _UKRAINIAN),
    ("cp1253", _GREEK),
    ("cp1255", "יוהלארתבשמנעדקחפסכצטגםזןךףץ"),
    ("cp1256", "اليمنتروبهعدةسكفحقجشىصطخأذإزئضغثءؤظآپچگ"),
    ("tis-620", "านรอกเงมยลวดท่ส้ตะปบคหแจพขใไชโผุูีิ์ัึืซถณธศ็ษญฟภฮๆำฐฉฎฤฆฏฬฝ"),
)
"""Letters in order of frequency."""


def likely_encoding(sample: bytes) -> str | None:
    """Guess the encoding of lines that are not UTF-8; None if no encoding known here explains them.

    >>> [likely_encoding(text.encode(name)) for text, name in (("déjà vu", "cp1252"), ("привет", "cp1251"))]
    ['cp1252', 'cp1251']
    >>> likely_encoding(bytes(range(128, 256))) is None
    True
    """
    runs = [len(run) for run in _HIGH_RUN.findall(sample)]
    is_latin = sum(length for length in runs if length > 1) <= _LEAST_RUNS * sum(runs)
    if is_latin:
        found = _best([(name, _latin_score(sample, name, letters) * weight) for name, letters, weight in _LATIN])
        if found is not None:
            return found
    score, found = max((_alphabet_score(sample, name, letters), name) for name, letters in _ALPHABETS)
    if score > 0:
        return found
    for name, is_typical, least in _EAST_ASIAN:
        chars = _chars(sample, name)
        if chars and sum(map(is_typical, chars)) >= least * len(chars):
            return "gb18030" if name == "gb2312" else name
    return None


def _best(scores: list[tuple[str, float]]) -> str | None:
    """The encoding of the highest score, the earlier one where two are as good; None if all are 0."""
    best, most = None, 0.0
    for name, score in scores:
        if score > most + (_MARGIN if best is not None and name != best else 0.0):
            best, most = name, score
    return best


def _latin_score(sample: bytes, encoding: str, letters: str) -> float:
    chars = _chars(sample, encoding)
    weights = (1.0 if c in letters or c in _SIGNS else _CAPITAL if c.lower() in letters else 0.0 for c in chars)
    fraction = sum(weights) / len(chars) if chars else 0.0
    return fraction if fraction >= _LEAST_LATIN else 0.0


def _alphabet_score(sample: bytes, encoding: str, letters: str) -> float:
    """The geometric mean of the letters' probabilities; 0 where they are not those of a text in the language."""
    chars = [char.lower() for char in _chars(sample, encoding) if char not in _SIGNS]
    ranks = {letter: rank for rank, letter in enumerate(letters)}
    known = [ranks[char] for char in chars if char in ranks]
    if len(known) < max(1, _LEAST_LETTERS * len(chars)):
        return 0.0
    num_unknown = len(chars) - len(known)
    normaliser = math.log(sum(math.exp(-rank / _DECAY) for rank in range(len(letters))))
    evenly = -(len(letters) - 1) / 2 / _DECAY - normaliser
    likelihood = -(sum(known) + num_unknown * len(letters)) / _DECAY / len(chars) - normaliser
    return math.exp(likelihood) if likelihood >= evenly + _LEAST_GAIN else 0.0


def _chars(sample: bytes, encoding: str) -> list[str]:
    """The characters above ASCII; none if much of the sample is in another encoding."""
    chars = [char for char in sample.decode(encoding, "replace") if char > "\x7f"]
    return [] if chars.count("\ufffd") > len(chars) / 20 else chars


def _is_korean(char: str) -> bool:
    # The 2,350 syllables in use. The code page has all 11,172, which is how Japanese and Chinese bytes come out in it.
    return "가" <= char <= "힣" and len(char.encode("euc_kr")) == 2


def _is_kana(char: str) -> bool:
    return "ぁ" <= char <= "ヿ"


def _is_han(char: str) -> bool:
    return "一" <= char <= "鿿"


_EAST_ASIAN: tuple[tuple[str, Callable[[str], bool], float], ...] = (
    ("cp949", _is_korean, 0.8),
    ("euc_jp", _is_kana, 0.25),
    ("cp932", _is_kana, 0.25),
    ("gb2312", _is_han, 0.6),
    ("big5", _is_han, 0.6),
)
