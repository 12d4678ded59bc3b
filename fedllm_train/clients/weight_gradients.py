"""Gradients of the loss with respect to the frozen weights below a LoRA adapter, and the step they would make.

For a linear layer y = W x the gradient is the sum of (dL/dy) x' over tokens. A hook on every LoRA layer passes its
output on unchanged and, on the way back, adds that product to a float32 matrix: the weights themselves stay frozen and
need no gradient, so quantised bases work and there is no optimizer memory. What the hook needs of the forward pass is
saved as autograd saves it, so activation checkpointing keeps its savings and each product is added once. Meanwhile
there is one float32 matrix (d, m) for every adapted weight on the device.

Symbols: d outputs, m inputs, s the module's LoRA scaling.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from fedllm_train.adapters.arithmetic import Adapter

__all__ = ["first_step", "weight_gradients"]

_NAME = "default"


@contextmanager
def weight_gradients(model: PeftModel) -> Iterator[Adapter]:
    """Sum up the weight gradients of all backward passes meanwhile; yield the sums, (d, m), by module.

    Only what goes through the trained adapter counts: not DPO's reference, nor passes without gradients.
    """
    layers: dict[str, Any] = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer) and _NAME in layer.lora_A
    }
    sums = {
        name: torch.zeros(
            layer.lora_B[_NAME].out_features, layer.lora_A[_NAME].in_features, device=layer.lora_A[_NAME].weight.device
        )
        for name, layer in layers.items()
    }
    handles = [layer.register_forward_hook(partial(_tap, sums[name])) for name, layer in layers.items()]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()


def first_step(model: PeftModel, gradients: Mapping[str, torch.Tensor], learning_rate: float) -> Adapter:
    """Return AdamW's first step on the weights, -learning_rate sign(G), in units of s (`adapters/base_shift.py`).

    AdamW's two moments are g and g^2 after one step, their ratio is the sign; weight decay is left out, as in LoRA-SB
    (Ponkshe et al. 2024, arXiv 2411.19557).

    Args:
        model: whose scalings are meant.
        gradients: (d, m), by module.
        learning_rate: eta.

    Returns:
        `{module}.matrix`, (d, m), on the CPU: s times it would be added to the weight.
    """
    step: Adapter = {}
    for module, gradient in gradients.items():
        # An infinite gradient must not pass for a sign: 0 * inf is nan, as is what comes of nan.
        signs = gradient.sign() + 0 * gradient
        layer: Any = model.get_submodule(module)
        step[f"{module}.matrix"] = signs.cpu() * (-learning_rate / layer.scaling[_NAME])
    return step


class _Tap(torch.autograd.Function):
    """The identity of a layer's output, whose backward pass adds the layer's weight gradient to a sum."""

    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, x: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.total = total
        return output.clone()  # a view could not be written to by the layers that follow

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (x,) = ctx.saved_tensors
        flat = gradients[0].reshape(-1, gradients[0].shape[-1]).to(torch.float32)
        ctx.total.addmm_(flat.mT, x.reshape(-1, x.shape[-1]).to(torch.float32))
        return gradients[0], None, None


def _tap(total: torch.Tensor, layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
    if layer.disable_adapters or _NAME not in layer.active_adapters:
        return output
    return _Tap.apply(output, inputs[0].detach(), total)
