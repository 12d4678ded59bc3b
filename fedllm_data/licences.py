"""Licences as people spell them, and as the Hub identifies them; what each asks of whoever passes rows on.

"CC BY NC 4.0", `cc_by_nc_4.0`, "Creative Commons Attribution-NonCommercial 4.0 International" and the deed's URL all
are `cc-by-nc-4.0`. What has no identifier on the Hub is `other` there, with its name beside it; nothing is guessed: a
licence without its version is not the newest one. The three terms that decide what may be done with rows (no
commercial use, no changed versions, share alike) are found in any spelling, whether the licence has an identifier or
not. This is reading, not legal advice. Standard library only.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

__all__ = ["HUB_LICENCES", "Licence", "Term", "is_non_commercial", "licence_terms", "read_licence"]

Term = Literal["nc", "nd", "sa"]
"""No commercial use; no changed version may be passed on; what is derived stays under the same licence."""

HUB_LICENCES = tuple(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
    lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl
    openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr
    deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
    grok2-community gemma unknown other
    """.split()
)
"""Identifiers that a card's `license` may hold, as the Hub's documentation listed them in 2026."""


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence for the front matter of a card."""

    identifier: str
    """One of `HUB_LICENCES`: `other` where the Hub has no identifier for it, `unknown` where none was stated."""
    name: str = ""
    """The licence as it was spelt, where the identifier is `other`."""

    @property
    def words(self) -> str:
        """The identifier, or the licence as it was spelt where there is none; empty if none was stated."""
        return "" if self.identifier == "unknown" else self.name or self.identifier

    @property
    def slug(self) -> str:
        """The name in the form of `license_name`: lower case, without spaces."""
        return re.sub(r"[^\w.+]+", "-", self.name.lower()).strip("-")


def read_licence(text: str) -> Licence:
    """Return the licence that a text names.

    >>> read_licence("CC BY NC 4.0"), read_licence("Apache License, Version 2.0").identifier
    (Licence(identifier='cc-by-nc-4.0', name=''), 'apache-2.0')
    >>> read_licence("CC BY-NC"), read_licence("")
    (Licence(identifier='other', name='CC BY-NC'), Licence(identifier='unknown', name=''))
    """
    words = " ".join(text.split())
    if not words:
        return Licence("unknown")
    plain = unicodedata.normalize("NFKC", words)
    letters = _letters(plain)
    found = _creative_commons(plain) or _BY_LETTERS.get(letters)
    if found is None and "gpl" in letters:
        found = _BY_LETTERS.get(letters.removesuffix("+"))  # "or later"
    return Licence(found) if found else Licence("other", words)


def licence_terms(text: str) -> frozenset[Term]:
    """Return which of the three terms a licence has, by its identifier or its words.

    >>> sorted(licence_terms("cc_by_nc_sa_4.0")), sorted(licence_terms("Attribution-NoDerivatives 4.0"))
    (['nc', 'sa'], ['nd'])
    >>> sorted(licence_terms("research use only")), sorted(licence_terms("MIT License"))
    (['nc'], [])
    """
    identifier = read_licence(text).identifier
    lowered = _BOTH.sub(" ", " ".join(unicodedata.normalize("NFKC", text).lower().replace("_", " ").split()))
    terms: set[Term] = {term for term, names in _BY_IDENTIFIER.items() if identifier in names}
    terms |= {term for term, pattern in _WORDS.items() if pattern.search(lowered)}
    # Parts of a Creative Commons name count in such a name alone: "nd" is a state, "sa" a kind of company.
    for match in _COMMONS_PARTS.finditer(_shortened(lowered)):
        letters = re.sub(r"[\W_]", "", match[1])
        terms |= {term for term in _TERMS if term in {letters[at : at + 2] for at in range(0, len(letters), 2)}}
    return frozenset(terms)


def is_non_commercial(licence: str) -> bool:
    """Return whether a licence, by its identifier on the Hub or its words, forbids commercial use.

    >>> is_non_commercial("cc-by-nc-4.0"), is_non_commercial("cc-by-4.0"), is_non_commercial("CC BY NC 4.0")
    (True, False, True)
    """
    return "nc" in licence_terms(licence)


_BY_IDENTIFIER: dict[Term, frozenset[str]] = {
    "nc": frozenset(
        "apple-amlr c-uda h-research intel-research deepfloyd-if-license fair-noncommercial-research-license".split()
    ),
    "nd": frozenset(),
    "sa": frozenset(
        "cdla-sharing-1.0 odbl agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 lgpl-lr eupl-1.1 eupl-1.2 "
        "osl-3.0".split()
    ),
}
"""Terms of identifiers whose letters do not tell them; those of Creative Commons are read from their parts."""

_TERMS: tuple[Term, ...] = ("nc", "nd", "sa")
_COMMERCIAL = r"(?:commerc|comerc|kommer[sz]|komerc|gewerblich)\w*"
_FORBIDDEN = r"(?:prohib|forbid|disallow|exclud|interdit|verboten|untersagt|ausgeschlossen|vietat|proib|запрещ)\w*"
_NO = (
    r"(?:no|not|without|never|pas|aucune?|sans|nicht|kein\w*|ohne|sin|ning[uú]n|n[aã]o|sem|nenhum|nessun\w*|senza|niet"
    r"|geen)"
)
_ALLOWED = r"(?:permit|allow|authori|autor|grant|includ|licen|consent|toegestaan|erlaubt|gestattet)"
_NEEDS = r"(?:requires?|needs?|only with|only by)"
_LEAVE = r"(?:permission|licen[cs]e|consent|agreement|approval)"
_WORDS: dict[Term, re.Pattern[str]] = {
    "nc": re.compile(
        "|".join(
            (
                rf"(?:non|nicht|\bniet|\bicke|\bikke|\bnie|\bne|\bno|\bn[aã]o)\W{{0,3}}{_COMMERCIAL}",
                rf"\b(?:{_NO}|{_FORBIDDEN})(?:\W+\w+){{0,6}}\W+{_COMMERCIAL}",  # not for any commercial purpose
                rf"\b{_COMMERCIAL}(?:\W+\w+){{0,4}}?\W+{_FORBIDDEN}",
                rf"\b{_COMMERCIAL}(?:\W+\w+){{0,4}}?\W+{_NO}\W+(?:(?:be|is|está)\W+)?{_ALLOWED}",
                rf"\b{_COMMERCIAL}(?:\W+\w+){{0,4}}?\W+{_NEEDS}(?:\W+\w+){{0,3}}\W+{_LEAVE}",
                r"некоммерческ|非商用|非商业|非商業|非営利|비상업",
                r"\bresearch\b|\bacademic\b|\beducational\b|personal use",
                r"\b(?:not|non)[\W_]{0,3}(?:for[\W_]{0,3})?profit\b",
                r"^\W*nc\W*$",
            )
        )
    ),
    "nd": re.compile(
        r"\bno[\W_]{0,3}deriv|\bnon[\W_]{0,3}deriv|keine[\W_]{0,3}bearbeitung|改変禁止|禁止演绎|변경[\W_]{0,3}금지"
        r"|\bsin[\W_]{0,3}(?:obras?[\W_]{0,3})?deriva|\bsem[\W_]{0,3}deriva|non opere derivate|pas de modification"
        r"|без производных"
    ),
    "sa": re.compile(
        r"share[\W_]{0,3}alike|\bcopyleft\b|weitergabe unter gleichen|partage dans les m[eê]mes"
        r"|compart\w*[\W_]{0,3}igual|condivi\w* allo stesso modo|相同方式共享|継承|동일조건"
        r"|\b[al]?gpl|general public licen"
    ),
}
"""The terms in words of several languages, English first. Research or academic use alone counts as no commercial use,
as does commercial use that needs a permission: such rows go behind a gate, which is the careful reading."""

_BOTH = re.compile(
    r"\bnon[\W_]{0,3}commercial\W+(?:and|or|as well as)\W+commercial"
    r"|\bcommercial\W+(?:and|or|as well as)\W+non[\W_]{0,3}commercial"
)
"""Leave for both kinds of use forbids neither."""

_SPELLED = (
    (r"creative[\W_]*commons", "cc"),
    (r"non[\W_]*commercial", "nc"),
    (r"share[\W_]*alike", "sa"),
    (r"no[\W_]*deriv(?:atives?|ations?|s)?(?:[\W_]*works)?", "nd"),
    (r"attribution", "by"),
)
_COMMONS_PARTS = re.compile(r"(?<![a-z])(?:cc|by)((?:[\W_]*(?:by|nc|nd|sa))+)(?![a-z])")
_COMMONS_URL = re.compile(r"creativecommons\.org/(?:licen[cs]es|publicdomain)/([a-z-]+)/(\d+(?:\.\d+)?)")
_COMMONS = re.compile(
    r"(?:the)?(?:cc)?(by|zero|0)((?:nc|nd|sa|by)*)v?(?:ersion)?(\d(?:\.\d)?)?"
    r"(?:licen[cs]e|public|international|intl|unported|generic|universal|deed|legalcode|domain|dedication)*v?(\d\.\d)?"
    r"(?:licen[cs]e|public|international|intl|unported|generic|universal|deed|legalcode|domain|dedication)*"
)


def _creative_commons(words: str) -> str | None:
    """The Hub's identifier of a Creative Commons licence; None for others and for versions the Hub does not list."""
    found = _commons_parts(words)
    if found is None:
        return None
    parts, version = found
    if parts == ("zero",):
        identifier = "cc0-1.0" if version in ("", "1.0") else ""
    else:
        identifier = "-".join(["cc", *parts, version])
    return identifier if identifier in HUB_LICENCES else None


def _commons_parts(words: str) -> tuple[tuple[str, ...], str] | None:
    """The parts (by, nc, nd, sa in the usual order, or zero) and the version of a Creative Commons licence."""
    lowered = words.lower()
    if (url := _COMMONS_URL.search(lowered)) is not None:
        lowered = f"cc {url[1]} {url[2]}"
    lowered = _shortened(lowered)
    letters = re.sub(r"\([^)]*\)$", "", lowered)  # "... (CC BY-NC 4.0)" repeats what stands before
    for candidate in (letters, lowered):
        match = _COMMONS.fullmatch(re.sub(r"[^\w.]|_", "", candidate))
        if match is None or not ("cc" in lowered or match[2] or match[1] != "by"):
            continue
        version = match[3] or match[4] or ""
        version = f"{version}.0" if len(version) == 1 else version
        if match[1] in ("zero", "0"):
            return ("zero",), version
        given = {match[2][index : index + 2] for index in range(0, len(match[2]), 2)}
        return ("by", *(part for part in ("nc", "nd", "sa") if part in given)), version
    return None


def _shortened(lowered: str) -> str:
    """A name of Creative Commons with its words as their two letters."""
    for pattern, part in _SPELLED:
        lowered = re.sub(pattern, part, lowered)
    return lowered


def _letters(words: str) -> str:
    """What two spellings of one licence share: letters, digits and dots, without the words every licence has."""
    lowered = re.sub(_EVERY, " ", words.lower().replace("_", " "))
    letters = re.sub(r"[^\w.+]|_", "", lowered)
    letters = re.sub(r"(?<=[a-z])v(?=\d)", "", letters)  # gplv3
    return letters.removesuffix("only").removesuffix("orlater")


_EVERY = r"\b(?:the|gnu|licen[cs]ed?|version|software|public|under|v(?=[\W_]*\d))\b"


def _by_letters() -> dict[str, str]:
    known = {_letters(identifier): identifier for identifier in HUB_LICENCES}
    # "Apache 2" for 2.0, where the Hub lists the .0 alone.
    known |= {key.removesuffix(".0"): name for key, name in known.items() if key.endswith(".0")} | known
    return known | {
        "apache2": "apache-2.0",
        "cc0": "cc0-1.0",
        "expat": "mit",
        "opendatacommonsby": "odc-by",
        "opendatacommonsattribution": "odc-by",
        "odcby1.0": "odc-by",
        "odcattribution": "odc-by",
        "odbl1.0": "odbl",
        "odcodbl": "odbl",
        "opendatabase": "odbl",
        "opendatacommonsopendatabase": "odbl",
        "pddl1.0": "pddl",
        "generalgpl": "gpl",
        "general3.0": "gpl-3.0",
        "general3": "gpl-3.0",
        "general2.0": "gpl-2.0",
        "general2": "gpl-2.0",
        "lessergeneral3.0": "lgpl-3.0",
        "lessergeneral3": "lgpl-3.0",
        "lessergeneral2.1": "lgpl-2.1",
        "afferogeneral3.0": "agpl-3.0",
        "afferogeneral3": "agpl-3.0",
        "freedocumentation": "gfdl",
        "mozilla2.0": "mpl-2.0",
        "mozilla2": "mpl-2.0",
        "bsd2clause": "bsd-2-clause",
        "2clausebsd": "bsd-2-clause",
        "3clausebsd": "bsd-3-clause",
        "bsd3": "bsd-3-clause",
        "bsd2": "bsd-2-clause",
        "boost1.0": "bsl-1.0",
        "etalabopen2.0": "etalab-2.0",
        "licenceouverte2.0": "etalab-2.0",
        "communitydataagreementpermissive1.0": "cdla-permissive-1.0",
        "communitydataagreementpermissive2.0": "cdla-permissive-2.0",
        "communitydataagreementsharing1.0": "cdla-sharing-1.0",
    }


_BY_LETTERS = _by_letters()
