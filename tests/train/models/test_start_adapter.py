"""What a run may start from: settings that train, adapters that can be trained on, and their own base."""

import json
import logging
import shutil

import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from fedllm_data.errors import ConfigError, ResumeError
from fedllm_train.config import FederatedConfig
from fedllm_train.models.policy import PolicySource, load_starting_policy
from fedllm_train.models.start_adapter import check_trains
from fedllm_train.trainer import FederatedTrainer

LLM = {"task_type": "CAUSAL_LM"}


def start(kit, **given):
    return load_starting_policy(PolicySource(model=kit.make_model(), tokenizer=kit.make_tokenizer(), **given))


@pytest.fixture
def bases(kit, tmp_path):
    """Two bases of the same shapes: `one`, and `other` with other weights."""
    for name, shift in (("one", 0.0), ("other", 0.1)):
        model = kit.make_model()
        for parameter in model.parameters():
            parameter.data += shift
        model.save_pretrained(tmp_path / name)
        kit.make_tokenizer().save_pretrained(tmp_path / name)
    return tmp_path / "one", tmp_path / "other"


def run_on(kit, base, run, *, adapter=None, **changes):
    return FederatedTrainer(
        str(base),
        FederatedConfig(output_dir=str(run), num_rounds=1, cohort_size=2, local_steps=1, seed=5, **changes),
        kit.make_clients(),
        kit.trl_args("sft"),
        None if adapter else kit.lora(),
        adapter=adapter and str(adapter),
    )


@pytest.mark.parametrize("config", [LoraConfig(r=2, target_modules="all-linear", **LLM), IA3Config(
    target_modules=["k_proj"], feedforward_modules=[], **LLM
), PromptTuningConfig(num_virtual_tokens=2, **LLM)])  # fmt: skip
def test_settings_for_inference_are_trained_on_a_copy(kit, config):
    config.inference_mode = True
    policy = start(kit, peft_config=config)
    assert any(parameter.requires_grad for parameter in policy.model.parameters())
    assert not policy.model.peft_config["default"].inference_mode
    assert config.inference_mode  # the caller's own is untouched


def test_settings_that_were_loaded_train_as_those_that_were_written(kit, tmp_path):
    kit.lora().save_pretrained(tmp_path / "settings")
    loaded = LoraConfig.from_pretrained(tmp_path / "settings")
    loaded.inference_mode = True
    ended = [
        kit.make_trainer(tmp_path / name, num_rounds=1, peft_config=config).train().adapter
        for name, config in (("written", kit.lora()), ("loaded", loaded))
    ]
    assert all(torch.equal(ended[1][name], tensor) for name, tensor in ended[0].items())


def test_what_leaves_nothing_to_train_is_refused(kit):
    config = kit.lora(target_modules=["q_proj"])
    config.layers_to_transform = [0]
    model = get_peft_model(kit.make_model(), config)
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="LoraConfig leaves 0 parameters to train"):
        check_trains(model)


@pytest.mark.parametrize("task", ["SEQ_CLS", "TOKEN_CLS", "SEQ_2_SEQ_LM", "QUESTION_ANS", "FEATURE_EXTRACTION"])
def test_an_adapter_for_another_task_is_refused(kit, tmp_path, task):
    with pytest.raises(ConfigError, match=f"task_type='{task}' wraps the model for another task"):
        start(kit, peft_config=kit.lora(task_type=task))
    adapter = saved(kit, tmp_path / "adapter", kit.lora())
    edit(adapter, task_type=task)
    with pytest.raises(ConfigError, match=f"task_type='{task}' wraps the model for another task"):
        start(kit, adapter=str(adapter))


def test_an_adapter_without_a_task_is_trained_to_write(kit, tmp_path):
    """PEFT would leave the virtual tokens of such an adapter out of the forward pass."""
    policy = start(kit, peft_config=PromptTuningConfig(num_virtual_tokens=2, task_type=None))
    tokens = torch.tensor([[5, 9, 17]])
    assert policy.model(input_ids=tokens).logits.shape[1] == 2 + 3


def saved(kit, folder, config):
    model = get_peft_model(kit.make_model(), config)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


def edit(adapter, **changes):
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("kind", [PromptTuningConfig, PrefixTuningConfig])
def test_virtual_tokens_are_trained_on(kit, tmp_path, kind):
    adapter = saved(kit, tmp_path / "adapter", kind(num_virtual_tokens=3, **LLM))
    before = load_file(adapter / "adapter_model.safetensors")["prompt_embeddings"]
    trainer = kit.make_trainer(tmp_path / "run", adapter=str(adapter), num_rounds=1)
    assert torch.equal(trainer.start_adapter["prompt_embeddings"], before)
    after = trainer.train().adapter["prompt_embeddings"]
    assert not torch.equal(after, before)
    finished = PeftModel.from_pretrained(kit.make_model(), str(tmp_path / "run" / "adapter"))
    assert torch.equal(finished.prompt_encoder["default"].embedding.weight, after)


@pytest.mark.parametrize(
    "config",
    [
        PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=8, **LLM),
        PrefixTuningConfig(num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=8, **LLM),
    ],
)
def test_virtual_tokens_that_an_encoder_made_are_refused(kit, tmp_path, config):
    adapter = saved(kit, tmp_path / "adapter", config)
    with pytest.raises(ConfigError, match="holds what its encoder made, not the encoder"):
        start(kit, adapter=str(adapter))


def test_an_adapter_that_rewrites_its_base_is_refused(kit, tmp_path):
    adapter = saved(kit, tmp_path / "adapter", kit.lora())
    edit(adapter, init_lora_weights="pissa")
    with pytest.raises(ConfigError, match="init_lora_weights='pissa' may change the base"):
        start(kit, adapter=str(adapter))


def test_an_adapter_that_lacks_a_layer_is_refused(kit, tmp_path):
    adapter = saved(kit, tmp_path / "adapter", kit.lora())
    path = adapter / "adapter_model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if "layers.1." not in name}
    save_file(kept, path, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks .*layers\.1\."):
        start(kit, adapter=str(adapter))


def test_a_runs_adapter_starts_on_its_own_base_alone(kit, tmp_path, bases):
    one, other = bases
    run_on(kit, one, tmp_path / "run").train()
    for adapter in (tmp_path / "run", tmp_path / "run" / "adapter"):
        run_on(kit, one, tmp_path / "again", adapter=adapter)
        run_on(kit, shutil.copytree(one, tmp_path / "moved", dirs_exist_ok=True), tmp_path / "again", adapter=adapter)
        with pytest.raises(ConfigError, match=r"was trained on base .*one' with other weights"):
            run_on(kit, other, tmp_path / "again", adapter=adapter)


def test_an_adapter_alone_is_compared_by_the_base_it_names(kit, tmp_path, bases, caplog):
    one, other = bases
    run_on(kit, one, tmp_path / "run").train()
    adapter = shutil.copytree(tmp_path / "run" / "adapter", tmp_path / "adapter")
    with pytest.raises(ConfigError, match=r"was trained on base .*one' with other weights"):
        run_on(kit, other, tmp_path / "again", adapter=adapter)
    edit(adapter, base_model_name_or_path="org/elsewhere")
    with caplog.at_level(logging.WARNING):
        run_on(kit, one, tmp_path / "again", adapter=adapter)
    assert any("was trained on base 'org/elsewhere' and is put on" in message for message in caplog.messages)


def test_a_run_is_not_resumed_on_a_base_of_other_weights(kit, tmp_path, bases):
    one, other = bases
    run_on(kit, one, tmp_path / "run").train()
    shutil.copy(other / "model.safetensors", one / "model.safetensors")
    with pytest.raises(ResumeError, match=r"was begun with other settings .*model\.weights"):
        run_on(kit, one, tmp_path / "run").train(resume=True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"target_modules": ["q_proj", "k_porj"]}, "target_modules has 'k_porj'"),
        ({"modules_to_save": ["lm_haed"]}, "modules_to_save has 'lm_haed'"),
        ({"rank_pattern": {"layers.7.self_attn.q_proj": 2}}, "rank_pattern has 'layers.7.self_attn.q_proj'"),
        ({"alpha_pattern": {"(q_proj": 2}}, "alpha_pattern has '[(]q_proj', which is no pattern"),
    ],
)
def test_a_name_that_no_module_has_is_refused(kit, changes, reason):
    """PEFT asks for one match among all; the others it passes over."""
    with pytest.raises(ConfigError, match=reason):
        load_starting_policy(
            PolicySource(model=kit.make_model(), tokenizer=kit.make_tokenizer(), peft_config=kit.lora(**changes))
        )


def test_names_that_modules_have_pass(kit):
    found = {"target_modules": ["layers.0.self_attn.q_proj", "k_proj"], "modules_to_save": ["norm"]}
    found |= {"rank_pattern": {"0.self_attn.q_proj": 2, "^model.layers.1.self_attn.k_proj": 3}}
    policy = load_starting_policy(
        PolicySource(model=kit.make_model(), tokenizer=kit.make_tokenizer(), peft_config=kit.lora(**found))
    )
    ranks = {name: each.shape[0] for name, each in policy.model.named_parameters() if "lora_A" in name}
    assert sorted(ranks.values()) == [2, 3, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_was_merged_no_longer_names_the_folder_it_came_from(kit, tmp_path, dtype, caplog):
    """Its adapter would be scored on the base without what was merged."""
    kit.make_model().save_pretrained(tmp_path / "base")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=dtype)
    kept = load_starting_policy(PolicySource(model=loaded, tokenizer=kit.make_tokenizer(), peft_config=kit.lora()))
    assert kept.base_name == str(tmp_path / "base")
    assert kept.base_weights is not None
    assert not caplog.records
    with torch.no_grad():
        for name, parameter in kept.model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    merged = kept.model.merge_and_unload()
    policy = load_starting_policy(PolicySource(model=merged, tokenizer=kit.make_tokenizer(), peft_config=kit.lora()))
    assert (policy.base_name, policy.base_weights, policy.base_revision) == (None, None, None)
    assert not policy.model.peft_config["default"].base_model_name_or_path
    assert "is not the one in" in caplog.text
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=dtype), kit.lora())
    tuned.get_base_model().model.norm.weight.data.mul_(2)
    policy = load_starting_policy(PolicySource(model=tuned, tokenizer=kit.make_tokenizer()))
    assert (policy.base_name, policy.model.peft_config["default"].base_model_name_or_path) == (None, None)
