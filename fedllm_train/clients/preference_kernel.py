"""Where DPO and KTO get the log-probabilities of answers: TRL's chunked kernel, or the model's ordinary forward.

TRL 1.16 projects tile by tile and, without Triton, every position of a batch, prompts and padding included, and in the
backward pass once more. The plain way projects, once, the positions at which some row of the batch has an answer. It
stands where TRL's own losses call the model: which loss is computed from the log-probabilities, and every metric, is
TRL's, and both ways are equal up to rounding. With `trl`, the default, a visit equals plain TRL to the bit.
`benchmarks/sft_kernel.py --task dpo` measures both.
"""

from typing import Any

import torch
from torch.nn.functional import nll_loss
from trl.trainer.utils import FusedCausalLMOutput

from fedllm_train.clients.sft_kernel import kept_logits

__all__ = ["PlainHead"]


class PlainHead:
    """Stands for a model that TRL calls with `fused_lm_head=True`."""

    def __init__(self, model: Any, *, sums_squares: bool = False) -> None:
        """Prepare.

        Args:
            model: the model in training.
            sums_squares: whether the loss reads `log_sum_sq_probs`, as DPO's does with `use_weighting`.
        """
        self._model = model
        self._sums_squares = sums_squares

    def __call__(self, *, labels: torch.Tensor, fused_lm_head: bool = True, **given: Any) -> FusedCausalLMOutput:
        """Return what TRL's fused head returns, in tensors of shape (rows, tokens - 1).

        Args:
            labels: (rows, tokens) token ids, -100 where nothing is scored.
            fused_lm_head: how TRL asks for this.
            given: the model's other inputs.
        """
        targets = labels[:, 1:]
        scored = targets != -100
        keep = scored.any(dim=0).nonzero().squeeze(-1)
        logits = kept_logits(self._model, given, keep, labels.shape[1]).float()
        log_p = logits.log_softmax(dim=-1)
        kept = targets[:, keep]
        losses = nll_loss(log_p.flatten(0, 1), kept.flatten(), ignore_index=-100, reduction="none")

        def spread(values: torch.Tensor) -> torch.Tensor:
            """Put values of the kept positions where they belong, and zeros where nothing is scored."""
            return values.new_zeros(targets.shape).index_copy(1, keep, values.masked_fill(kept == -100, 0))

        with torch.no_grad():
            p = log_p.exp()
            squares = spread(p.square().sum(dim=-1).log()) if self._sums_squares else None
            entropy = spread(-(p * log_p).sum(dim=-1))
            mean_logits = spread(logits.mean(dim=-1))
            is_top1 = spread(logits.argmax(dim=-1) == kept)
        log_probs = spread(-losses.view(kept.shape))
        return FusedCausalLMOutput(
            loss=-log_probs.sum() / scored.sum().clamp(min=1),
            log_probs=log_probs,
            entropy=entropy,
            log_sum_sq_probs=squares,
            mean_logits=mean_logits,
            is_top1=is_top1,
            label_mask=scored,
        )
