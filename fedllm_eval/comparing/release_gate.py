"""Whether a release may go out: is it worse than the baseline by more than a stated margin, with confidence?

A method fails a score where the whole one-sided interval of the harm lies beyond the margin. The error is shared out
among everything that is gated (Bonferroni), so that gating many scores does not stop good releases. What cannot be
told passes, and is named: silence of the data is not proof of safety.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedllm_data.errors import MetricError
from fedllm_data.wording.catalogue import plural_words, words
from fedllm_eval.scoring.rounding import difference_beyond_rounding

__all__ = ["check_sentence", "gate", "parse_margins"]

ALPHA = 0.05
Bounds = Callable[[float], tuple[float, float]]


def parse_margins(texts: Sequence[str], known: Sequence[str]) -> dict[str, float]:
    """Return score -> margin from `0.02` (every score) or `heldout_loss=0.02`; a margin of its own goes first.

    Raises:
        MetricError: if a margin is no number that is 0 or more, or names no score.

    >>> parse_margins(["0.1", "b=0.5"], ["a", "b"])
    {'a': 0.1, 'b': 0.5}
    """
    margins: dict[str, float] = {}
    named: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            margin = float(number)
        except ValueError:
            margin = math.nan
        if not (math.isfinite(margin) and margin >= 0):
            raise MetricError(f"margin {text!r} is no number that is 0 or more; give 0.02, or a score and =0.02")
        if equals and name not in known:
            raise MetricError(f"margin for {name!r}, which is not compared here; scores are {', '.join(known)}")
        if equals:
            named[name] = margin
        else:
            margins = dict.fromkeys(known, margin)
    return margins | named


def gate(compared: Sequence[tuple[Mapping[str, Any], Bounds]], margins: Mapping[str, float]) -> dict[str, Any]:
    """Return which scores of which methods pass, fail or cannot be told.

    Args:
        compared: items of a comparison, each with a function from a confidence to its two-sided interval.
        margins: score -> how much worse it may be, in the score's unit; scores without one are not gated.

    Returns:
        `passed`, `checks` (one per gated item: score, split, other, margin, harm with its one-sided bounds, outcome
        and a sentence) and a `verdict`.

    Raises:
        MetricError: if nothing is gated.
    """
    gated = [(item, bounds) for item, bounds in compared if item["score"] in margins]
    if not gated:
        raise MetricError("no score is gated; give a margin for one of the compared scores")
    confidence = 1 - 2 * ALPHA / len(gated)
    checks = []
    for item, bounds in gated:
        sign = -1 if item["higher_is_better"] else 1
        low, high = sorted(sign * bound for bound in bounds(confidence))
        margin, harm = margins[item["score"]], sign * item["difference"]
        # 0.32 - 0.30 is 0.020000000000000018, and no worse than a margin of 0.02.
        low_beyond, high_beyond = (float(difference_beyond_rounding(margin, bound)) for bound in (low, high))
        if math.isnan(low):
            outcome = "cannot tell"
        elif low_beyond > 0:
            outcome = "worse"
        else:
            outcome = "within" if high_beyond <= 0 else "cannot tell"
        check = {
            "score": item["score"],
            "split": item["split"],
            "other": item["other"],
            "margin": margin,
            "harm": harm,
            "harm_low": low,
            "harm_high": high,
            "outcome": outcome,
        }
        checks.append(check | {"sentence": check_sentence(check)})
    failed = [check for check in checks if check["outcome"] == "worse"]
    unknown = [check for check in checks if check["outcome"] == "cannot tell"]
    about = {"share": f"{100 * (1 - ALPHA):g} %", "failed": len(failed), "unknown": len(unknown)}
    if failed:
        verdict = plural_words(
            "Stopped: {failed} of {num} checks are beyond their margin ({share} sure over {num} check).",
            "Stopped: {failed} of {num} checks are beyond their margin ({share} sure over {num} checks).",
            len(checks),
            **about,
        )
    elif unknown:
        verdict = plural_words(
            "Passed, though {unknown} of {num} checks cannot be told from the margin ({share} sure over {num} check).",
            "Passed, though {unknown} of {num} checks cannot be told from the margin ({share} sure over {num}"
            " checks).",
            len(checks),
            **about,
        )
    else:
        verdict = plural_words(
            "Passed: every check is within its margin ({share} sure over {num} check).",
            "Passed: every check is within its margin ({share} sure over {num} checks).",
            len(checks),
            **about,
        )
    return {"passed": not failed, "verdict": verdict, "checks": checks, "confidence": 1 - ALPHA}


def check_sentence(check: Mapping[str, Any]) -> str:
    """Return what a check found.

    Args:
        check: `other`, `score`, `split`, `margin`, `harm_low`, `harm_high` and `outcome`, as `gate` gives them; bounds
            that are undefined may be NaN or None.

    >>> check = {"other": "b", "score": "heldout_loss", "split": "test", "margin": 0.1, "outcome": "worse"}
    >>> check_sentence(check | {"harm_low": 0.25, "harm_high": 0.5})
    'b, heldout_loss on test: worse by 0.25 or more, beyond the margin of 0.1.'
    """
    low, high, margin = check["harm_low"], check["harm_high"], f"{check['margin']:.4g}"
    if low is None or math.isnan(low):
        found = words("one client has no interval")
    elif check["outcome"] == "worse":
        found = words("worse by {low} or more, beyond the margin of {value}", low=f"{low:.4g}", value=margin)
    elif check["outcome"] == "within":
        most = f"{max(0.0, high):.4g}"
        found = words("worse by {high} at most, within the margin of {value}", high=most, value=margin)
    else:
        found = words(
            "worse by between {low} and {high}; the margin of {value} lies in between",
            low=f"{low:.4g}",
            high=f"{high:.4g}",
            value=margin,
        )
    return words(
        "{other}, {score} on {split}: {found}.",
        other=check["other"],
        score=check["score"],
        split=check["split"],
        found=found,
    )
