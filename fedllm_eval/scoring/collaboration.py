"""What taking part is worth to each client: against the base, against training alone, against pooling all rows.

Symbols: K clients; every argument is one score a client, of the same clients in the same order. A gain is positive
where the federated policy is the better one, whichever direction is better. The gain over training alone is the
headline of FedLLM-Bench (Ye et al. 2024); the share of clients with a positive gain is what makes taking part
rational for them. Intervals take clients as the unit: Student's for means, Wilson for shares.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.intervals import PairedDifference, paired_difference
from fedllm_eval.scoring.proportion import Proportion, wilson_interval
from fedllm_eval.scoring.rounding import difference_beyond_rounding
from fedllm_eval.scoring.spread import worst_decile

__all__ = ["Gain", "collaboration_gain", "recovered_fraction"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """How much better one policy serves the clients than another."""

    gain: PairedDifference
    """Mean over clients with interval and p-value, positive where the policy is better."""
    better_off: Proportion
    """Share of clients that gain."""
    worse_off: Proportion
    """Share of clients that lose; the rest see no difference, or one that is rounding."""
    worst_decile_gain: float
    """Mean gain of the tenth of clients that gain least."""
    gain_K: Array
    """Each client's own gain."""


def collaboration_gain(
    policy_K: npt.ArrayLike,
    baseline_K: npt.ArrayLike,
    *,
    higher_is_better: bool,
    rounding: float = 0.0,
    seed: int = 0,
) -> Gain:
    """Return what the clients gain by a policy over a baseline: the base model, training alone, or pooled training.

    Args:
        policy_K: (K,) finite scores under the policy, such as the federated one.
        baseline_K: (K,) scores of the same clients under the baseline. For training alone that is each client's score
            under its own adapter.
        higher_is_better: False for losses.
        rounding: an absolute difference that is none, as in `rounding.difference_beyond_rounding`.
        seed: seeds the sign flips.

    Returns:
        Gains in the unit of the score: 0 where both are alike, or differ by rounding alone.

    Raises:
        MetricError: if there are no clients, lengths differ, or a score is not finite.

    >>> gain = collaboration_gain([1.0, 2.0, 3.0], [2.0, 2.0, 3.5], higher_is_better=False)
    >>> gain.gain.difference, round(gain.better_off.fraction, 3), gain.worse_off.fraction
    (0.5, 0.667, 0.0)
    """
    policy, baseline = np.asarray(policy_K, dtype=np.float64), np.asarray(baseline_K, dtype=np.float64)
    sign = 1.0 if higher_is_better else -1.0
    difference = paired_difference(sign * baseline, sign * policy, seed=seed, rounding=rounding)
    gain_K = difference_beyond_rounding(sign * baseline, sign * policy, rounding)
    return Gain(
        gain=difference,
        better_off=wilson_interval(int((gain_K > 0).sum()), gain_K.size),
        worse_off=wilson_interval(int((gain_K < 0).sum()), gain_K.size),
        worst_decile_gain=worst_decile(gain_K, higher_is_better=True),
        gain_K=gain_K,
    )


def recovered_fraction(policy: float, alone: float, centralised: float) -> float:
    """Return how much of the way from training alone to training on all rows pooled a policy has gone.

    Args:
        policy: mean score of the policy.
        alone: mean score of clients that train alone.
        centralised: mean score of one policy trained on the pooled rows.

    Returns:
        1 when the policy equals pooled training, 0 when it equals training alone; below 0 and above 1 are possible.
        The same for losses and for accuracies. NaN where pooling changes nothing beyond rounding: there is no gap to
        close.

    Raises:
        MetricError: if a score is not finite.

    >>> recovered_fraction(policy=2.5, alone=3.0, centralised=2.0)
    0.5
    """
    if not np.isfinite([policy, alone, centralised]).all():
        raise MetricError(f"scores are {policy}, {alone}, {centralised}; give finite means")
    gap = float(difference_beyond_rounding(alone, centralised))
    return float("nan") if gap == 0 else (policy - alone) / gap
