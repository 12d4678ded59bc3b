"""Replace what identifies or gives access: e-mail addresses, phone numbers, IP addresses, keys.

Found by form alone, so some is missed and some replaced that is harmless:

- `[EMAIL]`: addresses in ASCII. `git@host` stays; "name at host dot org" is missed.
- `[PHONE]`: numbers with a country code (+49 30 ...) that exist by the tables of `phonenumbers`; North American ones
  written in groups, (212) 555-0123; any seven to fifteen digits right after a word like "phone:" or "WhatsApp".
- `[IP]`: addresses that are routed on the internet. Private, loopback, documentation and other special ranges stay:
  they tell nobody's whereabouts. So do those of four one-digit numbers (1.2.3.4 is a version or a section more often,
  8.8.8.8 a public resolver) and what follows "version", "v" or "==". A version like 12.0.4.31 is taken for one.
- `[KEY]`: private key blocks, tokens with a known prefix (AWS, GitHub, GitLab, Slack, Google, Stripe, OpenAI,
  Anthropic, Hugging Face, npm, PyPI), JSON web tokens, bearer tokens, AWS secrets by their name, passwords in URLs.
  A password without such a form is missed.

Names, postal addresses and everything else that a reader may know a person by stay: this is no anonymisation.
Every pattern runs in linear time: repetitions are bounded or possessive, and begin where a run begins.
"""

import re
from collections import Counter
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv6Address, IPv6Network
from typing import Any

from fedllm_data.errors import ConfigError

__all__ = ["scrub"]

_BEGIN, _END = (rf"-----{word} [A-Z0-9 ]{{0,30}}PRIVATE KEY(?: BLOCK)?-----" for word in ("BEGIN", "END"))
_KEY_BLOCK = re.compile(
    rf"{_BEGIN}(?:[^-]|-(?!----))*+{_END}"
    rf"|{_BEGIN}(?:(?:\s|\\[nr])*[A-Za-z0-9+/=]{{16,}}+)+"  # the end is cut off
)
_TOKEN = re.compile(
    r"""(?<![A-Za-z0-9_-])(?:
      (?:AKIA|ASIA)[A-Z0-9]{16}
    | gh[pousr]_[A-Za-z0-9]{36,255}+ | github_pat_[A-Za-z0-9_]{22,255}+ | glpat-[A-Za-z0-9_-]{20,255}+
    | xox[abeoprs]-[A-Za-z0-9-]{10,255}+ | AIza[A-Za-z0-9_-]{35} | [rs]k_(?:live|test)_[A-Za-z0-9]{16,255}+
    | sk-[A-Za-z0-9_-]{20,255}+ | hf_[A-Za-z0-9]{30,255}+ | npm_[A-Za-z0-9]{36} | pypi-[A-Za-z0-9_-]{50,255}+
    | eyJ[A-Za-z0-9_-]{8,}+\.eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+
    )(?![A-Za-z0-9_-])""",
    re.VERBOSE,
)
_NAMED = re.compile(
    r"""((?<!\w)(?:bearer[ ]{1,4} | aws_?secret_?access_?key["']?[ ]{0,4}[=:][ ]{0,4}["']?))
        [A-Za-z0-9._~+/=-]{16,}+""",
    re.VERBOSE | re.IGNORECASE,
)
_URL_PASSWORD = re.compile(
    r"((?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@]{0,100}:)(?!\[KEY\]@)[^\s/@]{1,200}(?=@[\w\[])"
)
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])(?!git@)[A-Za-z0-9._%+-]{1,64}@"
    r"(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.)+[A-Za-z]{2,24}(?![A-Za-z0-9_(-])"
)
_IPV4 = re.compile(r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?!\.?\w|-[A-Za-z])")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{1,4}:[0-9A-Fa-f:.]{4,41}(?<!\.)(?![\w:])")
_VERSION = re.compile(r"(?:version|release|ver\.?|v|[=~<>]=|\^)\s{0,2}$", re.IGNORECASE)
_INTERNET = IPv6Network("2000::/3")
"""Global unicast addresses as IANA allocates them; outside, `face::add` is C++ more often than an address."""

_PHONE_WORD = re.compile(
    r"""(?:(?<![^\W\d])(?:(?:tele|cell|mobile\s)?phone|tel|telefon|telefone|tel[eé]fono|t[eé]l[eé]phone|t[eé]l|handynummer|
        telefonnummer|mobile|fax|whats\s?app|call\s(?:me|us)|телефон|тел)(?!\w)|电话|電話|手机|手機|전화|هاتف)
        (?:\s|[:=.#"'-]|number|nummer|n[oº°r]|is|at|on|是|号码|번호){0,8}
        (?P<number>[+(]?[0-9](?:[ ./()-]{0,2}[0-9]){6,14}(?![0-9]))""",
    re.VERBOSE | re.IGNORECASE,
)
_NORTH_AMERICAN = re.compile(
    r"(?<![\w.+-])(?:1[ .-])?(?:\([2-9][0-9]{2}\) ?[2-9][0-9]{2}[ .-]|[2-9][0-9]{2}([.-])[2-9][0-9]{2}\1)[0-9]{4}"
    r"(?!\w|[.-][0-9])"
)
_DATE = re.compile(r"[0-9]{4}([-./])[0-9]{1,2}\1[0-9]{1,2}|[0-9]{1,2}([-./])[0-9]{1,2}\2[0-9]{4}")
_MAX_PASSES = 10
_MAY_BE_PHONE = re.compile(r"\d(?:[^\w\n]{0,4}\d){6}")


def scrub(text: str) -> tuple[str, Counter[str]]:
    """Return a text with placeholders for addresses, numbers and keys, and how many of each kind were replaced.

    Scrubbing again changes nothing.

    Raises:
        ConfigError: if the extra `scrub` is not installed.

    >>> scrub("Write to ann@example.org, or call +49 30 901820.")
    ('Write to [EMAIL], or call [PHONE].', Counter({'EMAIL': 1, 'PHONE': 1}))
    """
    counts: Counter[str] = Counter()
    # What is cut out may have hidden something that touched it, hence again until nothing is found: a second time at
    # most in any text not made for it, and never more often than keeps the time linear.
    for _ in range(_MAX_PASSES):
        num_before = counts.total()
        text = _scrub_once(text, counts)
        if counts.total() == num_before:
            break
    return text, +counts


def _scrub_once(text: str, counts: Counter[str]) -> str:
    def put(kind: str, is_one: Callable[[re.Match[str]], bool] = lambda match: True) -> Callable[[re.Match[str]], str]:
        def replacement(match: re.Match[str]) -> str:
            if not is_one(match):
                return match.group()
            counts[kind] += 1
            return f"{match.group(1) if match.re.groups else ''}[{kind}]"

        return replacement

    if "PRIVATE KEY" in text:
        text = _KEY_BLOCK.sub(put("KEY"), text)
    text = _TOKEN.sub(put("KEY", _has_digit), text)
    text = _NAMED.sub(put("KEY", _has_digit), text)
    if "@" in text:
        text = _URL_PASSWORD.sub(put("KEY"), text)
        text = _EMAIL.sub(put("EMAIL"), text)
    text = _IPV4.sub(put("IP", _is_public_ipv4), text)
    text = _IPV6.sub(put("IP", _is_public_ipv6), text)
    places = _phone_numbers(text)
    counts["PHONE"] += len(places)
    starts, ends = [start for start, _ in places], [end for _, end in places]
    return "[PHONE]".join(text[end:start] for end, start in zip([0, *ends], [*starts, len(text)], strict=True))


def _has_digit(match: re.Match[str]) -> bool:
    """Tokens are random; `sk-learn-compatible-estimators` is a name."""
    return any(char.isdigit() for char in match.group())


def _is_public_ipv4(match: re.Match[str]) -> bool:
    try:
        address = IPv4Address(match.group())
    except AddressValueError:
        return False
    before = match.string[max(0, match.start() - 12) : match.start()]
    return address.is_global and not address.is_multicast and max(address.packed) > 9 and not _VERSION.search(before)


def _is_public_ipv6(match: re.Match[str]) -> bool:
    try:
        address = IPv6Address(match.group())
    except AddressValueError:
        return False
    # Fewer than three colons: a slice of an array, x[2400::2].
    return address.is_global and address in _INTERNET and match.group().count(":") >= 3


def _phone_numbers(text: str) -> list[tuple[int, int]]:
    """Places of phone numbers, in order, none overlapping another."""
    phonenumbers = _phonenumbers()
    if not _MAY_BE_PHONE.search(text):
        return []
    found = [match.span("number") for match in _PHONE_WORD.finditer(text) if not _DATE.fullmatch(match["number"])]
    for match in _NORTH_AMERICAN.finditer(text):
        if phonenumbers.is_valid_number(phonenumbers.parse(match.group(), "US")):
            found.append(match.span())
    end = -1
    # max_tries would stop the search in a long table of numbers; there are fewer candidates than characters.
    for match in phonenumbers.PhoneNumberMatcher(text, None, max_tries=len(text)):
        # The matcher takes the sum "1 + 20 30 40 50 60" for a number in Egypt.
        is_apart = match.start == end or not text[max(0, match.start - 1) : match.start].isalnum()
        if is_apart and re.match(r"\(?[+＋]\(?\d", match.raw_string):
            end = match.end
            found.append((match.start, end))
    places: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if not places or start >= places[-1][1]:
            places.append((start, end))
        else:
            places[-1] = (places[-1][0], max(end, places[-1][1]))
    return places


def _phonenumbers() -> Any:
    try:
        import phonenumbers
    except ImportError:
        raise ConfigError(
            "scrubbing needs the library phonenumbers; install it with: pip install 'fedllm-commons[scrub]'"
        ) from None
    return phonenumbers
