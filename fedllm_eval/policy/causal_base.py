"""Base models as they are loaded: a decoder-only causal language model with all its weights, or none at all.

transformers fills in what a checkpoint lacks at random and says so in a log line: a checkpoint without its head gets
another one at every load. It also loads masked language models (BERT, RoBERTa, XLNet), which see what comes after, and
the decoder of a sequence-to-sequence model (BART) without its encoder. Training and scoring refuse all of these alike.
Imports torch and transformers when a model is loaded, not before.
"""

from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.threads import fit_threads

__all__ = ["check_causal", "load_causal_base"]

_TOKENS = 4
"""Of the two sequences that are compared: they differ in the last one."""


def load_causal_base(name: Any, **settings: Any) -> Any:
    """Return a base model, loaded by transformers' `AutoModelForCausalLM`.

    Args:
        name: a folder or Hub id.
        settings: further ones of `from_pretrained`.

    Raises:
        ConfigError: if the checkpoint lacks weights, or is no decoder-only causal language model.
        OSError: or another error of transformers, if it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **settings)
    model, info = loaded
    fit_threads(model.num_parameters())
    check_causal(model, str(name))
    # Tied weights are in no checkpoint, and transformers does not call them missing.
    if missing := sorted(info["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConfigError(
            f"model {str(name)!r} lacks weights of a {type(model).__name__} ({missing[0]}{more}), which would be "
            "drawn at random at every load; name a checkpoint with its language modelling head"
        )
    return model


def check_causal(model: Any, name: str | None) -> None:
    """Refuse a model that is no decoder-only causal language model.

    Besides what its settings say, the model is asked: the logits of a token must not change with the tokens after it.

    Args:
        model: a `PreTrainedModel`.
        name: as it was given; None for a model made in memory.

    Raises:
        ConfigError: with the reason.
    """
    import torch
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

    sequence_to_sequence = set(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values())
    made_as = set(getattr(model.config, "architectures", None) or ())
    if getattr(model.config, "is_encoder_decoder", False) or made_as & sequence_to_sequence:
        raise _refused(model, name, "it is a sequence-to-sequence model, of which the encoder would be left out")
    text = model.config.get_text_config()
    num_words = getattr(text, "vocab_size", 0)
    tokens = torch.arange(_TOKENS, device=model.device)[None] % max(num_words - 1, 1)
    other = tokens.clone()
    other[0, -1] += 1
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logits = [getattr(model(input_ids=each), "logits", None) for each in (tokens, other)]
    finally:
        model.train(training)
    first, second = logits
    if first is None or second is None or first.ndim != 3 or first.shape[-1] < num_words:
        raise _refused(model, name, "it gives no probabilities of the next word")
    before, after = first[:, :-1].float(), second[:, :-1].float()
    # Experts may be computed in other batches, which rounds otherwise; what leaks through attention is far more.
    rounding = min(256 * torch.finfo(first.dtype).eps, 0.02)
    if float((before - after).square().mean().sqrt()) > rounding * float(before.square().mean().sqrt()):
        raise _refused(model, name, "what it says of a token depends on the tokens after it, as in BERT")


def _refused(model: Any, name: str | None, reason: str) -> ConfigError:
    called = "the model" if name is None else f"model {name!r}"
    return ConfigError(
        f"{called} ({type(model).__name__}) is no decoder-only causal language model: {reason}; name one such as "
        "Llama, Qwen or SmolLM"
    )
