"""Scores, lengths of time and money as somebody reads them who knows no unit of a score."""

import math

from fedllm_data.wording.catalogue import words
from fedllm_data.wording.forms import percent
from fedllm_eval.deciding.stated_lines import StatedPrices
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.rounding import difference_beyond_rounding

__all__ = ["amount", "money_text", "of_ten", "own_gain", "time_text", "times_text"]

SMALL = 0.095
"""A loss that changed by less than this factor is told in percent: 1.0 times as well says nothing."""


def amount(value: float) -> str:
    """Return an amount with two digits that count.

    >>> amount(2.4321), amount(0.0123), amount(1234.5), amount(0.0)
    ('2.4', '0.012', '1,234', '0')
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    digits = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def of_ten(fraction: float) -> str:
    """Return how often of ten times.

    >>> of_ten(0.65), of_ten(0.0), of_ten(0.9)
    ('6.5', '0', '9')
    """
    return f"{10 * fraction:.1f}".removesuffix(".0")


def own_gain(score: str, before: float, after: float) -> str:
    """Return a change of one score in plain words: of a group's mean, or of one partner.

    >>> own_gain("heldout_loss", 2.0, 2.0 - math.log(2.4))
    'each word of an answer is predicted 2.4 times as well as before'
    >>> own_gain("heldout_loss", 2.0, 1.98)
    'each word of an answer is predicted 2.0 % better than before'
    >>> own_gain("ranking_accuracy", 0.6, 0.9)
    'the better of two answers is preferred 9 of 10 times, before 6 of 10'
    >>> own_gain("ranking_accuracy", 0.0, 0.0)
    'the better of two answers is preferred 0 of 10 times, as before'
    """
    difference = float(difference_beyond_rounding(before, after, SCORES[score].rounding))
    if score in ("heldout_loss", "chosen_loss"):
        share = math.expm1(-difference) if difference > -20.0 else math.inf
        if difference == 0:
            return words("each word of an answer is predicted as well as before")
        if difference > 0:
            digits = 0 if share < -SMALL else 1
            return words(
                "each word of an answer is predicted worse: only {share} as well as before",
                share=percent(1 + share, digits),
            )
        if share < SMALL:
            return words("each word of an answer is predicted {share} better than before", share=percent(share, 1))
        return words(
            "each word of an answer is predicted {times} times as well as before", times=times_text(-difference)
        )
    if difference == 0:
        return words("the better of two answers is preferred {after} of 10 times, as before", after=of_ten(after))
    return words(
        "the better of two answers is preferred {after} of 10 times, before {before} of 10",
        after=of_ten(after),
        before=of_ten(before),
    )


def times_text(gain: float) -> str:
    """Return how many times as well a gain in nats per token predicts.

    >>> times_text(math.log(2.4)), times_text(math.log(1.16)), times_text(math.log(300.0))
    ('2.4', '1.16', '300')
    """
    # Beyond e^20 a number says no more than that it is large.
    times = math.exp(min(gain, 20.0))
    return f"{times:,.{2 if times < 2 else 1 if times < 100 else 0}f}"


def time_text(hours: float) -> str:
    """Return a length of time in the unit that suits it.

    >>> time_text(2.0), time_text(0.5), time_text(0.001)
    ('2.0 hours', '30 minutes', '3.6 seconds')
    """
    if hours >= 1:
        return words("{num} hours", num=amount(hours))
    if hours * 60 >= 1:
        return words("{num} minutes", num=amount(60 * hours))
    return words("{num} seconds", num=amount(3600 * hours))


def money_text(value: float, prices: StatedPrices) -> str:
    """Return money in the currency that was stated.

    >>> money_text(2.5, StatedPrices(currency="EUR"))
    '2.5 EUR'
    """
    return f"{amount(value)} {prices.currency}".strip()
