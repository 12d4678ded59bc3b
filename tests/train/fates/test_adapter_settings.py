"""Every field of PEFT's configs and of ModelConfig has a fate; flags reach the adapter and the base model."""

import copy
from dataclasses import fields
from itertools import pairwise

import pytest
import torch
from peft import IA3Config, LNTuningConfig, LoraConfig, PrefixTuningConfig, PromptTuningConfig
from transformers import AutoModelForCausalLM
from trl import ModelConfig, SFTConfig

from fedllm_data.errors import ConfigError
from fedllm_train import FederatedConfig, FederatedTrainer
from fedllm_train.arguments import parse_run_arguments
from fedllm_train.fates.adapter_settings import MODEL_FATES
from fedllm_train.fates.fate import Elsewhere, NoEffect, Passed, Refused, check_fates
from fedllm_train.models.model_inputs import PEFT_FATES, adapter_config

TABLES = {**PEFT_FATES, ModelConfig: MODEL_FATES}

# Other values than PEFT's own, of configs that a tiny Llama can carry.
VALUES = {
    LoraConfig: [
        {"r": 3, "lora_alpha": 7, "lora_dropout": 0.1, "target_modules": {"q_proj", "v_proj"}, "use_rslora": True}
        | {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3}, "init_lora_weights": "gaussian"}
        | {"modules_to_save": ["lm_head"], "exclude_modules": {"v_proj"}},
        {"target_modules": {"q_proj"}, "layers_to_transform": [0], "layers_pattern": "layers"},
        {"target_modules": {"q_proj"}, "use_dora": True, "trainable_token_indices": [1, 2]},
        {"target_modules": {"q_proj"}, "target_parameters": ["mlp.up_proj.weight"]},
    ],
    IA3Config: [
        {"target_modules": {"k_proj", "up_proj"}, "feedforward_modules": {"up_proj"}, "init_ia3_weights": False},
    ],
    LNTuningConfig: [{"target_modules": {"input_layernorm"}, "exclude_modules": {"norm"}}],
    PromptTuningConfig: [{"num_virtual_tokens": 3}],
    PrefixTuningConfig: [{"num_virtual_tokens": 3}],
}  # fmt: skip
NOT_HERE = {
    *("task_type", "peft_type", "fan_in_fan_out", "runtime_config", "velora_config", "monteclora_config"),
    *("use_bdlora", "lora_bias", "ensure_weight_tying", "bias", "modules_to_save", "exclude_modules"),
    *("target_modules", "token_dim", "num_layers"),
    *("num_transformer_submodules", "num_attention_heads", "prompt_tuning_init", "prompt_tuning_init_text"),
    *("tokenizer_name_or_path", "tokenizer_kwargs", "init_weights", "prefix_projection"),
}
"""Passed on as they are; other machines, other bases, or looked at by tests of their own."""


@pytest.mark.parametrize("config", TABLES)
def test_every_field_of_the_installed_version_is_known(config):
    names = {each.name for each in fields(config)}
    assert names - TABLES[config].keys() == set(), "a new field: look at what it does to a federated run"
    assert TABLES[config].keys() - names == set(), "a field that is gone"
    assert all(isinstance(fate, Passed | Elsewhere | Refused | NoEffect) for fate in TABLES[config].values())


@pytest.mark.parametrize("config", PEFT_FATES)
def test_what_is_refused_is_refused_in_a_line(config):
    for name, fate in PEFT_FATES[config].items():
        given = copy.copy(config())
        default = getattr(given, name)
        setattr(given, name, not default if isinstance(default, bool) else 5 if isinstance(default, int) else "odd")
        if isinstance(fate, Refused):
            with pytest.raises(ConfigError, match=rf"^{name}=.*cannot be honoured in a federated run; ") as caught:
                adapter_config(given)
            assert "\n" not in str(caught.value)
        else:
            check_fates(given, PEFT_FATES[config], default=config())


@pytest.mark.parametrize("config", PEFT_FATES)
def test_what_is_passed_on_is_in_the_model_that_clients_train(kit, tmp_path, config):
    seen = set()
    for number, values in enumerate(VALUES[config]):
        trainer = FederatedTrainer(
            kit.make_model(),
            FederatedConfig(output_dir=str(tmp_path / str(number)), cohort_size=1),
            kit.make_clients(sizes={"ann": 2}),
            kit.trl_args("sft"),
            config(task_type="CAUSAL_LM", **values),
            tokenizer=kit.make_tokenizer(),
        )
        held = trainer.model.peft_config["default"]
        assert {name: getattr(held, name) for name in values} == values
        assert trainer.start_adapter  # something is trained
        seen |= values.keys()
    passed = {name for name, fate in PEFT_FATES[config].items() if isinstance(fate, Passed)}
    assert passed <= seen | NOT_HERE


def parse(*flags):
    return parse_run_arguments("sft", ["--data", "d", "--model", "m", "--output_dir", "o", *flags])


def test_flags_of_the_adapter_reach_it():
    flags = "--lora_r 3 --lora_alpha 5 --lora_dropout 0.2 --lora_target_modules q_proj v_proj --use_rslora True"
    peft = parse(*flags.split(), "--lora_modules_to_save", "lm_head", "--lora_target_parameters", "a.weight").peft
    assert (peft.r, peft.lora_alpha, peft.lora_dropout, peft.use_rslora) == (3, 5, 0.2, True)
    assert (peft.target_modules, peft.modules_to_save) == ({"q_proj", "v_proj"}, ["lm_head"])
    assert peft.target_parameters == ["a.weight"]
    assert parse("--use_dora", "True").peft.use_dora
    assert parse("--lora_task_type", "SEQ_CLS").peft.task_type == "SEQ_CLS"


def base_of(kit, tmp_path, client_args=None, **more):
    kit.make_model().save_pretrained(tmp_path / "base")
    kit.make_tokenizer().save_pretrained(tmp_path / "base")
    return FederatedTrainer(
        tmp_path / "base",
        FederatedConfig(output_dir=str(tmp_path / "run"), cohort_size=1, num_rounds=1, local_steps=1),
        kit.make_clients(sizes={"ann": 4}),
        client_args or kit.trl_args("sft"),
        kit.lora(),
        **more,
    )


def test_dtype_and_attention_are_those_that_flags_ask_for(kit, tmp_path):
    client = parse(*"--dtype bfloat16 --attn_implementation eager --use_cpu True --max_length 60".split()).client
    trainer = base_of(kit, tmp_path, client)
    assert trainer.model.base_model.model.lm_head.weight.dtype == torch.bfloat16
    assert trainer.model.config._attn_implementation == "eager"
    assert trainer.config_record()["client"]["model_init_kwargs"] == {
        "dtype": "bfloat16",
        "attn_implementation": "eager",
    }
    trainer.train()


def test_nobody_asking_leaves_dtype_and_attention_alone(kit, tmp_path):
    assert parse().client.model_init_kwargs is None
    assert parse("--dtype", "float32").client.model_init_kwargs == {"dtype": "float32"}  # TRL's default, but given
    trainer = base_of(kit, tmp_path)
    assert trainer.config_record()["client"]["model_init_kwargs"] is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
def test_model_init_kwargs_load_the_base(kit, tmp_path, dtype):
    args = kit.trl_args("sft", model_init_kwargs={"torch_dtype": dtype, "attn_implementation": "eager"})
    trainer = base_of(kit, tmp_path, args)
    assert trainer.model.base_model.model.lm_head.weight.dtype == torch.bfloat16
    assert trainer.model.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--use_peft False", "use --full-finetuning"),
        ("--use_peft --full_finetuning", "full_finetuning is given; drop one"),
        ("--bnb_4bit_quant_type nf4", "without --load-in-4bit"),
        ("--adapter a --lora_r 16", "brings its own settings"),
        ("--adapter a --peft_type lora", "--peft-type is given"),
        ("--peft_type ia3 --lora_alpha 32", "has no LoRA factors"),
        ("--num_virtual_tokens 20", "num_virtual_tokens is given"),
        ("--full_finetuning --lora_dropout 0.05", "trains no adapter"),
        ("--peft_type dora --use_dora False", "contradicts"),
        ("--dtype float16 --model_init_kwargs {\"dtype\":\"float32\"}", "give it once"),
        ("--save_steps 500", "--save_steps=500 cannot be honoured"),
        ("--save_strategy steps", "cannot be honoured"),
        ("--logging_steps 10", "every round is a line of rounds.jsonl"),
        ("--lr_scheduler_type linear", "cosine over rounds"),
        ("--assistant_only_loss False", "give --loss-on"),
        ("--completion_only_loss True", "use loss_on"),
        ("--dataset_text_field text", "dataset_text_field='text' cannot"),
        ("--run_name x", "run folder"),
        ("--fp16 --use_cpu", "fp16=True cannot be honoured on a CPU"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("from_file", [False, True])
def test_flags_that_would_be_lost_are_refused_given_or_in_a_file(tmp_path, flags, reason, from_file):
    words = flags.split()
    if from_file:
        names = [word[2:] for word in words if word.startswith("--")]
        values = {name: "true" for name in names}
        for name, value in pairwise(words):
            if name.startswith("--") and not value.startswith("--"):
                values[name[2:]] = value
        path = tmp_path / "run.yaml"
        path.write_text("".join(f"{name}: {value}\n" for name, value in values.items()))
        words = ["--config", str(path)]
    with pytest.raises(ConfigError, match=reason):
        parse(*words)


@pytest.mark.parametrize(
    ("kwargs", "reason"),
    [
        ({"device_map": "auto"}, "single device"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"attn_implementation": "nonsense"}, "attn_implementation='nonsense'"),
        ({"nonsense": 1}, "nonsense=1"),
    ],
)
def test_model_init_kwargs_that_cannot_be_honoured_are_refused(kit, tmp_path, kwargs, reason):
    with pytest.raises(ConfigError, match=reason):
        base_of(kit, tmp_path, kit.trl_args("sft", model_init_kwargs=kwargs))


def test_model_init_kwargs_of_a_model_in_memory_are_refused(kit, tmp_path):
    with pytest.raises(ConfigError, match="loaded already"):
        FederatedTrainer(
            kit.make_model(), FederatedConfig(output_dir=str(tmp_path)), kit.make_clients(),
            kit.trl_args("sft", model_init_kwargs={"dtype": "bfloat16"}),
        )  # fmt: skip


def test_trust_in_remote_code_is_taken_from_trls_settings(kit, tmp_path, monkeypatch):
    seen = {}
    load = AutoModelForCausalLM.from_pretrained

    def spy(name, **settings):
        seen.update(settings)
        return load(name, **settings)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", spy)
    args = SFTConfig(bf16=False, use_cpu=True, trust_remote_code=True, model_init_kwargs={"revision": "main"})
    base_of(kit, tmp_path, args)
    assert (seen["trust_remote_code"], seen["revision"]) == (True, "main")
