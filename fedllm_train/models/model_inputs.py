"""A model and an adapter as Python users pass them: paths, models in memory, PEFT models and their settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import (
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.shifted_model import is_shifted
from fedllm_train.fates.adapter_settings import (
    IA3_FATES,
    LN_TUNING_FATES,
    LORA_FATES,
    PREFIX_TUNING_FATES,
    PROMPT_TUNING_FATES,
)
from fedllm_train.fates.fate import Fate, check_fates
from fedllm_train.field_types import kind_of, refuse_text_for_numbers

__all__ = ["PEFT_FATES", "adapter_config", "model_and_adapter"]

PEFT_FATES: dict[type[PeftConfig], dict[str, Fate]] = {
    LoraConfig: LORA_FATES,
    IA3Config: IA3_FATES,
    LNTuningConfig: LN_TUNING_FATES,
    PromptTuningConfig: PROMPT_TUNING_FATES,
    PrefixTuningConfig: PREFIX_TUNING_FATES,
}
"""Config of PEFT -> what becomes of its fields."""


def model_and_adapter(model: Any, peft_config: Any, adapter: Any) -> tuple[Any, PeftConfig | None]:
    """Return the model to load or to train, and the settings of a fresh adapter.

    Args:
        model: folder, Hub id, or a model in memory; a `PeftModel`'s own adapter is trained.
        peft_config: a fresh adapter's settings, or None.
        adapter: where a saved adapter lies, or None.

    Raises:
        ConfigError: if one of them has another type, or they contradict one another.
    """
    config = adapter_config(peft_config)
    if adapter is not None and not isinstance(adapter, str | Path):
        raise ConfigError(f"adapter is {kind_of(adapter)}; name a run folder, a PEFT folder or a Hub id")
    if isinstance(model, Path):
        return str(model), config
    if isinstance(model, PeftModel):
        names = list(model.peft_config)
        if names != ["default"]:
            raise ConfigError(
                f"the PeftModel has the adapters {', '.join(names)}, and a run trains one called default; load that "
                "one alone, with PeftModel.from_pretrained(base, folder)"
            )
        if is_shifted(model):
            raise ConfigError(
                "the PeftModel is that of a finished run which added to the base's weights, and a new adapter would "
                "mean nothing without that; pass the base, loaded again, with adapter= and the run's folder"
            )
        own = model.peft_config["default"]
        if adapter is not None or (config is not None and config is not own and config.to_dict() != own.to_dict()):
            raise ConfigError(
                f"the model is a PeftModel, whose adapter is trained, and {'adapter' if adapter else 'peft_config'} "
                "is given too; leave one out, or pass the base model (model.unload())"
            )
        adapter_config(own, name="the PeftModel's peft_config")
        return model, None
    if isinstance(model, PreTrainedModel):
        if getattr(model, "_hf_peft_config_loaded", False):
            raise ConfigError(
                "the model carries an adapter that add_adapter or load_adapter put on it; pass the plain model, with "
                "peft_config= for a new adapter or adapter= for a saved one"
            )
        if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
            raise ConfigError(
                "the model has layers of an adapter in it already: get_peft_model, or the trainer of another run, put "
                "them there, and the new adapter would be trained on top of them; load the model again for every run, "
                "or pass the PeftModel itself to train its adapter on"
            )
        if not model.can_generate():
            raise ConfigError(
                f"model is {kind_of(model)}, which writes no text; pass a causal language model "
                "(AutoModelForCausalLM.from_pretrained)"
            )
        return model, config
    if isinstance(model, str) and model:
        return model, config
    raise ConfigError(
        f"model is {kind_of(model)}; pass a folder, a Hub id, or a causal language model of transformers "
        "(AutoModelForCausalLM.from_pretrained) or PEFT"
    )


def adapter_config(config: Any, *, name: str = "peft_config") -> PeftConfig | None:
    """Return an adapter's settings, checked; those of a `PeftModel` come as a dict of one.

    Raises:
        ConfigError: for something else, several adapters, or a field that cannot be honoured.

    >>> adapter_config({"default": LoraConfig(r=3)}).r
    3
    """
    if isinstance(config, Mapping) and config and all(isinstance(each, PeftConfig) for each in config.values()):
        if len(config) > 1:
            raise ConfigError(f"{name} has the adapters {', '.join(config)}; pass the settings of one")
        config = next(iter(config.values()))
    if config is None:
        return None
    if not isinstance(config, PeftConfig):
        raise ConfigError(f"{name} is {kind_of(config)}; pass a PEFT config such as LoraConfig(r=8, lora_alpha=16)")
    refuse_text_for_numbers(config)
    kind = next((each for each in type(config).__mro__ if each in PEFT_FATES), None)
    if kind is not None and type(config) is kind:
        check_fates(config, PEFT_FATES[kind], default=kind())
    return config
