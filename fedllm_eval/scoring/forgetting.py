"""What training took away: abilities of the base that the policy has lost, and how far it has moved from it.

Symbols: N items. Scores before and after are of the same items, so the interval is that of paired differences.

The distance is the Kullback-Leibler divergence between the distributions over answers, estimated from the
log-probabilities of texts under both. Texts drawn from p give KL(p || q) as the mean of log p - log q; with
k3 = exp(d) - 1 - d, d = log q - log p (Schulman 2020), each term is non-negative and the mean the same. On texts that
were drawn from neither (a held-out corpus) the mean difference is no KL: it is the loss of the policy minus that of
the base, and is reported under that name.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.intervals import Interval, PairedDifference, mean_interval, paired_difference
from fedllm_eval.scoring.proportion import Proportion, wilson_interval
from fedllm_eval.scoring.rounding import difference_beyond_rounding

__all__ = ["Forgetting", "SequenceKL", "forgetting", "loss_increase", "sequence_kl"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Forgetting:
    """Change of a base ability on the same items."""

    change: PairedDifference
    """Mean of after - before in the direction of better: negative where ability was lost."""
    lost: Proportion
    """Share of items that became worse."""
    won: Proportion
    """Share of items that became better."""


@dataclass(frozen=True)
class SequenceKL:
    """Estimates of KL(p || q) from sequences drawn from p, in nats."""

    per_sequence: Interval
    per_token: float
    """Sum of the terms over the sum of tokens."""
    estimator: Literal["k1", "k3"]
    num_sequences: int
    num_tokens: int


def forgetting(before_N: npt.ArrayLike, after_N: npt.ArrayLike, *, higher_is_better: bool = True) -> Forgetting:
    """Return how an ability of the base changed by training.

    Args:
        before_N: (N,) finite scores of the base, such as 1 for a right answer.
        after_N: (N,) scores of the trained policy on the same items.
        higher_is_better: False for losses.

    Returns:
        `change` of 0 where nothing was lost or won, or as much won as lost; `lost` and `won` tell these apart. A
        difference that is rounding (`scoring/rounding.py`) is neither.

    Raises:
        MetricError: if there are no items, lengths differ, or a score is not finite.

    >>> result = forgetting([1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0])
    >>> result.change.difference, result.lost.fraction, result.won.fraction
    (-0.5, 0.5, 0.0)
    """
    sign = 1.0 if higher_is_better else -1.0
    before, after = (sign * np.asarray(scores, dtype=np.float64) for scores in (before_N, after_N))
    change = paired_difference(before, after)
    change_N = difference_beyond_rounding(before, after)
    return Forgetting(
        change=change,
        lost=wilson_interval(int((change_N < 0).sum()), before.size),
        won=wilson_interval(int((change_N > 0).sum()), before.size),
    )


def sequence_kl(
    logp_N: npt.ArrayLike,
    logq_N: npt.ArrayLike,
    num_tokens_N: npt.ArrayLike,
    *,
    estimator: Literal["k1", "k3"] = "k1",
) -> SequenceKL:
    """Estimate KL(p || q) from sequences that p wrote.

    Args:
        logp_N: (N,) finite log-probabilities of the sequences under p, who wrote them (sampled at temperature 1).
        logq_N: (N,) the same under q.
        num_tokens_N: (N,) positive token counts.
        estimator: `k1`, the plain mean of log p - log q: unbiased, single terms may be negative; `k3`, unbiased where
            the sequences are from p, never negative, and of high variance where a sequence is much likelier under q.

    Returns:
        0 where both give the same probabilities. Greedy answers or held-out texts give no KL: see `loss_increase`.

    Raises:
        MetricError: if there are no sequences, lengths differ, a value is not finite, or a count is not positive.

    >>> sequence_kl([-1.0, -3.0], [-2.0, -4.0], [2, 2]).per_token
    0.5
    """
    p, q, tokens = _checked(logp_N, logq_N, num_tokens_N)
    if estimator not in ("k1", "k3"):
        raise MetricError(f"estimator {estimator!r} is unknown; use k1 or k3")
    with np.errstate(over="ignore"):
        term_N = p - q if estimator == "k1" else np.expm1(q - p) - (q - p)
    if not np.isfinite(term_N).all():
        raise MetricError("exp(log q - log p) overflows for a sequence: k3 cannot hold it; use k1")
    return SequenceKL(
        per_sequence=mean_interval(term_N),
        per_token=float(term_N.sum() / tokens.sum()),
        estimator=estimator,
        num_sequences=int(p.size),
        num_tokens=int(tokens.sum()),
    )


def loss_increase(logp_N: npt.ArrayLike, logbase_N: npt.ArrayLike, num_tokens_N: npt.ArrayLike) -> Interval:
    """Return how many nats per token a policy is worse than its base on texts that neither wrote.

    Args:
        logp_N: (N,) finite log-probabilities of the texts under the policy.
        logbase_N: (N,) the same under the base.
        num_tokens_N: (N,) positive token counts.

    Returns:
        Difference of the two losses per token with its interval over texts: positive where the policy is worse.

    Raises:
        MetricError: as `sequence_kl`.

    >>> loss_increase([-4.0, -8.0], [-3.0, -6.0], [1, 2]).mean
    1.0
    """
    p, base, tokens = _checked(logp_N, logbase_N, num_tokens_N)
    return mean_interval((base - p) / tokens, tokens)


def _checked(*columns: npt.ArrayLike) -> tuple[Array, Array, Array]:
    p, q, tokens = (np.asarray(column, dtype=np.float64) for column in columns)
    if p.ndim != 1 or not p.shape == q.shape == tokens.shape:
        raise MetricError(f"sequences need lists of one length, got shapes {p.shape}, {q.shape}, {tokens.shape}")
    if p.size == 0:
        raise MetricError("no sequences: a divergence estimated from nothing is undefined; give at least one")
    for array in (p, q, tokens):
        if not np.isfinite(array).all():
            at = int(np.flatnonzero(~np.isfinite(array))[0])
            raise MetricError(f"sequence {at} has value {array[at]}; drop or repair it")
    if not (tokens > 0).all():
        raise MetricError("a sequence has no tokens; drop such sequences before scoring")
    return p, q, tokens
