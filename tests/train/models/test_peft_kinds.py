"""Adapters of every kind: one client, one round equals plain TRL to the bit; what the command offers and refuses."""

import pytest
import torch
from peft import (
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from transformers import PrinterCallback
from trl import DPOTrainer, ModelConfig, SFTTrainer

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.generation import generate_answers
from fedllm_eval.policy.models import sequence_logps
from fedllm_eval.policy.policies import load_policy
from fedllm_train.arguments import parse_run_arguments
from fedllm_train.config import FederatedConfig
from fedllm_train.models.quantization import quantization_config
from fedllm_train.seeds import stream_seed
from fedllm_train.trainer import FederatedTrainer

LLM = {"task_type": "CAUSAL_LM"}
ON_LINEAR = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **LLM}
KINDS = {
    "dora": LoraConfig(use_dora=True, **ON_LINEAR),
    "rslora": LoraConfig(use_rslora=True, **ON_LINEAR),
    "modules_to_save": LoraConfig(modules_to_save=["lm_head", "norm"], **ON_LINEAR),
    "ia3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], **LLM),
    "ln_tuning": LNTuningConfig(**LLM),
    "prompt_tuning": PromptTuningConfig(num_virtual_tokens=3, **LLM),
    "prefix_tuning": PrefixTuningConfig(num_virtual_tokens=3, **LLM),
}


def federated(kit, run, task, config, *, sizes, model=None, **changes):
    settings = {"num_rounds": 1, "cohort_size": 1, "local_steps": 3, "seed": 3, **changes}
    return FederatedTrainer(
        model or kit.make_model(),
        FederatedConfig(output_dir=str(run), **settings),
        kit.make_clients("sft" if task == "sft" else "preference", sizes),
        kit.trl_args(task),
        config,
        tokenizer=kit.make_tokenizer(kit.MARKED_TEMPLATE),
    )


def plain_trl(kit, tmp_path, task, config, start):
    model = get_peft_model(kit.make_model(), config)
    set_peft_model_state_dict(model, start)
    seed = stream_seed(3, "client", round_index=0, client_id="ann")
    args = kit.trl_args(
        task,
        **{"seed": seed, "max_steps": 3, "lr_scheduler_type": "constant", "save_strategy": "no"},
        **{"logging_strategy": "no", "disable_tqdm": True, "output_dir": str(tmp_path / "plain")},
        **({"assistant_only_loss": True} if task == "sft" else {"precompute_ref_log_probs": True}),
    )
    trainer = (SFTTrainer if task == "sft" else DPOTrainer)(
        model=model,
        args=args,
        train_dataset=kit.make_clients("sft" if task == "sft" else "preference", {"ann": 7})["ann"],
        processing_class=kit.make_tokenizer(kit.MARKED_TEMPLATE),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return {name: tensor.detach().clone() for name, tensor in get_peft_model_state_dict(model).items()}


@pytest.mark.filterwarnings("ignore:(Unsupported layer type|Adapter name 'ref')")  # plain TRL's
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_one_client_one_round_equals_plain_trl_to_the_bit(kit, tmp_path, task, kind):
    trainer = federated(kit, tmp_path / "run", task, KINDS[kind], sizes={"ann": 7})
    start = trainer.start_adapter
    result = trainer.train().adapter
    expected = plain_trl(kit, tmp_path, task, KINDS[kind], start)
    assert result.keys() == expected.keys()
    assert all(torch.equal(result[name], expected[name]) for name in expected)
    assert all(not torch.equal(start[name], expected[name]) for name in expected if "lora_A" not in name)
    saved = PeftModel.from_pretrained(kit.make_model(), str(tmp_path / "run" / "adapter"))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in get_peft_model_state_dict(saved).items())


def test_the_server_averages_parameters_by_rows(kit, tmp_path):
    runs = (tmp_path / "apart", tmp_path / "run")
    apart, trainer = (
        federated(kit, run, "sft", KINDS["prefix_tuning"], sizes={"ann": 6, "bob": 2}, cohort_size=2) for run in runs
    )
    start, host, ends = apart.start_adapter, apart.loaded.host, {}
    for client_id in ("ann", "bob"):
        seed = stream_seed(3, "client", round_index=0, client_id=client_id)
        ends[client_id], _ = host.resident.fit(
            start, host.tokens[client_id].rows, learning_rate=1e-2, seed=seed, num_steps=3
        )
    mean = trainer.train().adapter
    # n_k / n: 6 of 8 rows are ann's, 2 of 8 bob's.
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, 0.75 * ends["ann"][name] + 0.25 * ends["bob"][name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["prompt_tuning", "prefix_tuning", "ia3"])
def test_a_finished_adapter_is_scored_with_its_virtual_tokens(kit, tmp_path, kind):
    kit.make_model().save_pretrained(tmp_path / "base")
    kit.make_tokenizer(kit.MARKED_TEMPLATE).save_pretrained(tmp_path / "base")
    federated(kit, tmp_path / "run", "sft", KINDS[kind], sizes={"ann": 7}, model=str(tmp_path / "base")).train()
    policy = load_policy(tmp_path / "run")
    tokens, mask = [5, 9, 17, 8, 11], [0, 0, 1, 0, 1]
    with policy.active() as model, torch.no_grad():
        (scored,), _ = sequence_logps(model, [(tokens, mask)], batch_size=1)
        logp = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -5:].log_softmax(-1)
        base = model.get_base_model()
        with model.disable_adapter():
            alone = base(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
    expected, without = (float(each[1, 17] + each[3, 11]) for each in (logp, alone))
    assert scored == pytest.approx(expected, abs=5e-6)  # two sums of float32 around -11
    assert scored != pytest.approx(without, abs=1e-5)
    if kind != "ia3":
        with pytest.raises(ConfigError, match="virtual tokens"):
            generate_answers(policy, [[kit.user("say red")]], max_new_tokens=2)


@pytest.mark.parametrize("strategy", ["ffa_lora", "flexlora"])
def test_lora_aware_methods_refuse_other_adapters(kit, tmp_path, strategy):
    with pytest.raises(ConfigError, match="LoRA factors"):
        federated(kit, tmp_path / "run", "sft", KINDS["ia3"], sizes={"ann": 7}, strategy=strategy)


def test_a_prefix_is_refused_where_activations_are_checkpointed(kit, tmp_path):
    with pytest.raises(ConfigError, match="activation_checkpointing=False"):
        FederatedTrainer(
            kit.make_model(),
            FederatedConfig(output_dir=str(tmp_path / "run"), cohort_size=1),
            kit.make_clients(),
            kit.trl_args("sft", activation_checkpointing=True),
            KINDS["prefix_tuning"],
            tokenizer=kit.make_tokenizer(),
        )


def arguments(tmp_path, *flags):
    return parse_run_arguments(
        "sft", ["--data", "d", "--model", "m", "--output_dir", str(tmp_path / "run"), "--use_cpu", "True", *flags]
    )


def test_the_command_makes_each_kind(tmp_path):
    kinds = {
        "lora": "LORA", "dora": "LORA", "rslora": "LORA", "ia3": "IA3", "ln_tuning": "LN_TUNING",
        "prompt_tuning": "PROMPT_TUNING", "prefix_tuning": "PREFIX_TUNING",
    }  # fmt: skip
    made = {kind: arguments(tmp_path, "--peft_type", kind).peft for kind in kinds}
    assert {kind: config.peft_type.value for kind, config in made.items()} == kinds
    assert (made["dora"].use_dora, made["rslora"].use_rslora, made["lora"].use_dora) == (True, True, False)
    tokens = arguments(tmp_path, "--peft_type", "prompt_tuning", "--num_virtual_tokens", "4").peft
    assert tokens.num_virtual_tokens == 4
    assert arguments(tmp_path, "--peft_type", "ia3", "--lora_target_modules", "k_proj").peft.target_modules
    assert arguments(tmp_path, "--full_finetuning").peft is None


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--peft_type", "ia3", "--lora_r", "4"], "has no LoRA factors"),
        (["--peft_type", "lora", "--num_virtual_tokens", "4"], "has none"),
        (["--peft_type", "prompt_tuning", "--num_virtual_tokens", "0"], "at least 1"),
        (["--full_finetuning", "--lora_r", "4"], "trains no adapter"),
        (["--adapter", "a", "--peft_type", "dora"], "brings its own"),
        (["--peft_type", "vera"], "vera"),
    ],
)
def test_flags_that_would_not_be_looked_at_are_refused(tmp_path, flags, reason):
    with pytest.raises(ConfigError, match=reason):
        arguments(tmp_path, *flags)


@pytest.mark.parametrize("flag", ["--load-in-4bit", "--load-in-8bit"])
def test_a_quantised_base_is_refused_where_it_cannot_be_loaded(tmp_path, monkeypatch, flag):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"{flag} needs an NVIDIA GPU and bitsandbytes, and there is no GPU"):
        arguments(tmp_path, flag)


def test_a_quantised_base_is_loaded_with_the_settings_asked_for(monkeypatch):
    """Made on a machine without a GPU: that bitsandbytes takes them was not seen here."""
    monkeypatch.setattr("fedllm_train.models.quantization.missing_for_quantization", lambda: None)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    four = quantization_config(ModelConfig(load_in_4bit=True, use_bnb_nested_quant=True))
    assert (four.load_in_4bit, four.bnb_4bit_quant_type, four.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert four.bnb_4bit_compute_dtype == torch.bfloat16
    assert quantization_config(ModelConfig(load_in_8bit=True)).load_in_8bit


def test_the_quantisation_reaches_the_load_of_the_base(kit, tmp_path, monkeypatch):
    given = {}

    def load(name, **settings):
        given.update(settings)
        return kit.make_model(), {"missing_keys": set()}

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", load)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("fedllm_train.models.base_settings.missing_for_quantization", lambda: None)
    FederatedTrainer(
        "some/model",
        FederatedConfig(output_dir=str(tmp_path / "run"), cohort_size=1),
        kit.make_clients(),
        kit.trl_args("sft"),
        kit.lora(),
        tokenizer=kit.make_tokenizer(),
        quantization="the settings",
    )
    assert given["quantization_config"] == "the settings"
    assert given["device_map"] == {"": 0}
