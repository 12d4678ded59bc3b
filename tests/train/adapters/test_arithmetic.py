"""Sums, distances and files of adapters."""

import pytest
import torch
from peft import AdaLoraConfig, PrefixTuningConfig, PromptEncoderConfig, get_peft_model

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import (
    RunningSum,
    adapter_sha256,
    distance,
    load_adapter,
    save_adapter,
)
from fedllm_train.adapters.live import LiveAdapter
from fedllm_train.messages import codec


def test_the_mean_of_one_adapter_is_that_adapter_to_the_bit():
    generator = torch.Generator().manual_seed(0)
    adapter = {"w": torch.randn(1000, generator=generator) * 1e-9, "v": torch.randn(1000, generator=generator) * 1e9}
    total = RunningSum()
    total.add(adapter, 12_345_677)
    mean = total.mean()
    assert all(torch.equal(mean[name], adapter[name]) for name in adapter)


def test_the_mean_matches_numpy_in_float64():
    generator = torch.Generator().manual_seed(1)
    adapters = [{"w": torch.randn(50, generator=generator)} for _ in range(7)]
    weights = [3, 1, 4, 1, 5, 9, 2]
    total = RunningSum()
    for adapter, weight in zip(adapters, weights, strict=True):
        total.add(adapter, weight)
    stacked = torch.stack([adapter["w"] for adapter in adapters]).double().numpy()
    expected = (stacked * [[w] for w in weights]).sum(axis=0) / sum(weights)
    assert total.mean()["w"].numpy() == pytest.approx(expected, rel=1e-7)


def test_distance_is_euclidean_over_all_tensors():
    a = {"x": torch.tensor([0.0, 3.0]), "y": torch.tensor([1.0])}
    b = {"x": torch.tensor([0.0, 0.0]), "y": torch.tensor([5.0])}
    assert distance(a, b) == 5.0  # sqrt(3^2 + 4^2)


def test_files_and_messages_bring_the_same_bits_back(tmp_path):
    adapter = {"w": torch.randn(3, 4), "half": torch.randn(5).to(torch.bfloat16)}
    save_adapter(adapter, tmp_path / "a.safetensors")
    for copy in (
        load_adapter(tmp_path / "a.safetensors"),
        codec.decode(codec.encode({"adapter": adapter}))["adapter"],
    ):
        assert adapter_sha256(copy) == adapter_sha256(adapter)
    assert adapter_sha256({**adapter, "w": adapter["w"] + 1e-7}) != adapter_sha256(adapter)


def test_a_live_adapter_is_loaded_in_place_and_fits_or_is_refused(kit):
    model = get_peft_model(kit.make_model(), kit.lora())
    live = LiveAdapter(model)
    before = live.read()
    addresses = {name: p.data_ptr() for name, p in model.named_parameters() if p.requires_grad}
    live.load({name: tensor + 1 for name, tensor in before.items()})
    assert all(torch.equal(live.read()[name], before[name] + 1) for name in before)
    assert addresses == {name: p.data_ptr() for name, p in model.named_parameters() if p.requires_grad}
    with pytest.raises(ConfigError, match="does not fit the model"):
        live.load({**before, "extra": torch.zeros(1)})
    with pytest.raises(ConfigError, match="has shape"):
        live.load({name: tensor[:1] for name, tensor in before.items()})


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, prefix_projection=True),
            "not what is trained",
        ),
        (
            PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=3, encoder_hidden_size=4),
            "not what is trained",
        ),
        (AdaLoraConfig(task_type="CAUSAL_LM", total_step=10, target_modules=["q_proj"]), "its ranks change"),
    ],
    ids=["projected_prefix", "p_tuning", "adalora"],
)
def test_an_adapter_that_is_saved_in_another_form_than_trained_is_refused(kit, config, reason):
    with pytest.raises(ConfigError, match=f"{type(config).__name__} cannot be averaged over clients: .*{reason}"):
        LiveAdapter(get_peft_model(kit.make_model(), config))


def test_a_whole_model_is_read_and_loaded_with_tied_weights_once(kit):
    model = kit.make_model()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    live = LiveAdapter(model)
    values = live.read()
    assert "model.embed_tokens.weight" in values
    assert "lm_head.weight" not in values
    live.load({name: tensor + 1 for name, tensor in values.items()})
    assert torch.equal(model.lm_head.weight, values["model.embed_tokens.weight"] + 1)
