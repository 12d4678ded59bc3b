"""A model that computes with a trained core between its LoRA factors (`adapters/lora_core.py`)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import linear

from fedllm_train.adapters.lora_core import dense_core, is_r, module_of_core

__all__ = ["cored"]

_NAME = "default"


@contextmanager
def cored(
    model: Any, cores: Mapping[str, torch.Tensor], trains: Callable[[str], bool] | None = None
) -> Iterator[dict[str, torch.nn.Parameter]]:
    """Let the trained adapter of a model compute with cores for a while; yield them, by name, as its parameters.

    Args:
        model: a `PeftModel` with LoRA on linear layers; any model if there are no cores.
        cores: the R of some modules, each perhaps in heads with their scales.
        trains: says by name whether a core is trained; by default all are.
    """
    parameters, handles = {}, []
    held: list[tuple[torch.nn.Module, str]] = []
    try:
        for name, tensor in cores.items():
            holder = model.get_submodule(module_of_core(name)).lora_A[_NAME]
            value = tensor.detach().to(device=holder.weight.device, copy=True)
            parameters[name] = torch.nn.Parameter(value, requires_grad=trains is None or trains(name))
            kind = "core" if is_r(name) else "head_scale"
            holder.register_parameter(kind, parameters[name])
            held.append((holder, kind))
            if kind == "core":
                handles.append(holder.register_forward_hook(_through_core))
        yield parameters
    finally:
        for handle in handles:
            handle.remove()
        for holder, kind in held:
            delattr(holder, kind)


def _through_core(holder: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return linear(output, dense_core(holder.core, getattr(holder, "head_scale", None)))
