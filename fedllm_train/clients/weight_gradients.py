"""Gradients of the loss with respect to the frozen weights below a LoRA adapter, and the step they would make.

For a linear layer y = W x the gradient is the sum of (dL/dy) x' over tokens. A hook on every LoRA layer passes its
output on unchanged and, on the way back, adds that product to a float32 matrix: the weights themselves stay frozen and
need no gradient, so quantised bases work and there is no optimizer memory. What the hook needs of the forward pass is
saved as autograd saves it, so activation checkpointing keeps its savings and each product is added once. Meanwhile
there is one float32 matrix (d, m) for every adapted weight on the device.

Where the loss is scaled (fp16), each product is divided by the scale of its own step, since a sum over several scales
would weigh steps by them; a backward pass that overflowed in a layer is left out of that layer's sum. If no pass is
left, the sum is nan, as it is where gradients are not finite without any scale.

Symbols: d outputs, m inputs, s the module's LoRA scaling.
"""

from collections.abc import Callable, Iterator, Mapping
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
def weight_gradients(model: PeftModel, scale: Callable[[], float | None] = lambda: None) -> Iterator[Adapter]:
    """Sum up the weight gradients of all backward passes inside the block; yield the sums, (d, m), by module.

    Only what goes through the trained adapter counts: not DPO's reference, nor passes without gradients.

    Args:
        model: holds the adapter that is trained.
        scale: returns what the loss is multiplied by at the moment; None if the loss is not scaled.
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
    taps = {name: _Sum(total, scale) for name, total in sums.items()}
    handles = [layer.register_forward_hook(partial(_tap, taps[name])) for name, layer in layers.items()]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()
        for tap in taps.values():
            tap.check()


def first_step(model: PeftModel, gradients: Mapping[str, torch.Tensor], learning_rate: float) -> Adapter:
    """Return AdamW's first step on the weights, -learning_rate sign(G), in units of s (`adapters/base_shift.py`).

    AdamW's two moments are g and g^2 after one step, their ratio is the sign; weight decay is left out, as in LoRA-SB
    (Ponkshe et al. 2024, arXiv 2411.19557).

    Args:
        model: gives the scalings s.
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


class _Sum:
    """The sum of one layer."""

    def __init__(self, total: torch.Tensor, scale: Callable[[], float | None]) -> None:
        self._total, self._scale = total, scale
        self._num_added, self._num_left_out = 0, 0

    def add(self, gradient: torch.Tensor, x: torch.Tensor) -> None:
        """Add the product of one backward pass: of dL/dy, (tokens, d), and x, (tokens, m)."""
        scale = self._scale()
        if scale is not None and not bool(gradient.isfinite().all()):
            self._num_left_out += 1
            return
        self._num_added += 1
        self._total.addmm_(gradient.mT, x, alpha=1.0 if scale is None else 1.0 / scale)

    def check(self) -> None:
        """Make the sum nan where every pass overflowed: nothing is known then, and 0 would say something."""
        if self._num_left_out and not self._num_added:
            self._total.fill_(torch.nan)


class _Tap(torch.autograd.Function):
    """The identity of a layer's output, whose backward pass adds the layer's weight gradient to a sum."""

    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, x: torch.Tensor, total: _Sum) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.total = total
        return output.clone()  # a view could not be written to by the layers that follow

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (x,) = ctx.saved_tensors
        flat = gradients[0].reshape(-1, gradients[0].shape[-1]).to(torch.float32)
        ctx.total.add(flat, x.reshape(-1, x.shape[-1]).to(torch.float32))
        return gradients[0], None, None


def _tap(total: _Sum, layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
    if layer.disable_adapters or _NAME not in layer.active_adapters:
        return output
    return _Tap.apply(output, inputs[0].detach(), total)
