"""How the SFT loss of a step is computed: by TRL's chunked kernel, or by the model's ordinary forward.

TRL 1.16 computes the logits tile by tile and once more in the backward pass: it never holds them all, which a GPU with
a large vocabulary needs, and takes longer where memory is not short. The plain way keeps the logits of the positions
where some row of the batch has a label; its loss is that of TRL up to rounding, and it gives none of TRL's metrics
(entropy, token accuracy). With `trl`, the default, a visit equals plain TRL to the bit. `benchmarks/sft_kernel.py`
measures both.
"""

import inspect
from typing import Any, Literal

import torch
from torch.nn.functional import cross_entropy
from trl import SFTConfig

from fedllm_data.errors import ConfigError
from fedllm_train.clients.objectives import ClientArgs

__all__ = ["chosen_kernel", "kept_logits", "plain_loss"]


def chosen_kernel(name: str, args: ClientArgs) -> Literal["trl", "plain"]:
    """Return the kernel of a run.

    Args:
        name: `trl`, `plain`, or `auto`: plain on a CPU where it gives the same loss, else TRL's. It is the run's
            `sft_kernel` or `preference_kernel`, by its task.
        args: TRL's settings.

    Raises:
        ConfigError: if the plain kernel is asked for where it would compute another loss.

    >>> chosen_kernel("auto", SFTConfig(bf16=False, use_cpu=True))
    'plain'
    """
    reason = _why_not(args)
    if name == "plain" and reason is not None:
        only = "sft_kernel plain computes the mean loss of SFT alone"
        if not isinstance(args, SFTConfig):
            only = "preference_kernel plain computes log-probabilities alone"
        raise ConfigError(f"{only}, and {reason}; use trl")
    if name == "auto":
        return "plain" if reason is None and args.device.type == "cpu" else "trl"
    return "plain" if name == "plain" else "trl"


def plain_loss(model: Any, inputs: dict[str, Any], num_items: Any = None) -> torch.Tensor:
    """Return the sum of the negative log-likelihoods of the labelled tokens over how many there are.

    Args:
        model: the model in training.
        inputs: a batch with `labels`, which are -100 where nothing is trained.
        num_items: number of labelled tokens in all batches of the optimizer step; by default in this batch.
    """
    labels = inputs["labels"]
    targets = labels[:, 1:]
    keep = (targets != -100).any(dim=0).nonzero().squeeze(-1)
    given = {name: value for name, value in inputs.items() if name != "labels"}
    logits = kept_logits(model, given, keep, labels.shape[1])
    total = cross_entropy(logits.float().flatten(0, 1), targets[:, keep].flatten(), ignore_index=-100, reduction="sum")
    number = (targets != -100).sum() if num_items is None else torch.as_tensor(num_items, device=total.device)
    return total / number.clamp(min=1)


def kept_logits(model: Any, given: dict[str, Any], keep: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Return a model's logits at some positions of a batch, shape (rows, positions, vocabulary).

    Args:
        model: the model in training.
        given: its inputs.
        keep: the positions.
        num_tokens: tokens of a row, padding included.
    """
    given = given | {"use_cache": False}
    if _takes_positions(model):
        return model(**given, logits_to_keep=keep).logits
    # The virtual tokens of prompt tuning come first and have logits too.
    return model(**given).logits[:, -num_tokens:][:, keep]


def _takes_positions(model: Any) -> bool:
    if any(config.is_prompt_learning for config in getattr(model, "peft_config", {}).values()):
        return False
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def _why_not(args: ClientArgs) -> str | None:
    if isinstance(args, SFTConfig):
        if args.loss_type != "nll":
            return f"loss_type is {args.loss_type}"
        if args.label_smoothing_factor:
            return "label_smoothing_factor is given"
    return "router_aux_loss_coef is given" if args.router_aux_loss_coef else None
