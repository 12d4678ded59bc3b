"""The kinds of adapter that the command offers, as PEFT's own configs; Python takes any `PeftConfig` that averages.

Averaging means averaging parameters: LoRA's A and B apart (or as a LoRA-aware method says), DoRA's magnitudes, the
scales of IA3 (Liu et al. 2022, arXiv 2205.05638), the weights of layer norms, the embeddings of virtual tokens (prompt
tuning, Lester et al. 2021, arXiv 2104.08691; prefix tuning, Li and Liang 2021, arXiv 2101.00190). What PEFT saves in
another form than it trains, such as prefix tuning with a projection, has no such mean: `adapters/arithmetic.py`
refuses it.
"""

from collections.abc import Sequence

from peft import IA3Config, LNTuningConfig, PeftConfig, PrefixTuningConfig, PromptTuningConfig
from trl import ModelConfig, get_peft_config

from fedllm_data.errors import ConfigError
from fedllm_train.config import FederatedConfig, RunInput

__all__ = ["check_given", "peft_config"]

_OF_LORA = ("lora", "dora", "rslora")
_OF_TOKENS = ("prompt_tuning", "prefix_tuning")
_LORA_FLAGS = ("--lora_", "--lora-", "--use_dora", "--use-dora", "--use_rslora", "--use-rslora")
_TARGETS = ("--lora_target_modules", "--lora-target-modules")


def check_given(given: RunInput, federated: FederatedConfig, argv: Sequence[str]) -> None:
    """Refuse flags that would not be looked at.

    Args:
        given: what the run starts from.
        federated: the settings of the federation.
        argv: the flags as they were typed.

    Raises:
        ConfigError: naming the flag.
    """
    lora = next((flag for flag in argv if flag.startswith(_LORA_FLAGS)), None)
    kind = given.peft_type
    if given.adapter is not None and (lora or kind != "lora"):
        raise ConfigError(
            f"{lora or '--peft_type'} is given, but adapter {given.adapter!r} brings its own settings; drop it"
        )
    if federated.full_finetuning and (lora or kind != "lora"):
        raise ConfigError(f"{lora or '--peft_type'} is given, but full_finetuning trains no adapter; drop one")
    if kind not in _OF_LORA and lora and not (kind == "ia3" and lora.startswith(_TARGETS)):
        raise ConfigError(f"{lora} is given, but --peft_type {kind} has no LoRA factors; drop it")
    if given.num_virtual_tokens != RunInput.num_virtual_tokens and kind not in _OF_TOKENS:
        raise ConfigError(f"num_virtual_tokens is given, but --peft_type {kind} has none; drop it")
    if given.num_virtual_tokens < 1:
        raise ConfigError(f"num_virtual_tokens is {given.num_virtual_tokens}; it must be at least 1")


def peft_config(given: RunInput, model: ModelConfig) -> PeftConfig:
    """Return the adapter's settings.

    Args:
        given: with the kind of adapter.
        model: TRL's settings, with the LoRA flags.

    >>> given = RunInput(data="d", model="m", peft_type="prompt_tuning", num_virtual_tokens=4)
    >>> peft_config(given, ModelConfig()).num_virtual_tokens
    4
    """
    kind = given.peft_type
    if kind == "ia3":
        # PEFT knows the modules of common architectures; others must be named.
        return IA3Config(task_type="CAUSAL_LM", target_modules=model.lora_target_modules)
    if kind == "ln_tuning":
        return LNTuningConfig(task_type="CAUSAL_LM")
    if kind == "prompt_tuning":
        return PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=given.num_virtual_tokens)
    if kind == "prefix_tuning":
        return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=given.num_virtual_tokens)
    model.use_peft = True
    model.use_dora = model.use_dora or kind == "dora"
    model.use_rslora = model.use_rslora or kind == "rslora"
    targets = model.lora_target_modules or "all-linear"
    if isinstance(targets, str) and targets.isidentifier():
        # TRL 1.16 unpacks a list of one, and PEFT takes a bare name for a regular expression of the whole path.
        targets = [targets]
    model.lora_target_modules = targets
    return get_peft_config(model)
