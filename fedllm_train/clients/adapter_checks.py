"""Adapters and tokenizers that these TRL settings would train wrongly, or not at all: refused before the first round.

TRL 1.16 computes log-probabilities from `lm_head.weight` itself, so what an adapter adds to the head never counts; it
packs rows one behind the other, so virtual tokens reach the first one alone; and it needs a token to pad with.
"""

from typing import Any

from peft import PeftModel, PeftType
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import TrainableTokensWrapper

from fedllm_data.errors import ConfigError
from fedllm_train.clients.objectives import ClientArgs, objective_of
from fedllm_train.models.adapter_shapes import on_head

__all__ = ["check_adapter", "check_tokenizer"]


def check_adapter(args: ClientArgs, model: Any) -> None:
    """Refuse an adapter that would not do what these settings ask for.

    The base's own biases cannot be switched off for a reference; a prefix is lost where activations are checkpointed.

    Args:
        args: TRL's settings.
        model: a `PeftModel`, or a plain model, which passes.

    Raises:
        ConfigError: naming the setting.
    """
    if not isinstance(model, PeftModel):
        return
    config: Any = model.peft_config["default"]
    if config.peft_type == PeftType.PREFIX_TUNING and args.activation_checkpointing:
        raise ConfigError(
            "activation_checkpointing is on, and transformers drops the cache there, in which prefix tuning keeps its "
            "prefix; pass activation_checkpointing=False"
        )
    joined = [name for name in ("packing", "padding_free") if getattr(args, name, False)]
    if config.is_prompt_learning and joined:
        raise ConfigError(
            f"{joined[0]} joins rows into one sequence, and the virtual tokens of {type(config).__name__} would stand "
            "before the first of them alone; leave it out"
        )
    bias = getattr(config, "bias", "none")
    if objective_of(args).name != "sft" and bias != "none":
        raise ConfigError(
            f"bias={bias!r} trains the base model's own biases, so that the reference would move with the policy; "
            "leave it out, or train with SFT"
        )
    if isinstance(model.get_output_embeddings(), TrainableTokensWrapper | BaseTunerLayer):
        raise _on_head(config)


def _on_head(config: Any) -> ConfigError:
    if getattr(config, "trainable_token_indices", None) or getattr(config, "token_indices", None):
        return ConfigError(
            f"this {type(config).__name__} trains tokens of embeddings that are also the weights of lm_head, and TRL "
            "computes log-probabilities from those weights alone, without what is trained; use "
            "modules_to_save=['embed_tokens', 'lm_head'] instead"
        )
    tied = " and ensure_weight_tying" if getattr(config, "ensure_weight_tying", False) else ""
    return ConfigError(on_head(type(config).__name__, tied))


def check_tokenizer(args: ClientArgs, tokenizer: Any) -> None:
    """Refuse a tokenizer that has nothing to pad a batch with.

    Args:
        args: TRL's settings.
        tokenizer: the model's tokenizer.

    Raises:
        ConfigError: naming the token.
    """
    pad = getattr(args, "pad_token", None) or tokenizer.pad_token or tokenizer.eos_token
    if pad is None:
        raise ConfigError(
            "the tokenizer has neither a padding token nor an end-of-sequence token, so that rows of different "
            "lengths cannot share a batch; set tokenizer.pad_token and save it beside the model"
        )
    if pad not in tokenizer.get_vocab():
        raise ConfigError(
            f"the padding token {pad!r} is not in the tokenizer's vocabulary; set tokenizer.pad_token to one that is"
        )
