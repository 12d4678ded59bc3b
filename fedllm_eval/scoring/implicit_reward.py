"""What a policy prefers: DPO's implicit reward against a reference, and plain ranking without one.

Symbols: N pairs; `chosen_N`, `rejected_N` are log-probabilities of the two answers under the policy, summed over the
answer's tokens, in nats; `ref_*` the same under the reference. The implicit reward of an answer y is
beta * (log pi(y|x) - log pi_ref(y|x)) (Rafailov et al. 2023, section 4), its loss eq. 7.

A tie is not a win: comparisons are strict, as in TRL's `rewards/accuracies`. A policy equal to its reference
therefore has accuracy 0, not 0.5; `tie_fraction` tells that case from a policy that is wrong everywhere.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.rounding import difference_beyond_rounding

__all__ = ["ImplicitReward", "Ranking", "implicit_reward", "margins", "ranking_accuracy", "reward_loss"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ImplicitReward:
    """Means over pairs; fractions in [0, 1], rewards and loss in nats."""

    accuracy: float
    margin: float
    loss: float
    chosen_reward: float
    rejected_reward: float
    tie_fraction: float
    num_pairs: int


@dataclass(frozen=True)
class Ranking:
    """Share of pairs whose chosen answer is the likelier one."""

    accuracy: float
    tie_fraction: float
    num_pairs: int


def margins(
    chosen_N: npt.ArrayLike,
    rejected_N: npt.ArrayLike,
    ref_chosen_N: npt.ArrayLike,
    ref_rejected_N: npt.ArrayLike,
    beta: float = 0.1,
) -> Array:
    """Return the implicit reward of the chosen minus that of the rejected answer, pair by pair.

    Differences are taken within an answer first, so a policy equal to its reference has margins of exactly 0.

    >>> margins([-10.0], [-12.0], [-11.0], [-11.0], beta=0.5).tolist()
    [1.0]
    """
    chosen, rejected, ref_chosen, ref_rejected = _checked(chosen_N, rejected_N, ref_chosen_N, ref_rejected_N)
    return _beta(beta) * (chosen - ref_chosen) - _beta(beta) * (rejected - ref_rejected)


def reward_loss(margin_N: npt.ArrayLike) -> Array:
    """Return DPO's loss -log sigmoid(margin) of each pair: log 2 at margin 0, towards 0 as the margin grows.

    >>> reward_loss([0.0]).round(4).tolist()
    [0.6931]
    """
    return np.logaddexp(0.0, -np.asarray(margin_N, dtype=np.float64))


def implicit_reward(
    chosen_N: npt.ArrayLike,
    rejected_N: npt.ArrayLike,
    ref_chosen_N: npt.ArrayLike,
    ref_rejected_N: npt.ArrayLike,
    beta: float = 0.1,
) -> ImplicitReward:
    """Return accuracy, mean margin and mean loss of DPO's implicit reward.

    Args:
        chosen_N: (N,) finite log-probabilities of the chosen answers under the policy.
        rejected_N: (N,) the same of the rejected answers.
        ref_chosen_N: (N,) log-probabilities of the chosen answers under the reference.
        ref_rejected_N: (N,) the same of the rejected answers.
        beta: DPO's temperature, > 0; scales rewards, margin and loss, and leaves the accuracy alone.

    Returns:
        `accuracy` 1 if every chosen answer gained more than its rejected one; 0 if none did, ties included.

    Raises:
        MetricError: if there are no pairs, lengths differ, a value is not finite, or beta is not positive.

    >>> implicit_reward([-10.0, -5.0], [-12.0, -5.0], [-11.0, -5.0], [-11.0, -5.0], beta=0.5).accuracy
    0.5
    """
    margin_N = margins(chosen_N, rejected_N, ref_chosen_N, ref_rejected_N, beta)
    return ImplicitReward(
        accuracy=float((margin_N > 0).mean()),
        margin=float(margin_N.mean()),
        loss=float(reward_loss(margin_N).mean()),
        chosen_reward=float(beta * np.subtract(chosen_N, ref_chosen_N).mean()),
        rejected_reward=float(beta * np.subtract(rejected_N, ref_rejected_N).mean()),
        tie_fraction=float((margin_N == 0).mean()),
        num_pairs=int(margin_N.size),
    )


def ranking_accuracy(
    chosen_N: npt.ArrayLike,
    rejected_N: npt.ArrayLike,
    chosen_tokens_N: npt.ArrayLike | None = None,
    rejected_tokens_N: npt.ArrayLike | None = None,
) -> Ranking:
    """Return how often the policy finds the chosen answer likelier than the rejected one, without a reference.

    Summed log-probabilities favour short answers. With token counts the comparison is per token instead. Two answers
    whose log-probabilities differ by rounding alone, such as two of the same text in different batches, are a tie.

    Args:
        chosen_N: (N,) finite log-probabilities of the chosen answers.
        rejected_N: (N,) the same of the rejected answers.
        chosen_tokens_N: (N,) positive token counts; both counts or neither.
        rejected_tokens_N: (N,) the same of the rejected answers.

    Raises:
        MetricError: if there are no pairs, lengths differ, a value is not finite, or a token count is not positive.

    >>> ranking_accuracy([-4.0, -9.0], [-5.0, -3.0]).accuracy
    0.5
    >>> ranking_accuracy([-4.0, -9.0], [-5.0, -3.0], [4, 9], [5, 1]).accuracy  # -1 ties with -1; -1 > -3
    0.5
    """
    chosen, rejected = _checked(chosen_N, rejected_N)
    if (chosen_tokens_N is None) != (rejected_tokens_N is None):
        raise MetricError("token counts of one side only; give chosen_tokens and rejected_tokens, or neither")
    if chosen_tokens_N is not None and rejected_tokens_N is not None:
        chosen_tokens, rejected_tokens, _ = _checked(chosen_tokens_N, rejected_tokens_N, chosen)
        if (chosen_tokens <= 0).any() or (rejected_tokens <= 0).any():
            raise MetricError("an answer of no tokens has no mean log-probability; drop such pairs before scoring")
        chosen, rejected = chosen / chosen_tokens, rejected / rejected_tokens
    lead_N = difference_beyond_rounding(rejected, chosen)
    return Ranking(
        accuracy=float((lead_N > 0).mean()),
        tie_fraction=float((lead_N == 0).mean()),
        num_pairs=int(chosen.size),
    )


def _beta(beta: float) -> float:
    if not (np.isfinite(beta) and beta > 0):
        raise MetricError(f"beta is {beta}; DPO's beta is a positive number, 0.1 unless the run says otherwise")
    return float(beta)


def _checked(*columns: npt.ArrayLike) -> tuple[Array, ...]:
    arrays = tuple(np.asarray(column, dtype=np.float64) for column in columns)
    shapes = [array.shape for array in arrays]
    if arrays[0].ndim != 1 or len(set(shapes)) != 1:
        raise MetricError(f"pairs need lists of one length, got shapes {shapes}; give one value a pair in each")
    if arrays[0].size == 0:
        raise MetricError("no pairs to score: an accuracy of nothing is undefined; give at least one pair")
    for array in arrays:
        if not np.isfinite(array).all():
            pair = int(np.flatnonzero(~np.isfinite(array))[0])
            raise MetricError(f"pair {pair} has value {array[pair]}; log-probabilities are finite, drop or repair it")
    return arrays
