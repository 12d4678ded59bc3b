"""Gradients of single rows, by hooks on the LoRA layers' linears, and their clipped sum: the heart of private steps.

For a linear y = W x the gradient of one row's loss is the sum over its tokens of (dL/dy) x', so one backward pass of
the sum of the rows' losses gives every row's own gradient: einsum("bto,bti->boi") of what goes into the layer and what
comes back (Goodfellow 2015, arXiv 1510.01799). Hooks see both with any kind of attention. A layer that is called twice
in a pass gives both products of a row before its norm is taken, and so do the two halves of a preference pair.

Symbols: b rows, t tokens, o outputs, i inputs; C the clip. Where t (o + i) < o i, what was seen is kept in place of
the products, and norms come from Gram matrices over tokens: |G_b|^2 = sum_{t,u} (g_t . g_u)(x_t . x_u). Nothing of a
row outlives `clipped_sum`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import linear

from fedllm_data.errors import ConfigError

__all__ = ["RowGradients", "row_gradients"]

_NAME = "default"
_BELOW = 1 - 1e-6
"""The clip is kept below by more than rounding to float32 can add to a norm."""


class _Layer:
    """What one weight has seen of the backward passes since the last sum."""

    def __init__(self, parameter: torch.nn.Parameter) -> None:
        self.parameter = parameter
        self._x: list[torch.Tensor] = []
        self._g: list[torch.Tensor] = []
        self._products: torch.Tensor | None = None

    def add(self, x: torch.Tensor, g: torch.Tensor) -> None:
        """Take one call: inputs (b, t, i) and what comes back of the outputs, (b, t, o), in float32."""
        tokens, outputs, inputs = x.shape[1], g.shape[2], x.shape[2]
        if tokens * (outputs + inputs) < outputs * inputs:
            self._x.append(x)
            self._g.append(g)
            return
        product = torch.einsum("bto,bti->boi", g, x)
        self._products = product if self._products is None else self._products.add_(product)

    def squared_norms(self) -> torch.Tensor | None:
        """Return every row's squared norm, (b,), in float64; None if the layer was not in the pass."""
        self._settle()
        if self._products is not None:
            return self._products.flatten(1).double().square().sum(dim=1)
        if not self._x:
            return None
        x, g = self._x[0].double(), self._g[0].double()
        return ((x @ x.mT) * (g @ g.mT)).sum(dim=(1, 2)).clamp(min=0)

    def weighted_sum(self, weights: torch.Tensor, usable: torch.Tensor) -> torch.Tensor | None:
        """Return the sum over rows with weights (b,), shape (o, i); rows that are not usable do not count."""
        if self._products is not None:
            return torch.einsum("b,boi->oi", weights, _only(self._products, usable))
        if not self._x:
            return None
        g = _only(self._g[0], usable) * weights[:, None, None]
        return torch.einsum("bto,bti->oi", g, _only(self._x[0], usable))

    def clear(self) -> None:
        """Forget the rows."""
        self._x, self._g, self._products = [], [], None

    def _settle(self) -> None:
        """Join what several calls left: a row's calls are tokens of one sum."""
        if len(self._x) > 1:
            self._x, self._g = [torch.cat(self._x, dim=1)], [torch.cat(self._g, dim=1)]
        if self._x and self._products is not None:
            self._products += torch.einsum("bto,bti->boi", self._g[0], self._x[0])
            self._x, self._g = [], []


class RowGradients:
    """The gradients of the rows of one physical batch, and the clipped sum of all batches so far."""

    def __init__(self, layers: Mapping[str, _Layer]) -> None:
        """Begin with no row."""
        self._layers = layers
        self._num_rows, self._num_parts = 0, 1
        self._odd: str | None = None

    @property
    def num_kept(self) -> int:
        """Rows of which something is kept at the moment: none after `clipped_sum`."""
        return self._num_rows

    def expect(self, num_rows: int, num_parts: int = 1) -> None:
        """Say what the next pass is about, before it is made.

        Args:
            num_rows: rows of the batch.
            num_parts: sequences of a row; those of one part stand one behind the other, as a batch of preference pairs
                is all chosen answers and then all rejected ones.
        """
        self.forget()
        self._num_rows, self._num_parts = num_rows, num_parts

    def see(self, layer: _Layer, x: torch.Tensor, g: torch.Tensor) -> None:
        """Take what a hook saw: inputs and what comes back, (parts * rows, tokens, width)."""
        rows, parts = self._num_rows, self._num_parts
        if x.ndim != 3 or x.shape[0] != rows * parts or g.shape[:2] != x.shape[:2]:
            self._odd = f"{tuple(x.shape)} in a batch of {rows}"
            return
        if parts > 1:  # (parts, rows, t, .) -> (rows, parts t, .)
            x, g = (_side_by_side(each, rows, parts) for each in (x, g))
        layer.add(x.to(torch.float32), g.to(torch.float32))

    def clipped_sum(self, clip: float, scales: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Return the sum of the rows' gradients, each shortened to the clip, and forget the rows.

        A row whose gradient is not finite counts as zero.

        Args:
            clip: C, positive.
            scales: (b,); what a row's loss is multiplied by before its gradient counts, such as one over its tokens.

        Returns:
            The sum by name, shape of the weights, for weights that were in the pass; and each row's norm before it was
            shortened, (b,), in float64.

        Raises:
            ConfigError: if a layer does not keep rows apart.
        """
        if self._odd is not None:
            odd = self._odd
            self.forget()
            raise ConfigError(
                f"dp_unit example needs layers that keep rows apart, and one of this model got a tensor of shape "
                f"{odd}; choose target_modules that see whole rows, or dp_unit client"
            )
        norms = [each for layer in self._layers.values() if (each := layer.squared_norms()) is not None]
        if not norms:
            self.forget()
            return {}, scales.new_zeros(0, dtype=torch.float64)
        lengths = torch.stack(norms).sum(dim=0).sqrt() * scales.double()
        usable = lengths.isfinite()
        shortened = (clip * _BELOW / lengths.clamp(min=1e-300)).clamp(max=1.0)
        weights = torch.where(usable, shortened * scales.double(), 0.0).to(torch.float32)
        found = {}
        for name, layer in self._layers.items():
            if (total := layer.weighted_sum(weights, usable)) is not None:
                found[name] = total
        self.forget()
        return found, lengths

    def forget(self) -> None:
        """Forget the rows of the last pass."""
        self._num_rows, self._odd = 0, None
        for layer in self._layers.values():
            layer.clear()


@contextmanager
def row_gradients(model: Any, trained: Mapping[str, torch.nn.Parameter]) -> Iterator[RowGradients]:
    """Watch the trained weights of a model inside the block.

    Args:
        model: a `PeftModel` with LoRA on linear layers, perhaps with cores between the factors
            (`adapters/cored_model.py`).
        trained: the weights that are trained, by the names under which sums are returned.

    Raises:
        ConfigError: if something is trained that is no weight of such a layer, so that rows' gradients are not exact.
    """
    names = {id(parameter): name for name, parameter in trained.items()}
    layers: dict[str, _Layer] = {}
    watched: list[tuple[torch.nn.Module, _Layer, Callable[[Any, Any], torch.Tensor]]] = []
    for place, module in model.named_modules():
        if _NAME in getattr(module, "lora_variant", ()):
            raise ConfigError(
                f"dp_unit example needs plain LoRA, and {place} computes with its factors in another way (DoRA or its "
                "kin); use peft_type lora or rslora, or dp_unit client"
            )
        for factors in (getattr(module, "lora_A", None), getattr(module, "lora_B", None)):
            if not isinstance(factors, torch.nn.ModuleDict) or _NAME not in factors:
                continue
            holder: Any = factors[_NAME]
            if not isinstance(holder, torch.nn.Linear):
                continue
            core = getattr(holder, "core", None)
            for parameter, inner in ((holder.weight, _input), (core, _before_core)):
                name = names.pop(id(parameter), None)
                if name is None:
                    continue
                if parameter is holder.weight and core is not None:
                    raise ConfigError(f"dp_unit example cannot train {name} beside its core; train one of them")
                layers[name] = _Layer(parameter)
                watched.append((holder, layers[name], inner))
    if names:
        raise ConfigError(
            f"dp_unit example clips gradients of LoRA factors on linear layers, and {next(iter(names.values()))} is "
            "trained, too; use peft_type lora or rslora without bias, DoRA, modules_to_save or trained tokens, or "
            "dp_unit client"
        )
    seen = RowGradients(layers)

    def tap(layer: _Layer, inner: Callable[[Any, Any], torch.Tensor]) -> Callable[..., Any]:
        def hook(holder: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
            if not output.requires_grad or not torch.is_grad_enabled():
                return output
            return _Tap.apply(output, inner(holder, inputs[0].detach()), seen, layer)

        return hook

    handles = [holder.register_forward_hook(tap(layer, inner)) for holder, layer, inner in watched]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
        seen.forget()


class _Tap(torch.autograd.Function):
    """The identity of a linear's output, which shows inputs and gradients of the output on the way back."""

    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, x: torch.Tensor, seen: RowGradients, layer: _Layer) -> torch.Tensor:
        ctx.save_for_backward(x)  # as autograd saves: activation checkpointing keeps its savings
        ctx.seen, ctx.layer = seen, layer
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        with torch.autocast(device_type=x.device.type, enabled=False):
            ctx.seen.see(ctx.layer, x, gradients[0])
        return gradients[0], None, None, None


def _input(holder: Any, x: torch.Tensor) -> torch.Tensor:
    return x


@torch.no_grad()
def _before_core(holder: Any, x: torch.Tensor) -> torch.Tensor:
    return linear(x, holder.weight)


def _side_by_side(tensor: torch.Tensor, rows: int, parts: int) -> torch.Tensor:
    return tensor.unflatten(0, (parts, rows)).transpose(0, 1).flatten(1, 2)


def _only(tensor: torch.Tensor, usable: torch.Tensor) -> torch.Tensor:
    """Zeros for rows that do not count: 0 times what is not finite would not be 0."""
    return tensor if bool(usable.all()) else torch.where(usable[:, None, None], tensor, 0.0)
