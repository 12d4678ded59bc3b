"""The shape of a base model, for plans and for the simulated clock: without weights, or from a model in memory.

`shape_of_folder_or_id` reads `config.json` and, where they are, the headers of safetensors files; of a model on the
Hub only those are fetched, a few kilobytes, and nothing where its files are in the cache. `shape_of_model` reads a
loaded model. Both give the same `ModelShape`. Nothing here imports torch but what is given a model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.model_shape import ModelShape
from fedllm_train.models.adapter_shapes import AdapterSettings, adapter_shapes
from fedllm_train.models.architectures import ARCHITECTURES, tensors_of_config
from fedllm_train.models.base_tensors import BaseTensors, Shape, header_shapes, tensors_of_headers, tensors_of_model
from fedllm_train.models.training_shape import training_shape

__all__ = ["base_tensors", "shape_of_folder_or_id", "shape_of_model"]


@dataclass(frozen=True)
class _Found:
    """What is known of a model before it is loaded."""

    config: Mapping[str, Any]
    shapes: Mapping[str, Shape] | None


def shape_of_folder_or_id(
    name: str, adapter: AdapterSettings | None = None, *, revision: str | None = None
) -> ModelShape:
    """Return the shape of a model that is named and not loaded.

    Args:
        name: a folder, a `config.json`, or a Hub id.
        adapter: what is trained; by default a LoRA of rank 8 on all linear modules.
        revision: of a Hub id.

    Raises:
        ConfigError: if there is no such model, or its files do not tell.
    """
    tensors = base_tensors(name, revision=revision)
    return training_shape(tensors, adapter_shapes(tensors, adapter or AdapterSettings()))


def shape_of_model(model: Any, adapter: AdapterSettings | None = None) -> ModelShape:
    """Return the shape of a loaded model: a causal language model, or PEFT's around one.

    Args:
        model: what is trained in it takes a gradient, unless an adapter is given.
        adapter: what will be trained in it.
    """
    if adapter is not None:
        tensors = _tensors_below(model)
        return training_shape(tensors, adapter_shapes(tensors, adapter))
    trained = {
        name.replace(".default", ""): tuple(parameter.shape)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return training_shape(_tensors_below(model), trained)


def base_tensors(name: str, *, revision: str | None = None) -> BaseTensors:
    """Return names and shapes of a base model's parameters.

    Args:
        name: a folder, a `config.json`, or a Hub id.
        revision: of a Hub id.

    Raises:
        ConfigError: if there is no such model, or its files do not tell.
    """
    found = _find(name, revision)
    known = tensors_of_config(found.config, where=name)
    if known is not None:
        _check_same(known, found.shapes or {}, name, is_quantised="quantization_config" in found.config)
        return known
    if found.shapes is None:
        raise ConfigError(
            f"model {name!r} is a {found.config.get('model_type')!r}, whose modules its config.json does not tell"
            f"{_why_not(found.config)}; give the folder of its weights (safetensors), or a usual model of "
            f"{', '.join(ARCHITECTURES)}"
        )
    return tensors_of_headers(found.shapes, found.config, where=name)


def _why_not(config: Mapping[str, Any]) -> str:
    """What sets a model of a known architecture apart."""
    made = ARCHITECTURES.get(str(config.get("model_type")))
    set_ = [] if made is None else [each for each in made.others if config.get(each)]
    return f" with {' and '.join(set_)}" if set_ else ""


def _tensors_below(model: Any) -> BaseTensors:
    """The base's parameters, also where PEFT has put an adapter into its modules."""
    if not hasattr(model, "peft_config"):
        return tensors_of_model(model)
    whole = tensors_of_model(model.get_base_model())
    # A module with LoRA beside it holds the base's own as `base_layer`, and the factors are linear modules, too.
    linears = {
        module.removesuffix(".base_layer"): shape
        for module, shape in whole.linears.items()
        if ".lora_" not in module and ".modules_to_save." not in module
    }
    parameters = {
        name.replace(".base_layer.", "."): shape for name, shape in whole.parameters.items() if ".lora_" not in name
    }
    return replace(whole, linears=linears, head=whole.head.removesuffix(".base_layer"), parameters=parameters)


def _check_same(known: BaseTensors, shapes: Mapping[str, Shape], name: str, *, is_quantised: bool) -> None:
    """Refuse weights that are not those of the config: a run could not load them either."""
    if is_quantised:  # packed weights have shapes of their own
        return
    for tensor, shape in known.parameters.items():
        if tensor in shapes and shapes[tensor] != shape:
            raise ConfigError(
                f"model {name!r}: its weights have {tensor} of {shapes[tensor]}, and its config.json says {shape}; "
                "they are not one model's, so fetch both once more"
            )


def _find(name: str, revision: str | None) -> _Found:
    place = Path(name)
    if place.is_dir():
        return _Found(_config(place / "config.json", name), header_shapes(place))
    if place.is_file():
        return _Found(_config(place, name), None)
    return _on_hub(name, revision)


def _on_hub(name: str, revision: str | None) -> _Found:
    from fedllm_eval.policy.base_identity import snapshot_folder
    from fedllm_eval.policy.locate import HUB_ID

    if not HUB_ID.fullmatch(name):
        raise ConfigError(
            f"model {name!r} is neither a folder here nor a Hub id; give a folder with config.json and safetensors, "
            "a config.json, or a Hub id"
        )
    cached = snapshot_folder(name, revision)
    if cached is not None:
        return _Found(_config(cached / "config.json", name), _cached_shapes(cached))
    from huggingface_hub import get_safetensors_metadata, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, NotASafetensorsRepoError, SafetensorsParsingError

    try:
        config = _config(Path(hf_hub_download(name, "config.json", revision=revision)), name)
    except (OSError, HfHubHTTPError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"the config.json of model {name!r} cannot be fetched ({str(error).splitlines()[0][:160]}); give the "
            "model's folder, or its config.json"
        ) from error
    try:
        files = get_safetensors_metadata(name, revision=revision).files_metadata.values()
    except (OSError, HfHubHTTPError, NotASafetensorsRepoError, SafetensorsParsingError):
        return _Found(config, None)
    return _Found(config, {name: tuple(each.shape) for file in files for name, each in file.tensors.items()})


def _cached_shapes(folder: Path) -> Mapping[str, Shape] | None:
    """The headers in a snapshot of the cache, which may hold a part of the files alone."""
    try:
        return header_shapes(folder)
    except ConfigError:
        return None


def _config(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"model {name!r} cannot be planned with (it holds no config.json); give a folder with config.json and "
            "safetensors, a config.json, or a Hub id"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no config.json of a model ({error}); fetch it once more") from error
    if not isinstance(content, dict) or "model_type" not in content:
        raise ConfigError(f"{path} is no config.json of a model (it names no model_type); give another file")
    return content
