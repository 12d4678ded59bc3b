"""Numbers and findings of a report in words, and text from data made safe to look at."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from fedllm_data.heterogeneity.axes import AXES
from fedllm_data.heterogeneity.axis import Reading
from fedllm_data.reporting.numbers import format_number
from fedllm_data.wording.catalogue import marked, words
from fedllm_data.wording.forms import listed, minus, sentences
from fedllm_data.wording.recorded import again

__all__ = [
    "VERDICT_WORDS",
    "distance_words",
    "method_words",
    "null_distance",
    "summary_sentence",
    "telling",
    "title_of",
    "visible",
]

VERDICT_WORDS = {
    "more than chance": marked("beyond chance"),
    "no more than chance": marked("within chance"),
    "not enough data": marked("not enough data"),
}
"""What a verdict is called on a page; messages of the catalogue."""
_ONLY_CHANCE = marked(
    "This is what clients of these sizes show by chance; with few clients or rows, a small difference may be missed."
)
_BY_SCORER = (
    marked("{scorer}: intraclass correlation"),
    marked("{scorer}: Wasserstein-1 to the pool"),
    marked("{scorer}: clients whose mean differs"),
)
"""Titles of the measures of a scorer that did not come with the package."""
_SUMMARIES = {
    "d": marked("The {clients} clients differ in {differ} more than chance explains."),
    "s": marked("The {clients} clients do not differ in {same} more than chance explains."),
    "u": marked("The {clients} clients give not enough data on {unknown}."),
    "ds": marked(
        "The {clients} clients differ in {differ} more than chance explains; they do not differ in {same} more than"
        " chance explains."
    ),
    "du": marked(
        "The {clients} clients differ in {differ} more than chance explains; they give not enough data on {unknown}."
    ),
    "su": marked(
        "The {clients} clients do not differ in {same} more than chance explains; they give not enough data on"
        " {unknown}."
    ),
    "dsu": marked(
        "The {clients} clients differ in {differ} more than chance explains; they do not differ in {same} more than"
        " chance explains; they give not enough data on {unknown}."
    ),
}
"""Which verdicts there are (differ, same, unknown) -> the whole finding."""


def visible(text: str, limit: int = 80) -> str:
    r"""Return text in which nothing hides: control, direction and other unseen characters become escapes.

    A long text loses its middle, so that beginning and end can still be told apart.

    >>> visible("ada\u202egnp.exe"), visible("x" * 99, limit=9)
    ('ada\\u202egnp.exe', 'xxxxx…xxx')
    """
    safe = "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in _UNSEEN else letter
        for letter in text
    )
    tail = (limit - 1) * 2 // 5
    return safe if len(safe) <= limit else f"{safe[: limit - 1 - tail]}…{safe[len(safe) - tail :]}"


_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def title_of(column: str) -> str:
    """Return the heading of a column of clients.

    >>> title_of("num_rows"), title_of("response_p90_tokens"), title_of("score:ifd_mean")
    ('rows', 'response p90 tokens', 'score: ifd mean')
    """
    return visible(column.removeprefix("num_").replace("_", " ").replace(":", ": "), limit=60)


def telling(columns: Sequence[str]) -> list[str]:
    """Return the columns of an axis, those first that say more of a client than a count or a quantile does.

    >>> telling(["num_pairs", "length_p10", "length_median"])
    ['length_median', 'length_p10', 'num_pairs']
    """
    return sorted(columns, key=lambda name: (name.startswith("num_"), "median" not in name))


def null_distance(measure: Mapping[str, Any], value: float | None) -> float | None:
    """Return how far a value lies from the null in its standard deviations, positive where clients differ more.

    >>> null_distance({"null_mean": 1.0, "null_std": 0.5, "unequal": "low"}, 0.0)
    2.0
    """
    mean, std = measure["null_mean"], measure["null_std"]
    if value is None or mean is None or std is None or std <= 1e-12 * max(1.0, abs(mean)):
        return None
    distance = float((value - mean) / std)
    return -distance if measure.get("unequal") == "low" else distance


def distance_words(axis: Mapping[str, Any]) -> str:
    """Return how far the headline of an axis lies from chance, beside its verdict; nothing if there is no value.

    >>> measure = {"value": 9.0, "null_mean": 1.0, "null_std": 0.5}
    >>> distance_words({"verdict": "more than chance", "headline": "h", "measures": {"h": measure}})
    '16 standard deviations beyond chance'
    """
    measure = axis["measures"][axis["headline"]]
    if axis["verdict"] == "not enough data" or measure["value"] is None:
        return ""
    distance = null_distance(measure, measure["value"])
    if distance is None:
        return words("chance has no spread here")
    if axis["verdict"] == "no more than chance" and distance < -3:
        return words("more alike than chance makes them")
    number = minus(format_number(float(f"{distance:.3g}")))
    if axis["verdict"] == "more than chance":
        return words("{number} standard deviations beyond chance", number=number)
    return words("{number} standard deviations from the mean of chance", number=number)


def method_words(name: str, axis: Mapping[str, Any]) -> str:
    """Return what the finding on an axis means for the choice of a method.

    >>> method_words("topics", {"verdict": "more than chance", "means": "Cluster the clients."})
    'Cluster the clients.'
    """
    reading = AXES[name].reading if name in AXES else Reading()
    if axis["verdict"] == "not enough data":
        return words(
            "{unknown}. The report gives no reason for or against any method on this axis; do not read it as"
            " likeness.",
            unknown=words(reading.unknown),
        )
    if axis["verdict"] == "no more than chance":
        return sentences([words(reading.alike), words(_ONLY_CHANCE)])
    return again(str(axis.get("means") or reading.means))


def summary_sentence(verdicts: Mapping[str, str], num_clients: int) -> str:
    """Return the whole finding in one sentence.

    Args:
        verdicts: axis -> its verdict.
        num_clients: how many clients there are.

    >>> summary_sentence({"length": "more than chance", "quality": "not enough data"}, 1200)
    'The 1,200 clients differ in length more than chance explains; they give not enough data on quality.'
    """
    groups = {
        kind: [words(name) for name, found in verdicts.items() if found == verdict]
        for kind, verdict in (
            ("differ", "more than chance"),
            ("same", "no more than chance"),
            ("unknown", "not enough data"),
        )
    }
    if num_clients == 1:
        return words("One client alone: not enough data on {unknown}.", unknown=listed(groups["unknown"]))
    which = "".join(kind[0] for kind, axes in groups.items() if axes)
    return words(
        _SUMMARIES[which], clients=f"{num_clients:,}", **{kind: listed(axes) for kind, axes in groups.items()}
    )
