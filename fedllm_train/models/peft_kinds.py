"""The kinds of adapter that the command offers, as PEFT's own configs; Python takes any `PeftConfig` that averages.

Averaging means averaging parameters: LoRA's A and B apart (or as a LoRA-aware method says), DoRA's magnitudes, the
scales of IA3 (Liu et al. 2022, arXiv 2205.05638), the weights of layer norms, the embeddings of virtual tokens (prompt
tuning, Lester et al. 2021, arXiv 2104.08691; prefix tuning, Li and Liang 2021, arXiv 2101.00190). What PEFT saves in
another form than it trains, such as prefix tuning with a projection, has no such mean: `adapters/arithmetic.py`
refuses it.
"""

from collections.abc import Collection
from dataclasses import fields

from peft import IA3Config, LNTuningConfig, PeftConfig, PrefixTuningConfig, PromptTuningConfig
from trl import ModelConfig, get_peft_config

from fedllm_data.errors import ConfigError
from fedllm_train.config import FederatedConfig, RunInput
from fedllm_train.flag_names import flag_of

__all__ = ["check_given", "peft_config"]

_OF_LORA = ("lora", "dora", "rslora")
_OF_TOKENS = ("prompt_tuning", "prefix_tuning")
_LORA_FLAGS = frozenset({each.name for each in fields(ModelConfig) if each.name.startswith("lora_")}) | {
    *("use_dora", "use_rslora")
}
_OF_4BIT = ("bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage")


def check_given(run: RunInput, federated: FederatedConfig, model: ModelConfig, given: Collection[str]) -> None:
    """Refuse flags that nothing would read, or that contradict one another.

    Args:
        run: what the run starts from.
        federated: the settings of the federation.
        model: TRL's settings of model and adapter.
        given: names of the flags, and of a file's settings, that were given.

    Raises:
        ConfigError: naming the flag.
    """
    names = sorted(_LORA_FLAGS & set(given))
    lora = flag_of(names[0]) if names else None
    kind = run.peft_type
    of_adapter = lora or ("--peft-type" if "peft_type" in given else None)
    if run.adapter is not None and of_adapter:
        raise ConfigError(f"{of_adapter} is given, but adapter {run.adapter!r} brings its own settings; drop it")
    if federated.full_finetuning and of_adapter:
        raise ConfigError(f"{of_adapter} is given, but full_finetuning trains no adapter; drop one")
    if kind not in _OF_LORA and (odd := [name for name in names if (kind, name) != ("ia3", "lora_target_modules")]):
        raise ConfigError(f"{flag_of(odd[0])} is given, but --peft-type {kind} has no LoRA factors; drop it")
    if "num_virtual_tokens" in given and kind not in _OF_TOKENS:
        raise ConfigError(f"num_virtual_tokens is given, but --peft-type {kind} has none; drop it")
    if run.num_virtual_tokens < 1:
        raise ConfigError(f"num_virtual_tokens is {run.num_virtual_tokens}; it must be at least 1")
    for name, of_kind in (("use_dora", "dora"), ("use_rslora", "rslora")):
        if name in given and not getattr(model, name) and kind == of_kind:
            raise ConfigError(f"{flag_of(name)} False contradicts --peft-type {kind}; drop one")
    if "use_peft" in given and model.use_peft == federated.full_finetuning:
        raise ConfigError(
            "--use-peft trains an adapter, and full_finetuning is given; drop one"
            if model.use_peft
            else "--use-peft False asks for all weights to be trained; use --full-finetuning"
        )
    if (odd := [name for name in _OF_4BIT if name in given]) and not model.load_in_4bit:
        raise ConfigError(f"{flag_of(odd[0])} is given without --load-in-4bit, so nothing looks at it; give both")


def peft_config(given: RunInput, model: ModelConfig) -> PeftConfig:
    """Return the adapter's settings.

    Args:
        given: has the kind of adapter.
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
