"""A model that computes with a shift of its base weights (`adapters/base_shift.py`), and its adapter on disk."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch.nn.functional import linear

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Parts, save_adapter
from fedllm_train.adapters.base_shift import PART, finished_factors
from fedllm_train.adapters.lora import factor_names

__all__ = ["check_shiftable", "is_shifted", "save_finished_adapter", "shifted"]

_NAME = "default"


@contextmanager
def shifted(model: PeftModel, shift: Mapping[str, torch.Tensor] | None) -> Iterator[None]:
    """Let the model compute with a shift inside the block, wherever its trained adapter is switched on."""
    handles = []
    try:
        for name, tensor in (shift or {}).items():
            module, kind = name.rsplit(".", 1)
            if kind == "right":
                continue
            layer = model.get_submodule(module)
            device = layer.lora_A[_NAME].weight.device
            maps = [tensor] if kind == "matrix" else [shift[f"{module}.right"], tensor]
            maps = [each.to(device=device, dtype=torch.float32) for each in maps]
            handles.append(layer.register_forward_hook(partial(_add, maps)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def is_shifted(model: PeftModel) -> bool:
    """Return whether a model computes with a shift at the moment."""
    hooks = (hook for module in model.modules() for hook in module._forward_hooks.values())
    return any(isinstance(hook, partial) and hook.func is _add for hook in hooks)


def check_shiftable(model: PeftModel, method: str) -> None:
    """Refuse an adapter for which a shift of the base weights is not defined.

    Raises:
        ConfigError: if a LoRA module is no plain linear layer.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer) and _NAME in layer.r:
            factor = layer.lora_A[_NAME].weight if _NAME in layer.lora_A else torch.empty(0)
            if factor.ndim != 2 or factor.shape[0] != layer.r[_NAME]:
                raise ConfigError(
                    f"strategy {method} adds to the weights of linear layers, and the adapter sits on {name}, a "
                    f"{type(layer.get_base_layer()).__name__}; choose target_modules that are linear layers"
                )


def save_finished_adapter(model: PeftModel, state: Parts, folder: Path) -> None:
    """Write what a server's state learned as a plain PEFT folder for the original base.

    Modules have ranks of their own (`rank_pattern`), and `alpha_pattern` keeps each module's scaling as it was.
    """
    adapter = finished_factors(state["adapter"], state.get(PART, {}))
    config: Any = deepcopy(model.peft_config[_NAME])
    config.inference_mode = True
    config.use_rslora = False  # the scalings are spelled out
    config.rank_pattern, config.alpha_pattern = {}, {}
    for module, (a, _) in factor_names(adapter).items():
        rank = adapter[a].shape[0]
        # PEFT takes keys for regular expressions of a path's end; the anchor makes this one the whole path.
        key = "^" + module.removeprefix("base_model.model.")
        config.rank_pattern[key] = rank
        config.alpha_pattern[key] = model.get_submodule(module).scaling[_NAME] * rank
    save_adapter(adapter, folder / "adapter_model.safetensors")
    config.save_pretrained(str(folder))


def _add(maps: Sequence[torch.Tensor], layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
    if layer.disable_adapters or _NAME not in layer.active_adapters:
        return output
    x = inputs[0].to(torch.float32)
    for each in maps:
        x = linear(x, each)
    return output + (x * layer.scaling[_NAME]).to(output.dtype)
