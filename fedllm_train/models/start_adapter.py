"""What makes an adapter one that can be trained: its settings, or the trained adapter that a run starts from.

PEFT takes settings that train nothing (`inference_mode=True`, which is what `from_pretrained` returns), that wrap the
model for another task (a classifier's head), or that rewrite the base's weights when they are loaded. Here they are
set right on a copy or refused. Prompt and prefix tuning, which PEFT loads for inference alone, are loaded to be
trained on.
"""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
from peft import PeftConfig, PeftModel, PeftType, TaskType

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.adapter_fit import check_leaves_base_alone, check_loaded, without_warnings_about_keys
from fedllm_eval.policy.base_identity import BaseIdentity, check_same_base, recorded_base

__all__ = ["adapter_folder", "check_found", "check_trains", "load_start_adapter", "trainable_config"]

_LEAVES_BASE_ALONE = ("gaussian", "orthogonal")
_TABLES = (PeftType.PROMPT_TUNING, PeftType.PREFIX_TUNING)
"""Virtual tokens that are saved as they are trained."""


def trainable_config(config: PeftConfig) -> PeftConfig:
    """Return an adapter's settings, which may be changed here, such that what they describe is trained.

    Args:
        config: a copy of the user's.

    Raises:
        ConfigError: if it is for another task, or may rewrite the base model's weights.
    """
    if config.task_type not in (None, TaskType.CAUSAL_LM):
        task = getattr(config.task_type, "value", config.task_type)
        raise ConfigError(
            f"task_type={task!r} wraps the model for another task than to write text; use task_type='CAUSAL_LM'"
        )
    initialisation = getattr(config, "init_lora_weights", True)
    if not isinstance(initialisation, bool) and initialisation not in _LEAVES_BASE_ALONE:
        raise ConfigError(
            f"init_lora_weights={initialisation!r} may change the base model's own weights, and the finished "
            f"adapter would not fit the base it names; use True, False or one of {', '.join(_LEAVES_BASE_ALONE)}"
        )
    # Without a task PEFT would leave virtual tokens out.
    config.task_type = TaskType.CAUSAL_LM
    config.inference_mode = False
    return config


def check_found(base: Any, config: PeftConfig) -> None:
    """Refuse names in a fresh adapter's settings that no module of the base has: PEFT ignores them in silence.

    Args:
        base: the model that the adapter is put on.
        config: the adapter's settings, as the user gave them.

    Raises:
        ConfigError: naming the setting and the first such name.
    """
    modules = [name for name, _ in base.named_modules()]
    for setting in ("target_modules", "modules_to_save"):
        names = getattr(config, setting, None) or ()
        # One text is a pattern or a shorthand such as all-linear, of which PEFT says itself if it finds nothing.
        for name in () if isinstance(names, str) else sorted(names):
            if not any(f".{module}".endswith(f".{name}") for module in modules):
                raise _not_found(setting, name, base)
    for setting in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(config, setting, None) or {}:
            try:
                is_found = any(re.match(rf"(.*\.)?({pattern})$", module) for module in modules)
            except re.error as error:
                raise ConfigError(f"{setting} has {pattern!r}, which is no pattern ({error}); mend it") from error
            if not is_found:
                raise _not_found(setting, pattern, base)


def adapter_folder(adapter: str) -> str:
    """Return where the PEFT files of a run folder, a PEFT folder or a Hub id lie."""
    inside = Path(adapter) / "adapter"
    return str(inside) if (inside / "adapter_config.json").is_file() else adapter


def load_start_adapter(base: Any, adapter: str, identity: BaseIdentity) -> PeftModel:
    """Return a base model with a trained adapter named "default", to be trained on.

    Args:
        base: the base model, changed in place.
        adapter: a run folder, a PEFT folder or a Hub id.
        identity: what is known about the base.

    Raises:
        ConfigError: if it cannot be loaded, does not fit, or is known to have been trained on another base.
    """
    folder = adapter_folder(adapter)
    try:
        config = trainable_config(PeftConfig.from_pretrained(folder))
        check_same_base(_recorded(folder, config), identity, adapter=adapter)
        check_leaves_base_alone(base, config, folder)
        tokens = config.is_prompt_learning
        if tokens and (config.peft_type not in _TABLES or getattr(config, "prefix_projection", False)):
            raise ConfigError(
                f"adapter {adapter!r} is a {type(config).__name__} whose file holds what its encoder made, not the "
                "encoder, so it cannot be trained on; start from a PromptTuningConfig, or a PrefixTuningConfig "
                "without prefix_projection"
            )
        with without_warnings_about_keys():
            model = PeftModel.from_pretrained(base, folder, config=config, is_trainable=not tokens)
    except ConfigError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ConfigError(
            f"adapter {adapter!r} cannot be loaded on this base model ({_first_line(error)}); give a run folder, a "
            "folder with adapter_config.json, or a Hub id, trained on the same base"
        ) from error
    if tokens:
        model.peft_config["default"].inference_mode = False
        model.prompt_encoder["default"].requires_grad_(True)
    check_loaded(model, "default", folder)
    return model


def check_trains(model: Any) -> None:
    """Refuse a model in which nothing would be trained.

    Args:
        model: as it will be trained.

    Raises:
        ConfigError: if no parameter takes a gradient.
    """
    if not any(parameter.requires_grad and parameter.numel() for parameter in model.parameters()):
        config = getattr(model, "peft_config", {}).get("default")
        raise ConfigError(
            f"{type(config or model).__name__} leaves 0 parameters to train; check its target modules and layers"
        )


def _recorded(folder: str, config: PeftConfig) -> BaseIdentity | None:
    """What is known of the base of an adapter; of one on the Hub, by the files beside it."""
    if Path(folder).is_dir():
        return recorded_base(Path(folder))
    try:
        beside = Path(hf_hub_download(folder, "config.yaml")).parent
        if (known := recorded_base(beside)) is not None:
            return known
    except (EntryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError):
        pass  # an adapter that no run of ours made
    return BaseIdentity(name=config.base_model_name_or_path, revision=config.revision)


def _not_found(setting: str, name: str, base: Any) -> ConfigError:
    return ConfigError(
        f"{setting} has {name!r}, and no module of this {type(base).__name__} is called so; look at "
        "model.named_modules(), or leave it out"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
