"""Bases that lack weights or are no decoder-only causal language models are refused, in training and in scoring."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    XLNetConfig,
    XLNetLMHeadModel,
)

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.causal_base import check_causal, load_causal_base
from fedllm_eval.policy.policies import load_policy
from fedllm_train.models.policy import PolicySource, load_starting_policy

SIZES = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
LLAMA = {**SIZES, "intermediate_size": 16, "num_key_value_heads": 1}
HALF = {"d_model": 16, "vocab_size": 60, "max_position_embeddings": 32} | {
    f"{side}_{what}": value
    for side in ("encoder", "decoder")
    for what, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 16))
}
CAUSAL = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "llama whose head is its embeddings": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=True)),
    "its body alone, the head being tied": lambda: LlamaModel(LlamaConfig(**LLAMA, tie_word_embeddings=True)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=16, n_layer=1, n_head=2)),
    "mixture of experts": lambda: MixtralForCausalLM(MixtralConfig(**LLAMA, num_local_experts=2)),
    "mamba": lambda: MambaForCausalLM(MambaConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1)),
    "bert as a decoder": lambda: BertLMHeadModel(BertConfig(**SIZES, intermediate_size=16, is_decoder=True)),
}
LACKING = {
    "body": lambda: LlamaModel(LlamaConfig(**LLAMA)),
    "classifier": lambda: LlamaForSequenceClassification(LlamaConfig(**LLAMA)),
    "tagger": lambda: LlamaForTokenClassification(LlamaConfig(**LLAMA)),
}
NOT_CAUSAL = {
    "bert": (lambda: BertForMaskedLM(BertConfig(**SIZES, intermediate_size=16)), "depends on the tokens after it"),
    "roberta": (
        lambda: RobertaForMaskedLM(RobertaConfig(**SIZES, intermediate_size=16, pad_token_id=1)),
        "depends on the tokens after it",
    ),
    "xlnet": (
        lambda: XLNetLMHeadModel(XLNetConfig(vocab_size=60, d_model=16, n_layer=1, n_head=2, d_inner=16)),
        "depends on the tokens after it",
    ),
    "bart": (lambda: BartForConditionalGeneration(BartConfig(**HALF)), "sequence-to-sequence"),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_model_with_all_its_weights_is_taken(name, tmp_path):
    CAUSAL[name]().save_pretrained(tmp_path)
    loaded = load_causal_base(tmp_path, dtype=torch.float32)
    expected = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    assert not loaded.training


@pytest.mark.parametrize("name", LACKING)
def test_a_checkpoint_that_lacks_its_head_is_refused(name, tmp_path):
    LACKING[name]().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"lacks weights of a LlamaForCausalLM \(lm_head.weight\)"):
        load_causal_base(tmp_path, dtype=torch.float32)
    with pytest.raises(ConfigError, match="no probabilities of the next word"):
        check_causal(LACKING[name](), None)


@pytest.mark.parametrize("name", NOT_CAUSAL)
def test_what_sees_the_tokens_to_come_or_needs_an_encoder_is_refused(name, tmp_path):
    make, reason = NOT_CAUSAL[name]
    make().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=f"no decoder-only causal language model: .*{reason}"):
        load_causal_base(tmp_path, dtype=torch.float32)
    with pytest.raises(ConfigError, match=f"no decoder-only causal language model: .*{reason}"):
        check_causal(make(), None)


@pytest.mark.parametrize("make", [LACKING["body"], NOT_CAUSAL["bert"][0], NOT_CAUSAL["bart"][0]])
def test_training_and_scoring_refuse_them_alike(make, tmp_path, tokenizer):
    model = make()
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    for attempt in (
        lambda: load_policy(tmp_path / "base"),
        lambda: load_starting_policy(PolicySource(model=str(tmp_path / "base"))),
    ):
        with pytest.raises(ConfigError, match=r"lacks weights|no decoder-only"):
            attempt()
    with pytest.raises(ConfigError, match="no decoder-only"):
        load_starting_policy(PolicySource(model=model, tokenizer=tokenizer))


def test_a_model_is_left_in_the_mode_it_was_in(tokenizer):
    model = CAUSAL["llama"]().train()
    state = torch.get_rng_state()
    check_causal(model, None)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
