"""Which candidate a case should take: one that its rules release and its limits allow, at the least bytes.

The rules of `fedllm-eval decide` say of each candidate whether it may be released; the case's limits say what it
cannot pay whatever it gains. Among those left, the one with the largest gain is compared with the others: whoever's
interval reaches that gain may be as good, and of these the one that sends and receives the fewest bytes is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedllm_train.scenarios.template import Limits

__all__ = ["Outcome", "broken_limits", "outcome_of", "recommended"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is known of one candidate when everything has run."""

    name: str
    verdict: str
    """What the rules recommend: `release`, `do_not_release` or `collect_more`."""
    gain: float
    """In the unit of the score, over what was before."""
    low: float
    high: float
    total_bytes: int
    visit_mb: float
    hours: float | None
    epsilon: float | None
    """None where there is no guarantee."""
    broken: Sequence[str] = ()
    """Sentences on the limits it does not keep."""


def outcome_of(decided: dict[str, Any], rounds: Sequence[dict[str, Any]], limits: Limits) -> Outcome:
    """Return what is known of a candidate.

    Args:
        decided: its entry in `decision.json`.
        rounds: the run's `rounds.jsonl`.
        limits: of the case.
    """
    last = rounds[-1]
    ledger = last["ledger"]
    total = ledger["download_bytes"] + ledger["upload_bytes"]
    visits = sum(len(each["clients"]) + len(each["left_out"]) for each in rounds)
    gain = next(each["values"] for each in decided["rules"] if each["name"] == "gain")
    numbers: dict[str, Any] = {
        "total_bytes": total,
        "visit_mb": total / max(1, visits) / 1e6,
        "hours": last["clock_seconds"] / 3600 if "clock_seconds" in last else None,
        "epsilon": last["privacy"]["epsilon"] if "privacy" in last else None,
    }
    return Outcome(
        name=decided["label"],
        verdict=decided["recommendation"],
        gain=gain["gain"],
        low=gain["low"],
        high=gain["high"],
        broken=broken_limits(limits, **{name: numbers[name] for name in ("visit_mb", "hours", "epsilon")}),
        **numbers,
    )


def broken_limits(limits: Limits, *, visit_mb: float, hours: float | None, epsilon: float | None) -> list[str]:
    """Return a sentence for every limit that is not kept.

    >>> broken_limits(Limits(visit_mb=1, epsilon=8), visit_mb=1.25, hours=None, epsilon=None)
    ['A visit takes 1.25 MB, and the case allows 1.', 'It has no guarantee, and the case asks for epsilon 8.']
    """
    broken = []
    if limits.visit_mb is not None and visit_mb > limits.visit_mb:
        broken.append(f"A visit takes {visit_mb:.3g} MB, and the case allows {limits.visit_mb:g}.")
    if limits.hours is not None and hours is not None and hours > limits.hours:
        broken.append(f"It takes {hours:.3g} hours, and the case allows {limits.hours:g}.")
    if limits.epsilon is not None and epsilon is None:
        broken.append(f"It has no guarantee, and the case asks for epsilon {limits.epsilon:g}.")
    elif limits.epsilon is not None and epsilon is not None and epsilon > limits.epsilon:
        broken.append(f"It spends epsilon {epsilon:.3g}, and the case allows {limits.epsilon:g}.")
    return broken


def recommended(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the candidate to take, or None if there is none.

    >>> common = {"verdict": "release", "visit_mb": 1.0, "hours": 1.0, "epsilon": None}
    >>> plain = Outcome(name="plain", gain=1.0, low=0.8, high=1.2, total_bytes=900, **common)
    >>> packed = Outcome(name="packed", gain=0.9, low=0.7, high=1.1, total_bytes=100, **common)
    >>> weak = Outcome(name="weak", gain=0.2, low=0.1, high=0.3, total_bytes=1, **common)
    >>> recommended([plain, packed, weak]).name
    'packed'
    """
    possible = [each for each in outcomes if each.verdict == "release" and not each.broken]
    if not possible:
        return None
    best = max(each.gain for each in possible)
    return min((each for each in possible if each.high >= best), key=lambda each: (each.total_bytes, each.name))
