"""DPO's and KTO's reference inside a model with an adapter: the policy the run started from, whatever the adapter is.

TRL 1.16 makes a second adapter, "ref", and copies the tensors whose names hold ".default." into it. Names that end
with the adapter's (the entries of a ParameterDict or BufferDict: IA3, LoRA and DoRA on embeddings, trained tokens,
LoHa, LoKr, OFT, ...) are left out, so that "ref" keeps whatever it was drawn with. Here every tensor of "default" is
copied, and what both compute is compared before anything is trained: a kind of adapter whose state is not in tensors
of its own is refused instead of trained against another reference.
"""

from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from trl.trainer.utils import use_adapter

from fedllm_data.errors import ConfigError

__all__ = ["REFERENCE", "check_reference", "copy_reference"]

REFERENCE = "ref"
"""TRL's name of the frozen copy."""
_TRAINED = "default"


@torch.no_grad()
def copy_reference(model: PeftModel) -> None:
    """Copy every tensor of the adapter "default" into "ref", and freeze the copy.

    Args:
        model: has both adapters.

    Raises:
        ConfigError: if "ref" lacks a trained tensor, has it in another shape, or shares it.
    """
    tensors = dict(_tensors(model))
    for name, tensor in tensors.items():
        if (copy_name := _name_of_copy(name)) is None:
            continue
        copied = tensors.get(copy_name)
        if copied is None or copied.shape != tensor.shape or copied.data_ptr() == tensor.data_ptr():
            if isinstance(tensor, torch.nn.Parameter) and tensor.numel():
                raise _cannot_be_kept(model, f"{name} has no copy of its own")
            continue
        copied.copy_(tensor)
        if isinstance(copied, torch.nn.Parameter):
            copied.requires_grad_(False)


@torch.no_grad()
def check_reference(model: PeftModel, input_ids: list[int]) -> None:
    """Compare what the reference computes with what the policy computes before its first step.

    Args:
        model: whose adapter "default" is the starting one; its reference is "ref" or, without that, the base alone.
        input_ids: the token ids of any row that is trained on.

    Raises:
        ConfigError: if they differ by more than rounding, or a weight outside the adapter is trained, which would move
            the reference with the policy.
    """
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        if parameter.requires_grad and _TRAINED not in parts and REFERENCE not in parts:
            raise _cannot_be_kept(model, f"{name} is trained and belongs to both")
    training = model.training
    model.eval()
    tokens = torch.tensor([input_ids], device=model.device)
    try:
        policy = _logits(model, tokens)
        with use_adapter(model, REFERENCE if REFERENCE in model.peft_config else None):
            reference = _logits(model, tokens)
    finally:
        model.train(training)
    policy, reference = policy[:, -reference.shape[1] :], reference[:, -policy.shape[1] :]
    difference, scale = float((policy - reference).abs().max()), float(policy.abs().max())
    # The same weights in the same precision; a norm of DoRA may be rounded otherwise on another device.
    rounding = min(256 * torch.finfo(model.dtype).eps, 0.05)
    if not difference <= rounding * scale:
        raise _cannot_be_kept(model, f"a logit differs by {difference:.3g} already before the first step")


def _logits(model: PeftModel, tokens: torch.Tensor) -> torch.Tensor:
    return model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits.float()


def _tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _name_of_copy(name: str) -> str | None:
    parts = name.split(".")
    if _TRAINED not in parts:
        return None
    return ".".join(REFERENCE if part == _TRAINED else part for part in parts)


def _cannot_be_kept(model: PeftModel, reason: str) -> ConfigError:
    config: Any = model.peft_config[_TRAINED]
    return ConfigError(
        f"the reference cannot be kept at the policy that training starts from with this {type(config).__name__} "
        f"({reason}); train it with SFT, or use LoraConfig without bias"
    )
