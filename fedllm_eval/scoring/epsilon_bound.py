"""What a membership attack on one run proves about epsilon: a lower bound with its confidence.

Steinke, Nasr & Jagielski 2023, "Privacy Auditing with One (1) Training Run" (arXiv 2305.08846), theorem 5.2. Of m
units (examples, or clients) each was trained on with chance one half. An auditor guesses for r of them whether they
were, and abstains on the rest. If training is (epsilon, delta)-differentially private, the number V of right guesses
satisfies

    P[V >= v] <= P[W >= v] + 2 m delta max_i P[v > W >= v - i] / i,    W ~ Binomial(r, e^epsilon / (1 + e^epsilon)),

so every epsilon for which this is below the allowed error is excluded. With delta = 0 that is Clopper-Pearson's lower
bound of the share of right guesses, as a logit.

The auditor here guesses by rank: members at the top, non-members at the bottom, or one of the two alone. How many to
guess is tried on a grid (`_guesses`) that is fixed before the scores are seen, and the allowed error is shared out
over the grid (Bonferroni); no unit is spent on choosing. What m units could have shown at most, had every guess been
right, is `largest_epsilon`: a bound near it says that there were too few units, not that little was given away.

The units here were not dealt by a coin but by a split of M members and N non-members; it is read as a coin of chance
M / (M + N) for each, and units of the larger side are left out at random until the chance is one half. Rows of one
client are alike and units influence one another; the notes of an audit say so.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from fedllm_data.errors import MetricError

__all__ = ["MIN_UNITS", "EpsilonBound", "Unit", "audit_epsilon", "excluded_epsilon", "one_run_p_value"]

Members = npt.NDArray[np.bool_]
Unit = Literal["example", "client"]
MIN_UNITS = 4
"""Of each side."""
MIN_GUESSES = 8
"""Seven right guesses of seven have a chance of 0.008 by coin toss, which no share of the allowed error reaches."""
GRID_RATIO = math.sqrt(2)


@dataclass(frozen=True, kw_only=True)
class EpsilonBound:
    """A lower bound on epsilon; 0 where the attack proves nothing, never below."""

    epsilon: float
    largest_epsilon: float
    """What a perfect attack on this many units would have shown."""
    confidence: float
    delta: float
    unit: Unit
    """What is protected: one example, or all examples of one client."""
    direction: Literal["both", "members", "non-members", "neither"]
    """Which side the best guesses single out."""
    num_members: int
    num_nonmembers: int
    """Units dealt: the larger side is thinned to the odds of a coin."""
    num_guesses: int
    num_correct: int
    """Of the guesses that prove the bound; 0 of 0 where none does."""


def one_run_p_value(num_units: int, num_guesses: int, num_correct: int, epsilon: float, delta: float = 0.0) -> float:
    """Return an upper bound on the chance of this many right guesses if training is (epsilon, delta)-private.

    Args:
        num_units: m, dealt by a coin each.
        num_guesses: r of them that were guessed.
        num_correct: v of these that were right.
        epsilon: at least 0.
        delta: in [0, 1).

    Raises:
        MetricError: if the counts do not nest, or epsilon or delta are out of range.

    >>> one_run_p_value(10, 3, 3, 0.0)  # three coins
    0.125
    """
    _check_counts(num_units, num_guesses, num_correct)
    if not 0 <= delta < 1 or not (math.isfinite(epsilon) and epsilon >= 0):
        raise MetricError(f"epsilon {epsilon} and delta {delta}: epsilon is 0 or more, and delta in [0, 1)")
    chance = 1 / (1 + math.exp(-epsilon))
    p_value = float(stats.binom.sf(num_correct - 1, num_guesses, chance))
    if delta > 0 and num_correct > 0:
        # P[v > W >= v - i] for i = 1 ... v; a larger i adds nothing and divides by more.
        below = np.cumsum(stats.binom.pmf(np.arange(num_correct - 1, -1, -1), num_guesses, chance))
        p_value += 2 * num_units * delta * float((below / np.arange(1, num_correct + 1)).max())
    return min(1.0, p_value)


def excluded_epsilon(num_units: int, num_guesses: int, num_correct: int, *, delta: float = 0.0, error: float) -> float:
    """Return the epsilon up to which these guesses exclude privacy, 0 where they exclude nothing.

    Args:
        num_units: as in `one_run_p_value`.
        num_guesses: as there.
        num_correct: as there.
        delta: delta of the guarantee in question.
        error: the allowed chance that the true epsilon is below the bound, in (0, 1).

    Raises:
        MetricError: as `one_run_p_value`, or if the error is out of range.

    >>> round(excluded_epsilon(100, 100, 100, error=0.05), 3)  # q^100 = .05, so q = .97049, and ln(q / (1 - q))
    3.493
    """
    if not 0 < error < 1:
        raise MetricError(f"an allowed error of {error} is none; give a number between 0 and 1, such as 0.05")

    def beyond(epsilon: float) -> float:
        return one_run_p_value(num_units, num_guesses, num_correct, epsilon, delta) - error

    _check_counts(num_units, num_guesses, num_correct)
    if num_correct == 0:
        return 0.0
    chance = float(stats.beta.ppf(error, num_correct, num_guesses - num_correct + 1))
    pure = max(0.0, float(np.log(chance / (1 - chance))))
    if delta == 0 or pure == 0:
        return pure
    # Delta makes every count likelier, so the bound lies below that of delta = 0, or on it where delta is lost in
    # rounding.
    if beyond(pure) <= 0:
        return pure
    return 0.0 if beyond(0.0) >= 0 else float(optimize.brentq(beyond, 0.0, pure, xtol=1e-9))


def audit_epsilon(
    members_M: npt.ArrayLike,
    nonmembers_N: npt.ArrayLike,
    *,
    delta: float = 0.0,
    confidence: float = 0.95,
    unit: Unit = "example",
    seed: int = 0,
) -> EpsilonBound:
    """Return the largest epsilon that guessing by these scores excludes.

    Args:
        members_M: (M,) finite membership scores, one per unit; higher means more member-like.
        nonmembers_N: (N,) scores of units that were not trained on.
        delta: delta of the guarantee in question.
        confidence: that epsilon is at least the bound.
        unit: what one score stands for. For clients give one score a client, such as the mean over its rows.
        seed: seeds what is left out of the larger side, and the order of ties.

    Raises:
        MetricError: if a side has fewer than `MIN_UNITS` units, a score is not finite, or delta or the confidence are
            out of range.

    >>> bound = audit_epsilon(np.arange(100.0) + 1000, np.arange(100.0))  # every member above every non-member
    >>> bound.epsilon == bound.largest_epsilon, bound.num_correct
    (True, 200)
    >>> audit_epsilon(np.arange(100.0), np.arange(100.0)).epsilon  # the same scores on both sides prove nothing
    0.0
    """
    if not 0 < confidence < 1:
        raise MetricError(f"confidence is {confidence}; it is a number between 0 and 1, such as 0.95")
    if not 0 <= delta < 1:
        raise MetricError(f"delta is {delta}; it is in [0, 1), and far below 1 / number of units")
    is_member = _dealt(members_M, nonmembers_N, unit, np.random.default_rng(seed))
    num_units = is_member.size
    # Right guesses among the k highest and among the k lowest.
    right_at_top = np.r_[0, np.cumsum(is_member[::-1])]
    right_at_bottom = np.r_[0, np.cumsum(~is_member)]
    grid = _guesses(num_units)
    error = (1 - confidence) / max(1, len(grid))
    counts = [(top + bottom, int(right_at_top[top] + right_at_bottom[bottom])) for top, bottom in grid]
    bounds = [excluded_epsilon(num_units, *count, delta=delta, error=error) for count in counts]
    best = int(np.argmax(bounds)) if grid else 0
    epsilon = bounds[best] if grid else 0.0
    direction: Literal["both", "members", "non-members", "neither"] = "neither"
    if epsilon > 0:
        top, bottom = grid[best]
        direction = "both" if top and bottom else "members" if top else "non-members"
    return EpsilonBound(
        epsilon=epsilon,
        largest_epsilon=max(
            (excluded_epsilon(num_units, guessed, guessed, delta=delta, error=error) for guessed, _ in counts),
            default=0.0,
        ),
        confidence=confidence,
        delta=delta,
        unit=unit,
        direction=direction,
        num_members=int(is_member.sum()),
        num_nonmembers=int((~is_member).sum()),
        num_guesses=counts[best][0] if epsilon > 0 else 0,
        num_correct=counts[best][1] if epsilon > 0 else 0,
    )


def _check_counts(num_units: int, num_guesses: int, num_correct: int) -> None:
    if not 0 <= num_correct <= num_guesses <= num_units or num_units < 1:
        raise MetricError(f"{num_correct} right of {num_guesses} guesses on {num_units} units: each counts the former")


def _guesses(num_units: int) -> list[tuple[int, int]]:
    """How many to call members (from the top) and how many to call non-members (from the bottom), each try once."""
    sizes = []
    size = float(num_units)
    while round(size) >= MIN_GUESSES:
        sizes.append(round(size))
        size /= GRID_RATIO
    both = [(size - size // 2, size // 2) for size in sizes]
    halves = [size for size in sizes if 2 * size <= num_units]
    return list(dict.fromkeys([*both, *((size, 0) for size in halves), *((0, size) for size in halves)]))


def _dealt(members_M: npt.ArrayLike, nonmembers_N: npt.ArrayLike, unit: Unit, rng: np.random.Generator) -> Members:
    """Whether each unit is a member, from the lowest score to the highest, both sides with even odds."""
    sides = []
    for values, what in ((members_M, "members"), (nonmembers_N, "non-members")):
        scores = np.asarray(values, dtype=np.float64)
        if scores.ndim != 1 or scores.size < MIN_UNITS or not np.isfinite(scores).all():
            raise MetricError(
                f"{what}: a bound needs {MIN_UNITS} or more finite scores, one per {unit}, got {scores.size}; audit "
                "more"
            )
        sides.append(np.sort(scores))
    smaller = min(scores.size for scores in sides)
    # A unit of the larger side stays with the odds of the smaller: what remains was dealt by a fair coin.
    kept = [scores[rng.random(scores.size) * scores.size < smaller] for scores in sides]
    score = np.concatenate(kept)
    is_member = np.repeat([True, False], [kept[0].size, kept[1].size])
    # Ties fall at random, or members would stand together among equal scores.
    order = np.lexsort((rng.permutation(score.size), score))
    return is_member[order]
