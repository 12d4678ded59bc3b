"""A core between B and A: its gradient, that it is there only while it trains, and the frames it stands in."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.cored_model import cored
from fedllm_train.adapters.live import LiveAdapter
from fedllm_train.adapters.lora import Factors, factor_names, truncated_factors
from fedllm_train.adapters.lora_core import folded, random_frame, singular_frame, zero_cores

IDS = torch.arange(12)[None]


def peft_model(target_modules=("q_proj", "down_proj"), base=None, kit=None, **settings):
    settings = {"r": 3, "lora_alpha": 6, "target_modules": list(target_modules), "task_type": "CAUSAL_LM", **settings}
    return get_peft_model(base or kit.make_model(), LoraConfig(**settings))


def random_parts(model, seed=0, scale=0.3):
    """A, B and R of a model's adapter, none of them zero."""
    draw = torch.Generator().manual_seed(seed)
    factors = {n: torch.randn(t.shape, generator=draw) * scale for n, t in LiveAdapter(model).read().items()}
    cores = {n: torch.randn(t.shape, generator=draw) * scale for n, t in zero_cores(factors).items()}
    return factors, cores


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def test_the_gradient_of_the_core_is_that_of_the_weight_between_the_factors(kit):
    model = peft_model(kit=kit)
    factors, cores = random_parts(model)
    LiveAdapter(model).load(factors)
    with cored(model, cores) as between:
        model(input_ids=IDS, labels=IDS).loss.backward()
    # Independently: the plain model with s B R A written into its weights, all of which have gradients.
    plain = kit.make_model().requires_grad_(True)
    s = 6 / 3
    with torch.no_grad():
        for module, (a, b) in factor_names(factors).items():
            weight = plain.get_submodule(module.removeprefix("base_model.model.")).weight
            weight += s * factors[b] @ cores[f"{module}.lora_R.weight"] @ factors[a]
    plain(input_ids=IDS, labels=IDS).loss.backward()
    for module, (a, b) in factor_names(factors).items():
        gradient = plain.get_submodule(module.removeprefix("base_model.model.")).weight.grad
        expected = s * factors[b].mT @ gradient @ factors[a].mT
        assert expected.abs().max() > 1e-4
        torch.testing.assert_close(between[f"{module}.lora_R.weight"].grad, expected, rtol=1e-4, atol=1e-7)


def test_a_core_trains_in_whole_precision_on_a_base_in_half(kit):
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        model = peft_model(base=kit.make_model().to(dtype))
        factors, cores = random_parts(model)
        LiveAdapter(model).load(factors)
        with cored(model, cores) as between, torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
            model(input_ids=IDS, labels=IDS).loss.backward()
        gradients.append(torch.cat([core.grad.flatten() for core in between.values()]))
    assert gradients[1].dtype == torch.float32
    assert (gradients[1] - gradients[0]).norm() / gradients[0].norm() < 0.05  # bfloat16 keeps 8 bits


@pytest.mark.parametrize("transposed", [False, True])
def test_a_model_with_cores_is_the_model_of_the_folded_adapter(kit, transposed):
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=12, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    settings = {"base": GPT2LMHeadModel(config), "target_modules": ["c_fc", "c_attn"], "fan_in_fan_out": True}
    model = peft_model(**(settings if transposed else {"kit": kit}))
    base = logits(model)
    factors, cores = random_parts(model)
    live = LiveAdapter(model)
    live.load(factors)
    before = {name: parameter.shape for name, parameter in model.named_parameters()}
    without = logits(model)
    with cored(model, cores):
        between = logits(model)
        with model.disable_adapter():
            assert torch.equal(logits(model), base)
    assert {name: parameter.shape for name, parameter in model.named_parameters()} == before
    assert torch.equal(logits(model), without)  # nothing is left behind
    live.load(folded(factors, cores))
    torch.testing.assert_close(logits(model), between, rtol=1e-4, atol=1e-5)
    assert (between - without).abs().max() > 1e-2


def test_another_adapter_on_the_same_layers_knows_no_core(kit):
    model = peft_model(kit=kit)
    factors, cores = random_parts(model)
    model.add_adapter("ref", model.peft_config["default"])
    LiveAdapter(model).load(factors)
    LiveAdapter(model, "ref").load(factors)
    model.set_adapter("ref")
    reference = logits(model)
    with cored(model, cores):
        assert torch.equal(logits(model), reference)
        model.set_adapter("default")
        assert (logits(model) - reference).abs().max() > 1e-2


def test_an_error_meanwhile_leaves_nothing_behind(kit):
    model = peft_model(kit=kit)
    before = [name for name, _ in model.named_parameters()]
    with pytest.raises(RuntimeError), cored(model, random_parts(model)[1]):
        raise RuntimeError
    assert [name for name, _ in model.named_parameters()] == before
    assert not any(module._forward_hooks for module in model.modules())


def test_some_cores_rest(kit):
    model = peft_model(kit=kit)
    cores = random_parts(model)[1]
    with cored(model, cores, lambda name: "down_proj" in name) as between:
        assert {name for name, core in between.items() if core.requires_grad} == {n for n in cores if "down_proj" in n}


def test_a_random_frame_is_orthonormal_and_follows_from_the_seed(kit):
    adapter = LiveAdapter(peft_model(kit=kit)).read()
    frame = random_frame(adapter, 1)
    for a, b in factor_names(adapter).values():
        for gram in (frame[a] @ frame[a].mT, frame[b].mT @ frame[b]):
            torch.testing.assert_close(gram, torch.eye(3), rtol=0, atol=1e-6)
    assert {n: t.shape for n, t in frame.items()} == {n: t.shape for n, t in adapter.items()}
    assert all(torch.equal(tensor, random_frame(adapter, 1)[name]) for name, tensor in frame.items())
    assert not any(torch.equal(tensor, random_frame(adapter, 2)[name]) for name, tensor in frame.items())


@pytest.mark.parametrize(("d", "m"), [(9, 6), (6, 9)])
def test_a_singular_frame_is_the_best_approximation_of_its_rank(d, m):
    matrix = torch.randn(d, m, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    frame, core = singular_frame("q", matrix, 3)
    best, singular = truncated_factors(Factors(matrix, torch.eye(m, dtype=torch.float64)), 3)
    torch.testing.assert_close(frame.left @ core @ frame.right, best.product(), rtol=0, atol=1e-12)
    torch.testing.assert_close(core.diagonal(), singular[:3])
    for gram in (frame.left.mT @ frame.left, frame.right @ frame.right.mT):
        torch.testing.assert_close(gram, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (frame.left.gather(0, frame.left.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_a_matrix_of_zeros_still_gives_a_frame():
    frame, core = singular_frame("q", torch.zeros(4, 3, dtype=torch.float64), 2)
    torch.testing.assert_close(frame.left.mT @ frame.left, torch.eye(2, dtype=torch.float64))
    assert not core.any()


def test_a_rank_above_the_smaller_side_is_refused(kit):
    adapter = LiveAdapter(peft_model(kit=kit, r=17)).read()  # q_proj is 16 x 16
    with pytest.raises(ConfigError, match=r"LoRA rank 17 is more than 16, the smaller side of .*choose a smaller"):
        random_frame(adapter, 0)
    with pytest.raises(ConfigError, match="rank 3 is more than 2"):
        singular_frame("q", torch.zeros(2, 5), 3)


def test_folded_cores_are_plain_factors_that_peft_loads(kit, tmp_path):
    model = peft_model(kit=kit)
    factors, cores = random_parts(model)
    LiveAdapter(model).load(folded(factors, cores))
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(kit.make_model(), tmp_path)
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-5, atol=1e-6)
