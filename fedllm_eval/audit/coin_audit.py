"""The one-run audit of a policy: scores of canaries that coins planted or kept out, and the epsilon they exclude.

The score of a canary is how much likelier training made its answer: its log-probability under the policy, minus that
under the start policy where there is one, which takes out how hard the answer is by itself. It needs the released
adapter alone, as a reader of the run would have it; an auditor who saw updates could show more.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import ConfigError
from fedllm_eval.audit.canaries import Canary
from fedllm_eval.audit.one_run import one_run_bound
from fedllm_eval.policy.chat import encode_messages
from fedllm_eval.scoring.epsilon_bound import Unit

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["audit_coins", "canary_scores", "unit_of"]

Progress = Callable[[str, int, int], None]


def unit_of(canaries: Sequence[Canary]) -> Unit | None:
    """Return what the coins of canaries decided about; None where no coins were thrown.

    Raises:
        ConfigError: if some have other units than others.
    """
    units = {canary.unit for canary in canaries}
    if len(units) > 1:
        raise ConfigError(f"canaries of units {sorted(map(str, units))} in one secrets file; audit one unit at a time")
    return units.pop() if units else None


def canary_scores(
    policy: "Policy",
    canaries: Sequence[Canary],
    *,
    reference: "Policy | None" = None,
    batch_size: int = 8,
) -> npt.NDArray[np.float64]:
    """Return by how many nats training made each canary's answer likelier; (m,), higher looks trained on.

    Args:
        policy: what was trained.
        canaries: m canaries, in and out alike.
        reference: what it started from; without it the score is the log-probability alone.
        batch_size: sequences a batch holds at most.
    """
    from fedllm_eval.policy.models import sequence_logps

    sequences = []
    for canary in canaries:
        turns = [{"role": "user", "content": canary.question}, {"role": "assistant", "content": canary.answer()}]
        encoded = encode_messages(policy.tokenizer, turns)
        sequences.append((encoded["input_ids"], encoded["assistant_masks"]))
    with policy.active() as model:
        scores = np.asarray(sequence_logps(model, sequences, batch_size)[0], dtype=np.float64)
    if reference is not None:
        with reference.active() as model:
            scores = scores - np.asarray(sequence_logps(model, sequences, batch_size)[0], dtype=np.float64)
    return scores


def audit_coins(
    policy: "Policy",
    canaries: Sequence[Canary],
    *,
    reference: "Policy | None" = None,
    delta: float = 0.0,
    confidence: float = 0.95,
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return what one run with canaries proves about epsilon.

    Args:
        policy: what was trained.
        canaries: all canaries, with their coins.
        reference: what it started from.
        delta: delta of the guarantee in question.
        confidence: that epsilon is at least the bound.
        batch_size: sequences a batch holds at most.
        seed: seeds the order of ties.
        progress: called with (what, canaries done, canaries in all).

    Returns:
        The fields of `OneRunBound`, and the mean score of canaries that are in and that are out, in nats an answer;
        None where there are none.

    Raises:
        ConfigError: if no coins were thrown for the canaries.
    """
    unit = unit_of(canaries)
    if unit is None:
        raise ConfigError("no coins were thrown for these canaries; plant some by `fedllm-eval plant --coins`")
    scores = canary_scores(policy, canaries, reference=reference, batch_size=batch_size)
    is_in = np.array([canary.is_in for canary in canaries])
    if progress is not None:
        progress("coins", len(canaries), len(canaries))
    bound = one_run_bound(scores, is_in, delta=delta, confidence=confidence, unit=unit, seed=seed)
    means = {
        name: float(scores[side].mean()) if side.any() else None
        for name, side in (("mean_score_in", is_in), ("mean_score_out", ~is_in))
    }
    return asdict(bound) | means
