"""The one-run audit: m canaries, each in or out of one training run by its own fair coin, and a bound on epsilon.

Steinke, Nasr & Jagielski 2023, "Privacy Auditing with One (1) Training Run" (arXiv 2305.08846): Algorithm 1 deals m
canaries by coins, trains once, and guesses r of the coins from the m scores; theorem 5.2 says how many right guesses
an (epsilon, delta)-private training allows (`fedllm_eval/scoring/epsilon_bound.py` has its p-value). What the theorem
asks for holds here by construction: the coins are fair, independent, secret, and thrown before anything was trained
(`fedllm_eval/audit/coins.py`). `audit_epsilon` beside it reads a split of rows as if it had been dealt by coins; here
it was.

The guesses are made by rank: "in" for the k highest scores, "out" for the k lowest, or the highest alone. How many is
tried on a grid that is fixed before the scores are seen, and the allowed error is shared out over it (Bonferroni). A
grid of one pair, which is chosen beforehand, keeps the whole error.

Symbols: m canaries, r guesses, v of them right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.epsilon_bound import Unit, excluded_epsilon

__all__ = ["OneRunBound", "guess_grid", "one_run_bound"]

FEWEST_GUESSES = 8
"""Fewer prove nothing: seven right of seven have a chance of 0.008, beyond any share of 0.05 over a grid."""


@dataclass(frozen=True, kw_only=True)
class OneRunBound:
    """What one run with canaries proves: epsilon is at least this, at a confidence; 0 where it proves nothing."""

    epsilon: float
    largest_epsilon: float
    """What the same grid had shown if every guess had been right: the most that so many canaries can show."""
    confidence: float
    delta: float
    unit: Unit
    """What one canary is: an example, or a client with all its rows."""
    num_canaries: int
    num_in: int
    """Of those, by their coins."""
    num_guessed_in: int
    """Guesses that prove the bound; 0 where none does."""
    num_guessed_out: int
    num_correct: int
    num_tried: int
    """Pairs of the grid, over which the allowed error is shared out."""


def guess_grid(num_canaries: int) -> list[tuple[int, int]]:
    """Return how many to call "in" and how many to call "out", each pair tried once: all, a half, a quarter, ...

    Args:
        num_canaries: m.

    >>> guess_grid(32)
    [(16, 16), (16, 0), (8, 8), (8, 0), (4, 4)]
    >>> guess_grid(7)
    []
    """
    grid = []
    size = num_canaries
    while size >= FEWEST_GUESSES:
        grid.append((size - size // 2, size // 2))
        if size // 2 >= FEWEST_GUESSES:
            grid.append((size // 2, 0))
        size //= 2
    return grid


def one_run_bound(
    scores_m: npt.ArrayLike,
    is_in_m: npt.ArrayLike,
    *,
    delta: float = 0.0,
    confidence: float = 0.95,
    unit: Unit = "example",
    guesses: Sequence[tuple[int, int]] | None = None,
    seed: int = 0,
) -> OneRunBound:
    """Return the epsilon that guessing the coins excludes.

    Args:
        scores_m: (m,) finite scores, one a canary; higher where it looks as if it had been trained on.
        is_in_m: (m,) what each canary's coin said.
        delta: delta of the guarantee in question, in [0, 1).
        confidence: that epsilon is at least the bound, in (0, 1).
        unit: what one canary is.
        guesses: pairs of (highest called "in", lowest called "out") that are tried; they must not be chosen by looking
            at the scores. By default `guess_grid`.
        seed: seeds the order of ties.

    Raises:
        MetricError: if scores and coins do not fit, or a number is out of range.

    >>> coins = np.arange(200) % 2 == 0
    >>> bound = one_run_bound(coins * 1.0, coins, guesses=[(50, 50)])  # all of 100 right: q^100 = .05, logit(q)
    >>> bound.num_correct, round(bound.epsilon, 3)
    (100, 3.493)
    >>> one_run_bound(np.zeros(200), coins).epsilon  # nothing to tell them apart by
    0.0
    """
    scores, is_in = np.asarray(scores_m, dtype=np.float64), np.asarray(is_in_m, dtype=bool)
    num = scores.size
    if scores.ndim != 1 or is_in.shape != scores.shape or num == 0:
        raise MetricError(f"scores {scores.shape} and coins {is_in.shape} of canaries; give one of each a canary")
    if not np.isfinite(scores).all():
        raise MetricError(f"{int((~np.isfinite(scores)).sum())} of {num} scores of canaries are not finite")
    if not 0 < confidence < 1:
        raise MetricError(f"confidence is {confidence}; it is a number between 0 and 1, such as 0.95")
    if not 0 <= delta < 1:
        raise MetricError(f"delta is {delta}; it is in [0, 1), and far below 1 / number of canaries")
    grid = list(guess_grid(num) if guesses is None else guesses)
    for top, bottom in grid:
        if min(top, bottom) < 0 or not 1 <= top + bottom <= num:
            raise MetricError(f"{top} guesses of in and {bottom} of out for {num} canaries; guess each once at most")
    # Ties fall at random, or the order in which canaries were listed would tell their coins.
    order = np.lexsort((np.random.default_rng(seed).permutation(num), scores))
    dealt = is_in[order]
    right_out, right_in = np.r_[0, np.cumsum(~dealt)], np.r_[0, np.cumsum(dealt[::-1])]
    error = (1 - confidence) / max(1, len(grid))
    best, epsilon, most, correct = (0, 0), 0.0, 0.0, 0
    for top, bottom in grid:
        num_right = int(right_in[top] + right_out[bottom])
        shown = excluded_epsilon(num, top + bottom, num_right, delta=delta, error=error)
        most = max(most, excluded_epsilon(num, top + bottom, top + bottom, delta=delta, error=error))
        if shown > epsilon:
            best, epsilon, correct = (top, bottom), shown, num_right
    return OneRunBound(
        epsilon=epsilon,
        largest_epsilon=most,
        confidence=confidence,
        delta=delta,
        unit=unit,
        num_canaries=num,
        num_in=int(is_in.sum()),
        num_guessed_in=best[0],
        num_guessed_out=best[1],
        num_correct=correct,
        num_tried=len(grid),
    )
