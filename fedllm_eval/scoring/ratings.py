"""Reading a judge's words: ratings, pairwise verdicts, and their means with every failure counted.

A rating stands in the judgment as `[[7]]`, or failing that as `[7]`; the first one counts, as in MT-Bench's own reader
(Zheng et al. 2023; FastChat). FastChat takes any number in single brackets, and so a citation; here one counts where
it says that it is a rating: after a word such as "rating", after a colon at the end of a line, or alone on the last
line. `[[7]](...)` and `[7](...)` are links, and `scores[2]` is code. What a judge thinks aloud (`<think>`) is not
read. A judgment without a rating, or with one outside the scale, is a failure: it has a reason, no number, and is
never dropped without being counted. Judges fail more on some answers than on others, so a mean over the readable rest
is biased by an amount that the failures bound (`lowest`, `highest`).
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.intervals import mean_interval

__all__ = ["MeanRating", "Rating", "mean_rating", "parse_rating", "parse_verdict"]

RATING_WORD = r"\b(?:rat(?:e|es|ed|ing)|scor(?:e|es|ed|ing)|grad(?:e|es|ed|ing)|mark|verdict)"
FILLING = (
    r"(?:[\s:：=*_\"'`(~–—-]|\b(?:is|was|of|at|as|be|a|an|the|to|would|will|give|it|this|that|answer|response)\b)+"
)
"""What stands between such a word and the bracket; where nothing does, it is an index in code."""
CITING = r"(?!.*\b(?:sources?|references?|citations?|see|cf)\b)"
VERDICT = re.compile(r"\[\[([ABC])\]\]")
PREFERENCE = {"A": 1.0, "B": 0.0, "C": 0.5}
LOWEST, HIGHEST = 1.0, 10.0


@dataclass(frozen=True)
class Rating:
    """What a judgment says: a number, or why there is none."""

    value: float
    """NaN where there is none."""
    failure: str | None = None
    """Such as `no rating` or `rating 11 is outside 1 to 10`."""
    ambiguous: bool = False
    """Whether other ratings follow that differ from the one that counts."""


@dataclass(frozen=True)
class MeanRating:
    """Mean of the readable ratings, and what the others could have made of it."""

    mean: float
    """NaN where nothing could be read."""
    low: float
    high: float
    """95 % interval over the groups with a readable judgment; NaN for fewer than two."""
    num_items: int
    """Readable judgments."""
    num_failed: int
    lowest: float
    highest: float
    """The mean if every failure had been the worst or the best rating of the scale."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Reason -> how often."""


def parse_rating(judgment: str, lowest: float = LOWEST, highest: float = HIGHEST) -> Rating:
    """Read the rating in a judge's words.

    Args:
        judgment: what the judge wrote.
        lowest: end of the scale.
        highest: other end of the scale.

    Raises:
        MetricError: if the scale is none.

    >>> parse_rating("Clear and correct. Rating: [[8.5]]").value
    8.5
    >>> parse_rating("Rating: [8]").value
    8.0
    >>> parse_rating("Rating: [[11]]").failure
    'rating 11 is outside 1 to 10'
    >>> parse_rating("Rating: 8").failure, parse_rating("As [1] says, the answer is wrong.").failure
    ('no rating', 'no rating')
    """
    _check_scale(lowest, highest)
    judgment = _said(judgment)
    for pattern in _patterns(signed=lowest < 0):
        found = pattern.findall(judgment)
        if found:
            value = float(found[0])
            if not lowest <= value <= highest:
                return Rating(math.nan, f"rating {value:g} is outside {lowest:g} to {highest:g}")
            return Rating(value, ambiguous=len({float(text) for text in found}) > 1)
    return Rating(math.nan, "no rating" if judgment.strip() else "empty judgment")


def parse_verdict(judgment: str) -> float | None:
    """Read a pairwise verdict: 1.0 for `[[A]]`, 0.0 for `[[B]]`, 0.5 for `[[C]]` (a tie), else None.

    The last verdict counts: judges restate the choices first and decide at the end.

    >>> parse_verdict("A is [[A]] or [[B]]? It is [[B]]"), parse_verdict("[[C]]"), parse_verdict("both are fine")
    (0.0, 0.5, None)
    """
    found = VERDICT.findall(_said(judgment))
    return PREFERENCE[found[-1]] if found else None


@cache
def _patterns(*, signed: bool) -> tuple[re.Pattern[str], ...]:
    """Where a rating may stand, the surest place first: double brackets, then single ones that say what they are."""
    number = rf"({'-?' if signed else ''}\d+\.?\d*)"
    return (
        re.compile(rf"\[\[{number}\]\](?!\()"),
        re.compile(rf"{RATING_WORD}{FILLING}\[{number}\](?!\()", re.IGNORECASE),
        re.compile(rf"^{CITING}.*[:：][\s*_]*\[{number}\][\s*_.!]*$", re.IGNORECASE | re.MULTILINE),
        re.compile(rf"(?:^|\n)[\s*_#>-]*\[{number}\][\s*_.!]*\Z"),
    )


def _check_scale(lowest: float, highest: float) -> None:
    if not (math.isfinite(lowest) and math.isfinite(highest) and lowest < highest):
        raise MetricError(f"a scale from {lowest} to {highest} is none; give two finite ends, the lower one first")


def _said(judgment: str) -> str:
    """What a judge says after thinking aloud: ratings that are tried out in thought do not count."""
    if "</think>" in judgment:
        return judgment.rpartition("</think>")[2]
    return "" if judgment.lstrip().startswith("<think>") else judgment


def mean_rating(
    ratings: Sequence[Rating],
    groups: Sequence[Hashable] | None = None,
    *,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
) -> MeanRating:
    """Return the mean rating with its interval, and count what could not be read.

    Args:
        ratings: N of them, failures included.
        groups: N names of what the interval counts as one, such as the question of a turn: two turns of one question
            are alike. None counts every judgment.
        lowest: end of the scale.
        highest: other end of the scale.

    Raises:
        MetricError: if there are no judgments at all, not one group for each, or the scale is none.

    >>> result = mean_rating([parse_rating(text) for text in ("[[8]]", "[[6]]", "no idea")])
    >>> result.mean, result.num_failed, dict(result.failures)
    (7.0, 1, {'no rating': 1})
    >>> result.lowest, result.highest  # (8 + 6 + 1) / 3 and (8 + 6 + 10) / 3
    (5.0, 8.0)
    """
    _check_scale(lowest, highest)
    if not ratings:
        raise MetricError("no judgments to take a mean of; give at least one")
    if groups is None:
        groups = range(len(ratings))
    if len(groups) != len(ratings):
        raise MetricError(f"{len(ratings)} ratings in {len(groups)} groups; name the group of every rating")
    x_N = np.array([rating.value for rating in ratings if rating.failure is None])
    failures = Counter(rating.failure for rating in ratings if rating.failure is not None)
    num_failed = len(ratings) - x_N.size
    mean, low, high = math.nan, math.nan, math.nan
    if x_N.size:
        sums: dict[Hashable, list[float]] = {}
        for rating, group in zip(ratings, groups, strict=True):
            if rating.failure is None:
                sums.setdefault(group, []).append(rating.value)
        interval = mean_interval(
            [sum(values) / len(values) for values in sums.values()],
            [len(values) for values in sums.values()],
            bounds=(lowest, highest),
        )
        mean, low, high = interval.mean, interval.low, interval.high
    total = float(x_N.sum())
    return MeanRating(
        mean=mean,
        low=low,
        high=high,
        num_items=int(x_N.size),
        num_failed=num_failed,
        lowest=(total + num_failed * lowest) / len(ratings),
        highest=(total + num_failed * highest) / len(ratings),
        failures=dict(failures.most_common()),
    )
