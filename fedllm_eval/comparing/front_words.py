"""What a front says: who is beaten by nobody, who is beaten and by whom, what is not known. One sentence each."""

from collections.abc import Mapping, Sequence
from typing import Any

from fedllm_data.wording.catalogue import marked, words
from fedllm_data.wording.forms import bytes_text, listed
from fedllm_eval.deciding.plain_amounts import time_text
from fedllm_eval.reporting.score_words import score_name
from fedllm_eval.running.round_costs import CLOCK, TRAINING, TRAINING_AND_LINES

__all__ = ["COST_NAMES", "cost_text", "figure_name", "front_sentences", "hours_sentence", "seeds_sentence"]

COST_NAMES = {
    "bytes": marked("bytes sent"),
    "hours": marked("hours"),
    "money": marked("money"),
    "epsilon": marked("privacy spent (epsilon)"),
}
_HOURS_FROM = {
    CLOCK: marked("Hours are those of the simulated clock."),
    TRAINING_AND_LINES: marked(
        "Hours are the measured training of the slowest client of each round, and sending over the stated lines."
    ),
    TRAINING: marked(
        "Hours are the measured training of the slowest client of each round, without sending; --download-mbit and"
        " --upload-mbit would add it."
    ),
}


def cost_text(cost: str, value: float | None, currency: str = "") -> str:
    """Return a cost with its unit.

    >>> cost_text("bytes", 23_200), cost_text("hours", 0.25), cost_text("money", 2.4, "EUR"), cost_text("epsilon", 8)
    ('23.2 kB', '15 minutes', '2.4 EUR', '8')
    """
    if value is None:
        return words("not known")
    if cost == "bytes":
        return bytes_text(value)
    if cost == "hours":
        return time_text(value)
    return f"{value:,.3g} {currency}".strip() if cost == "money" else f"{value:.3g}"


def figure_name(front: Mapping[str, Any]) -> str:
    """Return what a front's figure is called.

    >>> figure_name({"split": "test", "cost": "bytes"})
    'front-test-bytes'
    """
    split = "".join(letter if letter.isalnum() else "-" for letter in front["split"])
    return f"front-{split}-{front['cost']}"


def front_sentences(front: Mapping[str, Any], currency: str = "") -> list[str]:
    """Return what a front says.

    Args:
        front: an item of `fronts.fronts_of`.
        currency: of money.

    >>> point = {"label": "a", "cost": 1.0, "beaten_by": [], "ties": [], "hours_from": None}
    >>> front = {"score": "heldout_loss", "split": "test", "cost": "bytes", "unknown": [], "is_tested": True}
    >>> front_sentences(front | {"points": [point, point | {"label": "b", "cost": 2.0, "beaten_by": ["a"]}]})
    ['No other method beats a in held-out loss against bytes sent (test).', 'b is beaten by a: a better score at no ...
    """
    points = front["points"]
    where = {
        "score": score_name(front["score"]),
        "cost": words(COST_NAMES[front["cost"]]),
        "split": front["split"],
    }
    unbeaten = [point["label"] for point in points if not point["beaten_by"]]
    if not points:
        said = [words("{score} against {cost} ({split}): this cost is known of no method.", **where)]
    elif len(points) == 1:
        said = [
            words(
                "{score} against {cost} ({split}): this cost is known of {name} alone, so nothing is set against it.",
                **where,
                name=unbeaten[0],
            )
        ]
    elif len(unbeaten) == len(points):
        said = [words("No method beats another in {score} against {cost} ({split}).", **where)]
    else:
        said = [
            words("No other method beats {names} in {score} against {cost} ({split}).", **where, names=_all(unbeaten))
        ]
    said += [
        words(
            "{name} is beaten by {names}: a better score at no higher cost.",
            name=point["label"],
            names=_all(point["beaten_by"]),
        )
        for point in points
        if point["beaten_by"]
    ]
    costs = {point["label"]: cost_text(front["cost"], point["cost"], currency) for point in points}
    for point in points:
        if point["ties"] and not point["beaten_by"]:
            said.append(
                words(
                    "{name} ({cost}) cannot be told from {other} in score, which costs less ({less}).",
                    name=point["label"],
                    cost=costs[point["label"]],
                    other=point["ties"][0],
                    less=costs[point["ties"][0]],
                )
            )
    if len(points) > 1 and not front["is_tested"]:
        said.append(words("Too few clients were scored for any difference to be shown."))
    reasons: dict[str, list[str]] = {}
    for one in front["unknown"]:
        reasons.setdefault(one["reason"], []).append(one["label"])
    said += [
        words("Not on this front: {names}; {reason}.", names=_all(labels), reason=words(reason))
        for reason, labels in reasons.items()
    ]
    if front["cost"] == "hours" and points:
        said.append(hours_sentence(front))
    return said


def hours_sentence(front: Mapping[str, Any]) -> str:
    """Return what the hours of a front are hours of; nothing where nothing took any."""
    kinds: dict[str, list[str]] = {}
    for point in front["points"]:
        if point["hours_from"] is not None:
            kinds.setdefault(point["hours_from"], []).append(point["label"])
    if len(kinds) > 1:
        told = [
            words("{names} ({kind})", names=", ".join(labels), kind=words(_KINDS[kind]))
            for kind, labels in kinds.items()
        ]
        return words(
            "Hours are of different kinds, and such methods are not set against one another: {kinds}.",
            kinds=listed(told),
        )
    return "".join(words(_HOURS_FROM[kind]) for kind in kinds)


_KINDS = {
    CLOCK: marked("simulated clock"),
    TRAINING_AND_LINES: marked("measured training and stated lines"),
    TRAINING: marked("measured training alone"),
}


def seeds_sentence(covers_seeds: bool) -> str:
    """Return whether the fronts speak of methods or of the runs at hand; nothing where they speak of methods."""
    return (
        ""
        if covers_seeds
        else words("Not every method has several seeds: the fronts are about the runs at hand, not about other seeds.")
    )


def _all(labels: Sequence[str]) -> str:
    return listed(list(labels))
