"""An adapter merged for scoring: the same log-probabilities, and the policy bit for bit as before; else left alone."""

import numpy as np
import pytest
import torch

from fedllm_eval.policy import merged_adapter
from fedllm_eval.policy.merged_adapter import active_for_scoring, mergeable_layers, merged
from fedllm_eval.policy.models import load_policy, load_reference, pair_logps
from fedllm_eval.scoring.rounding import difference_beyond_rounding


@pytest.fixture
def trained(tmp_path, make_adapter):
    policy = load_policy(make_adapter(tmp_path / "adapter", seed=3))
    with policy.active():  # switching an adapter on is PEFT's, and sets what is trained
        pass
    return policy


def bits(model):
    """Name -> (parameter, its content, whether it is trained)."""
    return {name: (each, each.detach().clone(), each.requires_grad) for name, each in model.named_parameters()}


def assert_same(before, model):
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    for name, (parameter, content, trains) in before.items():
        assert after[name] is parameter, name
        assert torch.equal(parameter, content), name
        assert parameter.requires_grad == trains, name


def adapted(model_folder, config, dtype=torch.float32):
    """A PEFT model in memory whose adapter changes something."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype), config)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = (torch.randn(parameter.shape, generator=generator) * 0.5).to(parameter.dtype)
    return model.eval()


def test_scores_are_those_of_the_adapter_beside_the_weights(trained, pair_rows):
    with trained.active() as model:
        beside = pair_logps(model, trained.tokenizer, pair_rows)
        with merged(model) as was_merged:
            assert was_merged
            within = pair_logps(model, trained.tokenizer, pair_rows)
    assert not np.array_equal(beside.chosen_N, within.chosen_N)  # otherwise nothing was merged
    assert difference_beyond_rounding(beside.chosen_N, within.chosen_N).tolist() == [0.0] * len(pair_rows)
    assert difference_beyond_rounding(beside.rejected_N, within.rejected_N).tolist() == [0.0] * len(pair_rows)


def test_afterwards_every_parameter_is_the_one_it_was(trained, pair_rows):
    before = bits(trained.model)
    with active_for_scoring(trained) as model:
        pair_logps(model, trained.tokenizer, pair_rows)
    assert_same(before, trained.model)


def test_an_error_inside_leaves_the_policy_as_it_was(trained):
    before = bits(trained.model)
    with pytest.raises(RuntimeError, match="stop"), active_for_scoring(trained):
        raise RuntimeError("stop")
    assert_same(before, trained.model)
    assert len(mergeable_layers(trained.model)) == 4


def test_what_is_frozen_inside_an_adapter_stays_frozen(trained):
    first = next(each for name, each in trained.model.named_parameters() if "lora_A" in name)
    first.requires_grad_(False)
    with merged(trained.model):
        pass
    assert not first.requires_grad


def test_tied_embeddings_do_not_take_part(model_folder):
    from peft import LoraConfig

    model = adapted(model_folder, LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM"))
    base = model.get_base_model()
    base.lm_head.get_base_layer().weight = base.model.embed_tokens.weight
    embeddings = base.model.embed_tokens.weight.detach().clone()
    with merged(model) as was_merged:
        assert was_merged
        assert torch.equal(base.model.embed_tokens.weight, embeddings)
        assert not torch.equal(base.lm_head.get_base_layer().weight, embeddings)
    assert base.lm_head.get_base_layer().weight is base.model.embed_tokens.weight


def test_policies_on_one_base_swap_quickly_and_stay_apart(tmp_path, make_run, pair_rows):
    policy = load_policy(make_run(tmp_path / "run", seed=1, start_seed=2))
    reference = load_reference(policy)
    found = []
    for one in (policy, reference, policy, reference):
        with active_for_scoring(one) as model:
            found.append(pair_logps(model, one.tokenizer, pair_rows).chosen_N.tolist())
    assert found[0] == found[2] != found[1] == found[3]


def kinds():
    from peft import IA3Config, LoraConfig, PromptTuningConfig

    lora = {"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    return {
        "dora": LoraConfig(**lora, use_dora=True),
        "bias": LoraConfig(**lora, bias="lora_only"),
        "whole modules": LoraConfig(**lora, modules_to_save=["lm_head"]),
        "tokens": LoraConfig(**lora, trainable_token_indices=[1]),
        "embeddings": LoraConfig(**{**lora, "target_modules": ["embed_tokens"]}),
        "ia3": IA3Config(target_modules=["k_proj"], feedforward_modules=[], task_type="CAUSAL_LM"),
        "virtual tokens": PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    }


@pytest.mark.parametrize("kind", list(kinds()))
def test_other_kinds_are_left_as_they_are(model_folder, kind):
    model = adapted(model_folder, kinds()[kind])
    before = bits(model)
    with merged(model) as was_merged:
        assert not was_merged
        assert_same(before, model)


def test_half_precision_would_round_the_change_away(model_folder):
    from peft import LoraConfig

    model = adapted(model_folder, LoraConfig(r=2, target_modules=["q_proj"]), dtype=torch.bfloat16)
    assert mergeable_layers(model) == []


def test_a_mix_of_adapters_is_left_as_it_is(model_folder):
    from peft import LoraConfig

    model = adapted(model_folder, LoraConfig(r=2, target_modules=["q_proj"]))
    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"]))
    assert len(mergeable_layers(model)) == 2
    model.base_model.set_adapter(["default", "second"])
    assert mergeable_layers(model) == []


def test_a_policy_without_its_adapter_on_is_not_merged(trained):
    with trained.model.disable_adapter():
        assert mergeable_layers(trained.model) == []


def test_weights_that_would_not_fit_beside_the_base_are_not_merged(trained, monkeypatch):
    monkeypatch.setattr(merged_adapter, "MAX_MERGED_BYTES", 1000)
    assert mergeable_layers(trained.model) == []


def test_a_model_that_somebody_trains_is_left_as_it_is(model_folder, tokenizer):
    from peft import LoraConfig

    from fedllm_eval.policy.policies import Backbone, Policy

    model = adapted(model_folder, LoraConfig(r=2, target_modules=["q_proj"]))
    before = bits(model)
    with active_for_scoring(Policy("mine", Backbone(model, "mine"), tokenizer)) as given:
        assert given is model
        assert_same(before, model)
