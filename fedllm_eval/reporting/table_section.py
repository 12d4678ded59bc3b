"""What a table of an evaluation is, and how its cells are written: a number with a small line beneath.

A number that is undefined is shown as n/a, never as 0.
"""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedllm_data.wording.catalogue import marked, plural_words, words
from fedllm_data.wording.forms import interval_text
from fedllm_data.wording.recorded import again
from fedllm_eval.scoring.spread import num_worst

__all__ = [
    "NAMES",
    "NO_ROUNDING",
    "ORDER",
    "Cell",
    "Section",
    "all_notes",
    "arrow",
    "by_label",
    "counted",
    "fewer_clients",
    "first_ten",
    "interval",
    "markdown_text",
    "name_of",
    "number",
    "signed",
    "worst_tenth",
]


Cell = tuple[str, str]
"""What is shown, and a smaller line beneath it (or nothing)."""
ORDER = ("base", "policy", "personal", "alone", "centralised")
NAMES = {
    "policy": marked("global adapter"),
    "personal": marked("personal adapters"),
    "alone": marked("trained alone"),
    "base": marked("base"),
    "centralised": marked("centralised"),
}
"""What the labels mean to a reader; a plain model has no adapter, so `policy` then stands as it is."""
NAMED = {
    "never_trained": marked("never trained: {clients}"),
    "took_no_part": marked("took part in no round: {clients}"),
}
"""Lists of clients in the summary of a split, and what is said of them."""
NUM_NAMED = 10
NO_ROUNDING = 1e-12
"""A number that four digits would show as 0 is shown by its power of ten, unless it is what rounding leaves of a 0."""
_MARKS = re.compile(r"([\\`*|~$]|\](?=\()|(?<![^\W_])_|_(?![^\W_]))")
"""What Markdown does not show as it is; an underscore inside a word it does."""


@dataclass(frozen=True)
class Section:
    """One table."""

    anchor: str
    title: str
    question: str
    """What it answers and how to read it."""
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    num_text: int = 1
    """Leading columns that are words."""
    notes: tuple[str, ...] = ()


def number(value: float | None, digits: int = 4) -> str:
    """Return a number as the tables show it.

    >>> number(0.123456), number(1234.5), number(None), number(3e15), number(2e-8)
    ('0.1235', '1,234.5', 'n/a', '3.00e+15', '2.0e-08')
    """
    if value is None:
        return "n/a"
    if NO_ROUNDING <= abs(value) < 0.5 * 10**-digits:
        return f"{value:.1e}"
    if abs(value) >= 1e7:
        return f"{value:.2e}"
    return f"{value:.{digits}f}" if abs(value) < 100 else f"{value:,.1f}"


def interval(low: float | None, high: float | None, *, signed: bool = False, digits: int = 4) -> str:
    """Return `low to high`, or that there is no interval."""
    if low is None or high is None:
        return interval_text(None, None)
    if signed:
        return interval_text(_signed(low), _signed(high))
    return interval_text(number(low, digits), number(high, digits))


def markdown_text(text: str) -> str:
    r"""Return text that holds ids and names from outside as Markdown shows it unchanged, on one line.

    >>> markdown_text("heldout_loss of <b>a|b</b>\n[x](y) __z__")
    'heldout_loss of &lt;b&gt;a\\|b&lt;/b&gt; [x\\](y) \\_\\_z\\_\\_'
    """
    line = "".join(char if char.isprintable() else " " for char in text)
    return _MARKS.sub(r"\\\1", html.escape(line, quote=False))


def by_label(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the splits' scores of every policy, in the order in which they are shown."""
    found = {"policy": summary["splits"]}
    found |= {label: other["splits"] for label, other in summary.get("policies", {}).items()}
    labels = [label for label in ORDER if label in found] + sorted(label for label in found if label not in ORDER)
    return {label: found[label] for label in labels}


def name_of(label: str, summary: Mapping[str, Any]) -> str:
    """Return what a policy is called in a table."""
    if label == "policy" and summary.get("policy", {}).get("adapter_sha256") is None:
        return words("model")
    return words(NAMES[label]) if label in NAMES else label


def fewer_clients(score: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Return how many clients a score is of, where they are not as many as the policy's own; else nothing.

    >>> fewer_clients({"num_clients": 4}, {"num_clients": 13}), fewer_clients({"num_clients": 13}, {"num_clients": 13})
    ('4 clients', '')
    """
    num = score["num_clients"]
    return "" if num == own["num_clients"] else plural_words("{num} client", "{num} clients", num)


def all_notes(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what to know before trusting the numbers: (split, or policy and split; a note), none of them twice."""
    notes = [(split, note) for split, part in summary["splits"].items() for note in _notes_of(part)]
    for label, other in summary.get("policies", {}).items():
        of_other = ((split, note) for split, part in other["splits"].items() for note in _notes_of(part))
        name = name_of(label, summary)
        notes += [
            (words("{name}, {split}", name=name, split=split), note)
            for split, note in of_other
            if (split, note) not in notes
        ]
    return notes


def first_ten(client_ids: Sequence[str]) -> str:
    """Return ids in words: the first ten, and how many more there are.

    >>> first_ten(["ann", "bob"]), first_ten([str(number) for number in range(12)])[-12:]
    ('ann, bob', '9 and 2 more')
    """
    more = len(client_ids) - NUM_NAMED
    named = ", ".join(client_ids[:NUM_NAMED])
    return words("{listed} and {num} more", listed=named, num=more) if more > 0 else named


def _notes_of(part: Mapping[str, Any]) -> list[str]:
    """The notes of a split, and those that name clients, where the summary has their names."""
    named = (words(message, clients=first_ten(part[name])) for name, message in NAMED.items() if part.get(name))
    return [*map(again, part["notes"]), *named]


def counted(score: Mapping[str, Any]) -> str:
    """Return how many items a score was taken over: rows or tokens.

    >>> counted({"num_items": 1200, "weighted_by": "tokens"})
    '1,200 tokens'
    """
    if score["weighted_by"] == "tokens":
        return plural_words("{num} token", "{num} tokens", score["num_items"])
    return plural_words("{num} row", "{num} rows", score["num_items"])


def arrow(score: Mapping[str, Any]) -> str:
    """Return which way is better; nothing where neither is."""
    return "" if score["higher_is_better"] is None else "↑" if score["higher_is_better"] else "↓"


def worst_tenth(num_clients: int) -> str:
    """Return what the worst decile is in words: below twenty clients it is one person.

    >>> worst_tenth(266), worst_tenth(19)
    ('worst tenth (26 clients)', 'one client served worst')
    """
    num = num_worst(num_clients)
    return words("one client served worst") if num == 1 else words("worst tenth ({num} clients)", num=f"{num:,}")


def signed(value: float | None) -> str:
    """Return a number with its sign.

    >>> signed(0.5), signed(None), signed(-3e-5)
    ('+0.5000', 'n/a', '-3.0e-05')
    """
    return "n/a" if value is None else _signed(value)


def _signed(value: float) -> str:
    is_small = NO_ROUNDING <= abs(value) < 0.5e-4
    return f"{value:+.1e}" if is_small or abs(value) >= 1e7 else f"{value:+.4f}"
