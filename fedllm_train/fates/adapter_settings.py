"""The fate of every field of the PEFT configs that average over clients, and of TRL's `ModelConfig` on a command line.

What a method cannot work on (another bias, mixed ranks) is refused by the method; here is what no run would honour.
PEFT's other kinds of adapter have no table: `adapters/arithmetic.py` takes those whose saved tensors are the trained
ones. Imports no torch.
"""

from fedllm_train.fates.fate import Elsewhere, Fate, NoEffect, Passed, Refused

__all__ = ["IA3_FATES", "LN_TUNING_FATES", "LORA_FATES", "MODEL_FATES", "PREFIX_TUNING_FATES", "PROMPT_TUNING_FATES"]

_INITIALISED = (
    "leave it out: it goes with an init_lora_weights that changes the base model's own weights, which the finished "
    "adapter would not fit"
)
_CHANGES_BASE = "leave it out: it changes the base model, and the adapter switched off would not be the base"

_OF_ALL: dict[str, Fate] = {
    "task_type": Passed(),
    "peft_type": Passed(),
    "auto_mapping": NoEffect("PEFT writes it where there is no task_type"),
    "peft_version": NoEffect("PEFT writes it"),
    "base_model_name_or_path": Elsewhere("the name of the model that is trained is written into it"),
    "revision": Refused("pass revision= to FederatedTrainer, which loads the base model with it"),
    "inference_mode": Elsewhere("an adapter that is trained is never in inference mode"),
    "modules_to_save": Passed(),
}
_OF_LAYERS: dict[str, Fate] = dict.fromkeys(("target_modules", "exclude_modules"), Passed())
_OF_TOKENS: dict[str, Fate] = dict.fromkeys(
    ("num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers"), Passed()
)

LORA_FATES: dict[str, Fate] = (
    _OF_ALL
    | _OF_LAYERS
    | dict.fromkeys(
        (
            *("r", "lora_alpha", "lora_dropout", "fan_in_fan_out", "bias", "use_rslora", "use_dora", "lora_bias"),
            *("init_lora_weights", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern"),
            *("trainable_token_indices", "target_parameters", "ensure_weight_tying", "runtime_config"),
            *("velora_config", "monteclora_config", "use_bdlora"),
        ),
        Passed(),
    )
    | dict.fromkeys(("loftq_config", "eva_config", "corda_config", "lora_ga_config"), Refused(_INITIALISED))
    | dict.fromkeys(("kasa_config", "layer_replication"), Refused(_CHANGES_BASE))
    | dict.fromkeys(("megatron_config", "megatron_core"), Refused("leave it out: a client trains on a single device"))
    | dict.fromkeys(
        ("use_qalora", "qalora_group_size"), Refused("leave it out: PEFT honours it on a GPTQ base alone", (False,))
    )
    | {
        "alora_invocation_tokens": Refused(
            "leave it out: TRL's trainers do not tell PEFT where the invocation stands, so all tokens would be adapted"
        ),
        "arrow_config": Refused("leave it out: it routes between adapters, and clients train one"),
    }
)
"""Of `LoraConfig`."""

IA3_FATES: dict[str, Fate] = (
    _OF_ALL | _OF_LAYERS | dict.fromkeys(("feedforward_modules", "fan_in_fan_out", "init_ia3_weights"), Passed())
)
"""Of `IA3Config`."""

LN_TUNING_FATES: dict[str, Fate] = _OF_ALL | _OF_LAYERS
"""Of `LNTuningConfig`."""

PROMPT_TUNING_FATES: dict[str, Fate] = (
    _OF_ALL
    | _OF_TOKENS
    | dict.fromkeys(
        ("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"), Passed()
    )
)
"""Of `PromptTuningConfig`."""

PREFIX_TUNING_FATES: dict[str, Fate] = (
    _OF_ALL
    | _OF_TOKENS
    | {
        "init_weights": Passed(),
        "encoder_hidden_size": NoEffect("read with prefix_projection alone"),
        "prefix_projection": Passed(),
    }
)
"""Of `PrefixTuningConfig`; what is projected has no mean, says `adapters/arithmetic.py`."""

_QUANTISED = "models/quantization.py"
MODEL_FATES: dict[str, Fate] = {
    "model_name_or_path": Refused("it is called --model here"),
    "model_revision": Elsewhere("the revision of the base model"),
    **dict.fromkeys(("dtype", "attn_implementation"), Elsewhere("models/base_settings.py")),
    "use_peft": Elsewhere("models/peft_kinds.py: an adapter is trained unless --full-finetuning is given"),
    **dict.fromkeys(
        (
            *("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters"),
            *("lora_modules_to_save", "lora_task_type", "use_rslora", "use_dora"),
        ),
        Passed(),
    ),
    **dict.fromkeys(("load_in_8bit", "load_in_4bit"), Elsewhere(_QUANTISED)),
    **dict.fromkeys(("bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage"), Elsewhere(_QUANTISED)),
}
"""Of `ModelConfig`, whose LoRA flags become a `LoraConfig`."""
