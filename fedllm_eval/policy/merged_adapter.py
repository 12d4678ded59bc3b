"""A policy switched on for scoring: its LoRA adapter added into the weights while rows are read, where that is safe.

A pass with LoRA beside the weights costs up to twice a pass without, most on small models: every layer multiplies
three matrices instead of one. W + s B A, computed once, gives the same log-probabilities up to the rounding of float32
(measured: 1.2e-5 nats of a sum of about 100, which `scoring/rounding.py` calls none).

Nothing is subtracted afterwards. A layer gets another parameter for as long as it is read and its own one back, so the
policy is the same as before bit for bit, also after an error, and weights that are tied to others stay theirs.
Imports torch and peft when an adapter is merged, not before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fedllm_eval.policy.policies import Policy

__all__ = ["MAX_MERGED_BYTES", "active_for_scoring", "mergeable_layers", "merged"]

MAX_MERGED_BYTES = 1 << 30
"""Memory that merged weights may take beside the base's. A larger model gains little: what LoRA adds to a layer falls
with its width."""


@contextmanager
def active_for_scoring(policy: Any) -> Iterator[Any]:
    """Switch a policy on as `Policy.active` does, its adapter merged where it was loaded from a folder and can be.

    Args:
        policy: a `Policy`, or what has its `active`, such as the server's adapter during training; the model of
            somebody who trains it is left as it is.
    """
    with policy.active() as model:
        if isinstance(policy, Policy) and policy.adapter is not None and policy.backbone.adapters:
            with merged(model):
                yield model
        else:
            yield model


@contextmanager
def merged(model: Any) -> Iterator[bool]:
    """Merge the active LoRA adapter of a PEFT model into its weights for the length of the block.

    Args:
        model: a `PeftModel`.

    Yields:
        Whether it was merged; where it cannot be, the model is left as it is.
    """
    layers = mergeable_layers(model)
    if not layers:
        yield False
        return
    import torch

    (name,) = set(model.active_adapters)
    own = [layer.get_base_layer().weight for layer in layers]
    # PEFT's switch also sets what is trained, which is a trainer's to set.
    trains = [(parameter, parameter.requires_grad) for layer in layers for parameter in layer.parameters()]
    try:
        with torch.no_grad():
            for layer, weight in zip(layers, own, strict=True):
                # Out of inference mode, so that the parameter can be read in any mode.
                total = weight.data + layer.get_delta_weight(name)
                layer.get_base_layer().weight = torch.nn.Parameter(total, requires_grad=False)
                layer.enable_adapters(False)
        yield True
    finally:
        for layer, weight in zip(layers, own, strict=True):
            layer.get_base_layer().weight = weight
            layer.enable_adapters(True)
        for parameter, is_trained in trains:
            parameter.requires_grad_(is_trained)


def mergeable_layers(model: Any) -> list[Any]:
    """Return the LoRA layers to merge; none where one of them, or anything else that is adapted, cannot be.

    Merged are plain LoRA on float32 linear layers with one active adapter: no DoRA or other variant, no bias, no
    quantised or half-precision base (which would round the change away), no whole modules or tokens saved besides, no
    other kind of adapter, and not more than `MAX_MERGED_BYTES`.
    """
    from peft import PeftModel
    from peft.tuners.lora.layer import Linear
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    if not isinstance(model, PeftModel) or len(active := set(model.active_adapters)) != 1:
        return []
    (name,) = active
    config: Any = model.peft_config[name]
    if str(getattr(config.peft_type, "value", config.peft_type)) != "LORA" or config.bias != "none":
        return []
    layers: list[Any] = []
    for module in model.modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            return []
        if isinstance(module, BaseTunerLayer):
            kind: type = type(module)
            if kind is not Linear:
                return []
            layers.append(module)
    layers = [layer for layer in layers if name in layer.lora_A]
    if not all(_is_plain(layer, name) for layer in layers):
        return []
    num_bytes = sum(4 * layer.get_base_layer().weight.numel() for layer in layers)
    return layers if num_bytes <= MAX_MERGED_BYTES else []


def _is_plain(layer: Any, name: str) -> bool:
    """Whether all that a LoRA layer does is to add s B A x, in float32, with this adapter alone."""
    import torch
    from transformers.pytorch_utils import Conv1D

    base = layer.get_base_layer()
    is_float = {base.weight.dtype, layer.lora_A[name].weight.dtype, layer.lora_B[name].weight.dtype} == {torch.float32}
    is_alone = layer.active_adapters == [name] and not layer.disable_adapters and not layer.merged
    more = name in layer.lora_variant or layer.lora_bias.get(name)
    return type(base) in (torch.nn.Linear, Conv1D) and is_float and is_alone and not more
