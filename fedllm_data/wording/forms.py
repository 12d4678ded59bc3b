"""Lists, shares, intervals, sizes and lengths of time as the language of the page writes them. No page knows digits.

Digits, separators of thousands and the decimal point are the same in all languages of the pages; what differs is the
space before a percent sign, the words between two ends, and the marks of a list. The standard library only.
"""

from collections.abc import Sequence

from fedllm_data.wording.catalogue import language_now, words

__all__ = ["bytes_text", "interval_text", "listed", "minus", "percent", "sentences", "with_dash"]

_BETWEEN = {"en": " ", "ja": ""}
"""What stands between two sentences."""


def listed(items: Sequence[str]) -> str:
    """Return words in a row.

    >>> listed(["length", "quality", "language"]), listed(["length"]), listed([])
    ('length, quality and language', 'length', '')
    """
    if len(items) < 2:
        return "".join(items)
    return words("{first} and {last}", first=words(", ").join(items[:-1]), last=items[-1])


def sentences(said: Sequence[str]) -> str:
    """Return sentences one after the other; empty ones are left out.

    >>> sentences(["One.", "", "Two."])
    'One. Two.'
    """
    return _BETWEEN[language_now()].join(sentence for sentence in said if sentence)


def percent(fraction: float, digits: int = 0) -> str:
    """Return a fraction as a percentage.

    >>> percent(0.954), percent(0.0512, 1)
    ('95 %', '5.1 %')
    """
    return words("{number} %", number=minus(f"{100 * fraction:.{digits}f}"))


def interval_text(low: str | None, high: str | None) -> str:
    """Return the two ends of an interval, or that there is none.

    >>> interval_text("0.1", "0.2"), interval_text(None, None)
    ('0.1 to 0.2', 'no interval')
    """
    return words("no interval") if low is None or high is None else words("{low} to {high}", low=low, high=high)


def with_dash(text: str | None) -> str:
    """Return a text, or a dash where there is none.

    >>> with_dash(None), with_dash("3")
    ('–', '3')
    """
    return text or "–"


def minus(text: str) -> str:
    """Return a number with a minus sign as wide as its plus.

    >>> minus("-0.5")
    '−0.5'
    """
    return text.replace("-", "−")


def bytes_text(num_bytes: float) -> str:
    """Return a size in the unit that fits, in powers of 1,000.

    >>> bytes_text(12), bytes_text(345_678), bytes_text(98_765_432)
    ('12 B', '346 kB', '98.8 MB')
    """
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if num_bytes >= 1000**power:
            size = num_bytes / 1000**power
            return f"{size:.3g} {unit}" if size < 100 else f"{size:,.0f} {unit}"
    return f"{num_bytes:.0f} B"
