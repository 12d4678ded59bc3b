"""Adapters on tied embeddings, virtual tokens and tokenizers: trained right, or refused with the reason."""

import pytest
import torch
from peft import LoraConfig, PeftModel, PrefixTuningConfig, PromptTuningConfig, TrainableTokensConfig
from transformers import LlamaForCausalLM
from trl import KTOConfig

from fedllm_data.errors import ConfigError
from fedllm_train.config import FederatedConfig
from fedllm_train.trainer import FederatedTrainer

LLM = {"task_type": "CAUSAL_LM"}
EMBEDDINGS = {"r": 4, "target_modules": ["embed_tokens"], **LLM}
RIGHT = {
    "lora": LoraConfig(**EMBEDDINGS),
    "lora_and_layers": LoraConfig(**{**EMBEDDINGS, "target_modules": ["embed_tokens", "q_proj"]}),
    "embeddings_to_save": LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"], **LLM),
    "both_to_save": LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], **LLM),
}
REFUSED = {
    "on the head": (
        LoraConfig(r=4, target_modules=["lm_head"], **LLM),
        "puts an adapter on lm_head.*leave lm_head out",
    ),
    "kept equal": (LoraConfig(ensure_weight_tying=True, **EMBEDDINGS), "leave lm_head and ensure_weight_tying out"),
    "tokens": (LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[5, 9], **LLM), "trains tokens of"),
    "tokens alone": (TrainableTokensConfig(token_indices=[5, 9], **LLM), "trains tokens of embeddings that are also"),
}


def tied(kit):
    config = kit.make_model().config
    config.tie_word_embeddings = True
    torch.manual_seed(7)
    return LlamaForCausalLM(config)


def trainer(kit, run, config, task="sft", *, args=None, tokenizer=None, model=None):
    return FederatedTrainer(
        tied(kit) if model is None else model,
        FederatedConfig(output_dir=str(run), num_rounds=1, cohort_size=2, local_steps=2),
        kit.make_clients("sft" if task == "sft" else "preference"),
        args or kit.trl_args(task),
        config,
        tokenizer=tokenizer or kit.make_tokenizer(),
    )


@pytest.mark.filterwarnings("ignore:Model (has|with) `tie_word_embeddings=True`")  # PEFT, of merging
@pytest.mark.parametrize("task", ["sft", "dpo"])
@pytest.mark.parametrize("kind", RIGHT)
def test_what_is_trained_on_tied_embeddings_is_what_is_saved(kit, tmp_path, task, kind):
    # LoRA moves the embeddings of words that occur, and no others.
    tokens = torch.tensor([kit.make_tokenizer()("say red")["input_ids"]])
    run = trainer(kit, tmp_path / "run", RIGHT[kind], task)
    run.train()
    finished = PeftModel.from_pretrained(tied(kit), str(tmp_path / "run" / "adapter"))
    run.model.eval()
    with torch.no_grad():
        trained, loaded, base = (each(input_ids=tokens).logits for each in (run.model, finished, tied(kit)))
    assert torch.equal(trained, loaded)
    assert not torch.equal(trained, base)


@pytest.mark.filterwarnings("ignore:Model (has|with) `tie_word_embeddings=True`")
@pytest.mark.parametrize("task", ["sft", "dpo"])
@pytest.mark.parametrize("kind", REFUSED)
def test_what_trl_would_leave_out_of_the_loss_is_refused(kit, tmp_path, task, kind):
    config, reason = REFUSED[kind]
    with pytest.raises(ConfigError, match=reason):
        trainer(kit, tmp_path / "run", config, task)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("config", [PromptTuningConfig, PrefixTuningConfig])
@pytest.mark.parametrize("setting", ["packing", "padding_free"])
def test_virtual_tokens_before_the_first_of_several_rows_are_refused(kit, tmp_path, config, setting):
    args = kit.trl_args("sft", **{setting: True})
    with pytest.raises(ConfigError, match=f"{setting} joins rows into one sequence"):
        trainer(kit, tmp_path / "run", config(num_virtual_tokens=3, **LLM), args=args, model=kit.make_model())


def args_of(kit, task):
    if task != "kto":
        return kit.trl_args(task)
    return KTOConfig(bf16=False, use_cpu=True, activation_checkpointing=False, per_device_train_batch_size=4)


@pytest.mark.parametrize("task", ["sft", "dpo", "kto"])
def test_a_tokenizer_without_a_token_to_pad_with_is_refused(kit, tmp_path, task):
    tokenizer = kit.make_tokenizer(kit.MARKED_TEMPLATE)
    tokenizer.pad_token = tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="neither a padding token nor an end-of-sequence token"):
        trainer(kit, tmp_path / "run", kit.lora(), task, args=args_of(kit, task), tokenizer=tokenizer)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", ["sft", "dpo", "kto"])
def test_the_end_of_a_sequence_pads_where_nothing_else_does(kit, tmp_path, task):
    ended = []
    for name, pad in (("own", "<|end|>"), ("none", None)):
        tokenizer = kit.make_tokenizer(kit.MARKED_TEMPLATE)
        tokenizer.pad_token = pad
        run = trainer(
            kit,
            tmp_path / name,
            kit.lora(),
            task,
            args=args_of(kit, task),
            tokenizer=tokenizer,
            model=kit.make_model(),
        )
        ended.append(run.train().adapter)
    assert all(torch.equal(ended[1][name], tensor) for name, tensor in ended[0].items())
