"""Who gains by a candidate over what was before, in one score: mean, interval, shares, the worst-served tenth.

Symbols: K clients, S seeds, N rows. Everything is paired client by client by the machinery of `compare`
(`comparing/paired_scores.py`, `scoring/comparisons.py`). A gain is positive where the candidate is better, whichever
direction of the score is better.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import MetricError
from fedllm_eval.comparing.compared_methods import Method
from fedllm_eval.comparing.paired_scores import paired_table, rows_std_error
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.comparisons import MethodDifference, method_difference
from fedllm_eval.scoring.intervals import Interval
from fedllm_eval.scoring.proportion import wilson_interval
from fedllm_eval.scoring.rounding import difference_beyond_rounding
from fedllm_eval.scoring.tail_interval import worst_decile_interval

__all__ = ["DECIDING_SCORES", "Effect", "deciding_score", "measure_effect"]

Array = npt.NDArray[np.float64]
DECIDING_SCORES = ("heldout_loss", "ranking_accuracy", "ranking_accuracy_per_token", "chosen_loss")
"""The scores whose gain can be said in plain words; the first that all have decides. Implicit rewards are left out:
the start's own are all 0, so a gain over it says nothing."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What clients of one split gain in one score."""

    score: str
    split: str
    before: float
    """Mean over clients."""
    after: float
    gain: float
    """Mean over clients, positive where the candidate is better, in the unit of the score."""
    low: float
    """95 % interval of the gain; NaN for one client."""
    high: float
    p_value: float
    """Of the gain, not corrected; NaN for one client."""
    num_better: int
    num_same: int
    """Clients whose difference is none beyond rounding."""
    num_worse: int
    worse_low: float
    """Wilson's 95 % interval of the share of clients that lose."""
    worse_high: float
    tail_before: Interval
    """Mean score of the worst-served tenth before; NaN bounds below fifty clients."""
    tail_after: Interval
    num_seeds: tuple[int, int]
    """Of what was before, and of the candidate."""
    covers_seeds: bool
    """Whether the interval holds for other seeds of training, too."""
    difference: MethodDifference
    """Where it all comes from; its sign is the score's own."""
    clients: tuple[str, ...]
    """In sorted order."""
    before_K: tuple[float, ...]
    after_K: tuple[float, ...]
    """Scores of the clients, seeds averaged."""
    gain_K: tuple[float, ...]
    """Exactly 0 where a difference is rounding."""

    @property
    def num_clients(self) -> int:
        """Clients scored on both sides."""
        return len(self.clients)

    @property
    def better_fraction(self) -> float:
        """Share of clients that gain."""
        return self.num_better / self.num_clients

    @property
    def worse_fraction(self) -> float:
        """Share of clients that lose."""
        return self.num_worse / self.num_clients

    @property
    def higher_is_better(self) -> bool:
        """Direction of the score."""
        return SCORES[self.score].higher_is_better

    @property
    def client_std(self) -> float:
        """Standard deviation of a client's gain, as the interval has it (rows resampled where there are some)."""
        return self.difference.sources[0].std_error * math.sqrt(self.num_clients)

    def as_record(self) -> dict[str, Any]:
        """Return the figures without a line for any client, JSON-ready but for NaN."""
        names = ("score", "split", "before", "after", "gain", "low", "high", "p_value")
        counts = ("num_clients", "num_better", "num_same", "num_worse", "worse_low", "worse_high", "covers_seeds")
        return {
            **{name: getattr(self, name) for name in (*names, *counts)},
            "unit": SCORES[self.score].unit,
            "higher_is_better": self.higher_is_better,
            "better_fraction": self.better_fraction,
            "worse_fraction": self.worse_fraction,
            "num_seeds": list(self.num_seeds),
            **{
                f"worst_tenth_{when}": {"mean": tail.mean, "ci_low": tail.low, "ci_high": tail.high}
                for when, tail in (("before", self.tail_before), ("after", self.tail_after))
            },
        }


def deciding_score(methods: Sequence[Method], asked: str | None = None) -> str:
    """Return the score that a decision is made by: the one asked for, or the first that all methods have.

    Raises:
        MetricError: if a method lacks it, or they have none in common.

    >>> deciding_score([])
    'heldout_loss'
    """
    columns = [set(run.results.per_client.column_names) for method in methods for run in method.runs]
    if asked is not None and asked not in DECIDING_SCORES:
        hint = did_you_mean(asked, DECIDING_SCORES)
        raise MetricError(f"--score {asked!r} cannot be decided by; {hint}choose from {', '.join(DECIDING_SCORES)}")
    candidates = DECIDING_SCORES if asked is None else (asked,)
    for name in candidates:
        if all(name in found for found in columns):
            return name
    lacking = [run.label for method in methods for run in method.runs]
    raise MetricError(
        f"{', '.join(lacking)} do not all have {' or '.join(candidates)}; score them in the same way, on the same data"
    )


def measure_effect(before: Method, after: Method, split: str, score: str, *, seed: int = 0) -> Effect | None:
    """Return what the clients of a split gain, None where the two share no scored client there.

    Args:
        before: what was before, or any other method to gain over.
        after: the candidate.
        split: split of the client repo.
        score: a column of the per-client table.
        seed: seeds the sign flips and the bootstraps.

    Raises:
        ConfigError: if a rows file cannot be read.
        MetricError: if a side has no such score.
    """
    for run in (*before.runs, *after.runs):
        if score not in run.results.per_client.column_names:
            raise MetricError(f"{run.label} has no score {score}; score it as the others were")
    clients, a_SK, b_TK, _ = paired_table(before, after, split, score)
    if not clients:
        return None
    about = SCORES[score]
    found = method_difference(
        a_SK,
        b_TK,
        paired_seeds=None not in before.seeds and before.seeds == after.seeds and len(before.seeds) > 1,
        a_fixed=before.is_fixed,
        b_fixed=after.is_fixed,
        std_error=rows_std_error(before, after, split, score, clients, seed),
        rounding=about.rounding,
        seed=seed,
    )
    sign = 1 if about.higher_is_better else -1
    low, high = sorted((sign * found.low, sign * found.high))
    a_K, b_K = a_SK.mean(axis=0), b_TK.mean(axis=0)
    gain_K = sign * difference_beyond_rounding(a_K, b_K, about.rounding)
    num_worse = int((gain_K < 0).sum())
    worse = wilson_interval(num_worse, len(clients))
    tails = [worst_decile_interval(x_K, higher_is_better=about.higher_is_better, seed=seed) for x_K in (a_K, b_K)]
    return Effect(
        score=score,
        split=split,
        before=float(a_K.mean()),
        after=float(b_K.mean()),
        gain=sign * found.difference,
        low=low,
        high=high,
        p_value=found.p_value,
        num_better=int((gain_K > 0).sum()),
        num_same=int((gain_K == 0).sum()),
        num_worse=num_worse,
        worse_low=worse.low,
        worse_high=worse.high,
        tail_before=tails[0],
        tail_after=tails[1],
        num_seeds=found.num_seeds,
        covers_seeds=found.covers_seeds,
        difference=found,
        clients=tuple(clients),
        before_K=tuple(a_K.tolist()),
        after_K=tuple(b_K.tolist()),
        gain_K=tuple((gain_K + 0.0).tolist()),
    )
