"""What a policy kept of planted canaries: exposure, and whether one client's secrets come out at another's prefix.

For every canary the loss of its answer is ranked among answers with other secrets of the same space (the shared
beginning cancels), before and after training: exposure in bits, up to 1.44 by chance. Then the question and the
prefix, which hold no secret, are given to the policy and continued greedily; what comes out is compared with the
secret.
Clients share one global adapter, so whoever has it and knows a handle can do the same.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fedllm_data.errors import MetricError
from fedllm_eval.audit.canaries import Canary, candidate_secrets
from fedllm_eval.audit.token_logps import continue_greedily
from fedllm_eval.policy.chat import encode_messages
from fedllm_eval.policy.rendering import render_text
from fedllm_eval.scoring.exposure import (
    chance_exposure,
    exposure,
    exposure_p_value,
    extrapolated_exposure,
    mean_exposure,
)
from fedllm_eval.scoring.extraction import extracted, extraction_similarity
from fedllm_eval.scoring.proportion import wilson_interval

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["audit_canaries"]

Progress = Callable[[str, int, int], None]


def audit_canaries(
    policy: "Policy",
    canaries: Sequence[Canary],
    *,
    num_candidates: int = 999,
    candidates: Mapping[str, Sequence[str]] | None = None,
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure exposure and extraction of planted canaries.

    Args:
        policy: what was trained on rows with the canaries (or was not, for the chance level).
        canaries: as they were planted.
        num_candidates: other secrets to rank against; the ceiling of the exposure is log2 of one more.
        candidates: client id -> other secrets, for canaries whose secret was handed in.
        batch_size: sequences a batch holds at most.
        seed: seeds the candidates.
        progress: called with (what, canaries done, canaries in all).

    Returns:
        `canaries`: per canary its client, `exposure_bits`, `p_value`, `extrapolated_bits` (None with a reason),
        `extracted`, `similarity` and the continuation's length, never the secret; `exposure`: mean with interval over
        canaries, `ceiling_bits`, `chance_bits`; `extraction`: share extracted with interval; `num_canaries`.

    Raises:
        MetricError: if there are no canaries.
        ConfigError: if a handed-in canary has no candidates.
    """
    from fedllm_eval.policy.models import sequence_logps

    if not canaries:
        raise MetricError("no canaries to look for; plant some by `fedllm-eval plant`")
    items: list[dict[str, Any]] = []
    for position, canary in enumerate(canaries):
        others = list((candidates or {}).get(canary.client_id) or candidate_secrets(canary, num_candidates, seed=seed))
        sequences = []
        for secret in (canary.secret, *others):
            encoded = encode_messages(policy.tokenizer, _conversation(canary, secret))
            sequences.append((encoded["input_ids"], encoded["assistant_masks"]))
        with policy.active() as model:
            logp, _ = sequence_logps(model, sequences, batch_size)
            asked = [{"role": "user", "content": canary.question}]
            text = render_text(policy.tokenizer, asked, add_generation_prompt=True)
            # A token may span several letters, but no letter several tokens beyond its bytes.
            (continuation,) = continue_greedily(
                model, policy.tokenizer, [text + canary.prefix], 2 * len(canary.secret.encode()) + 2
            )
        losses = -np.asarray(logp)
        far = extrapolated_exposure(losses[0], losses[1:]) if len(others) >= 100 else None
        items.append(
            {
                "client_id": canary.client_id,
                "copies": canary.copies,
                "space_bits": canary.space_bits,
                "exposure_bits": exposure(losses[0], losses[1:]),
                "p_value": exposure_p_value(losses[0], losses[1:]),
                "extrapolated_bits": None if far is None or np.isnan(far.bits) else far.bits,
                "extrapolation_reason": "fewer than 100 candidates" if far is None else far.reason,
                "extracted": extracted(canary.secret, continuation),
                "similarity": extraction_similarity(canary.secret, continuation),
                "num_candidates": len(others),
            }
        )
        if progress is not None:
            progress("canaries", position + 1, len(canaries))
    bits, ceiling = mean_exposure(
        [item["exposure_bits"] for item in items], [item["num_candidates"] for item in items]
    )
    share = wilson_interval(sum(item["extracted"] for item in items), len(items))
    return {
        "canaries": items,
        "exposure": {
            "mean_bits": bits.mean,
            "low": bits.low,
            "high": bits.high,
            "chance_bits": chance_exposure([item["num_candidates"] for item in items]),
            "ceiling_bits": ceiling,
        },
        "extraction": {
            "fraction": share.fraction,
            "low": share.low,
            "high": share.high,
            "mean_similarity": float(np.mean([item["similarity"] for item in items])),
        },
        "num_canaries": len(items),
    }


def _conversation(canary: Canary, secret: str) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": canary.question},
        {"role": "assistant", "content": canary.answer(secret)},
    ]
