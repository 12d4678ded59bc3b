"""Two answers behind one prompt: what two whole sequences give, and only where a model can be read so."""

import numpy as np
import pytest
import torch

from fedllm_eval.policy import models
from fedllm_eval.policy.models import load_policy, pair_logps
from fedllm_eval.policy.shared_prompts import can_share_prompts, two_answers_logps
from tests.eval.policy.test_models import row_by_row


@pytest.fixture(scope="module")
def policy(model_folder):
    return load_policy(model_folder)


def small(config_class, model_class, **settings):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 50,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    }
    return model_class(config_class(**{**sizes, **settings})).eval()


def test_pairs_are_read_together_and_alone_with_the_same_sums(policy, pair_rows, monkeypatch):
    together = pair_logps(policy.model, policy.tokenizer, pair_rows, batch_size=4, max_length=24)
    read = []
    monkeypatch.setattr(models, "two_answers_logps", lambda *given: read.append(given))
    monkeypatch.setattr(models, "can_share_prompts", lambda model: False)
    alone = pair_logps(policy.model, policy.tokenizer, pair_rows, batch_size=4, max_length=24)
    assert not read
    np.testing.assert_allclose(together.chosen_N, alone.chosen_N, rtol=1e-6)
    np.testing.assert_allclose(together.rejected_N, alone.rejected_N, rtol=1e-6)
    for counts in ("chosen_tokens_N", "rejected_tokens_N", "truncated_N", "unrendered_N"):
        assert getattr(together, counts).tolist() == getattr(alone, counts).tolist()


def test_prompts_are_read_once(policy, pair_rows):
    num_read = 0

    def count(module, given, named):
        nonlocal num_read
        num_read += named["input_ids"].numel()

    hook = policy.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        pair_logps(policy.model, policy.tokenizer, pair_rows[:1], batch_size=2)
    finally:
        hook.remove()
    row = models.encode_pair_rows(policy.tokenizer, pair_rows[:1])
    (prompt,), ((chosen, rejected),) = row.prompts, row.answers
    assert num_read == len(prompt) + len(chosen) - 1 + len(rejected) - 1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3", "gemma"])
def test_families_of_models_agree_with_a_plain_loop(kind, attention):
    import transformers as hf

    if kind == "gpt2":
        torch.manual_seed(0)
        config = hf.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=12, initializer_range=0.3)
        model = hf.GPT2LMHeadModel(config).eval()
    else:
        name = {"llama": "Llama", "qwen3": "Qwen3", "gemma": "Gemma"}[kind]
        more = {} if kind == "llama" else {"head_dim": 8}
        model = small(getattr(hf, f"{name}Config"), getattr(hf, f"{name}ForCausalLM"), **more)
    model.set_attn_implementation(attention)
    assert can_share_prompts(model)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(1, 50, length).tolist() for length in (5, 1, 3)]
    answers = [tuple(rng.integers(1, 50, length).tolist() for length in both) for both in ((2, 6), (1, 1), (4, 3))]
    for prompt, pair, sums in zip(prompts, answers, two_answers_logps(model, prompts, answers), strict=True):
        for answer, got in zip(pair, sums, strict=True):
            mask = [0] * len(prompt) + [1] * len(answer)
            assert got == pytest.approx(row_by_row(model, prompt + answer, mask), abs=1e-4)


def test_models_that_do_not_see_the_whole_sequence_are_read_one_by_one():
    import transformers as hf

    assert not can_share_prompts(small(hf.MistralConfig, hf.MistralForCausalLM, sliding_window=4))
    sliding = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}
    assert not can_share_prompts(small(hf.Qwen2Config, hf.Qwen2ForCausalLM, **sliding))
    bloom = hf.BloomForCausalLM(hf.BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2))
    assert not can_share_prompts(bloom)  # ALiBi: positions cannot be given


def test_an_adapter_of_virtual_tokens_is_read_one_by_one(model_folder):
    from peft import PromptTuningConfig, get_peft_model

    model = get_peft_model(
        load_policy(model_folder).model, PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    )
    assert not can_share_prompts(model)
