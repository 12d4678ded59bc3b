"""Shifts of the base weights: their algebra against dense matrices, and the models that compute with them."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.base_shift import add_to_shift, compressed, finished_factors, shift_change, travelling
from fedllm_train.adapters.live import LiveAdapter
from fedllm_train.adapters.lora import Factors, ProductSum, aggregation_error, factor_names
from fedllm_train.adapters.shifted_model import check_shiftable, save_finished_adapter, shifted


def factors(seed, d=12, m=10, r=2):
    generator = torch.Generator().manual_seed(seed)
    return Factors(
        torch.randn(d, r, generator=generator, dtype=torch.float64),
        torch.randn(r, m, generator=generator, dtype=torch.float64),
    )


def dense(shift, module="x"):
    if f"{module}.matrix" in shift:
        return shift[f"{module}.matrix"]
    return shift[f"{module}.left"] @ shift[f"{module}.right"]


def test_a_growing_shift_is_the_dense_sum_in_as_few_numbers_as_it_takes():
    shift, expected = {}, torch.zeros(12, 10, dtype=torch.float64)
    sizes = []
    for seed in range(5):
        shift = add_to_shift(shift, {"x": factors(seed)})
        expected += factors(seed).product()
        torch.testing.assert_close(dense(shift), expected, rtol=0, atol=1e-12)
        sizes.append(sum(tensor.numel() for tensor in shift.values()))
    # Ranks 2 and 4 are 2 * 22 and 4 * 22 numbers; rank 6 would be 132, more than the 12 * 10 of the matrix itself.
    assert sizes == [44, 88, 120, 120, 120]


def test_what_is_added_twice_takes_no_more_room():
    once = add_to_shift({}, {"x": factors(0)})
    again = add_to_shift(once, {"x": factors(0)})
    assert {name: tensor.shape for name, tensor in again.items()} == {name: t.shape for name, t in once.items()}
    torch.testing.assert_close(dense(again), 2 * dense(once), rtol=0, atol=1e-12)


def test_what_cancels_leaves_nothing():
    for r in (2, 10):  # as factors, and with as many columns as the matrix is wide
        here = factors(0, r=r)
        both = Factors(torch.cat([here.left, -here.left], dim=1), torch.cat([here.right, here.right]))
        assert compressed(both).left.shape == (12, 0)
        assert add_to_shift({}, {"x": both}) == {}


@pytest.mark.parametrize(("d", "m"), [(12, 10), (10, 12)])
def test_compression_keeps_the_matrix(d, m):
    for r in (3, 9, 10, 25):
        matrix = factors(r, d=d, m=m, r=r)
        small = compressed(matrix)
        assert small.left.shape[1] == min(r, 10)
        torch.testing.assert_close(small.product(), matrix.product(), rtol=0, atol=1e-11)


def test_the_aggregation_error_counts_what_went_into_the_base():
    # Products 2*1 and 4*3, mean 7; means 3 * 2 = 6; a shift of 1 makes up for it, one of 0.5 leaves half of 1 of 7.
    updates = [
        {"x.lora_A.weight": torch.tensor([[a]]), "x.lora_B.weight": torch.tensor([[b]])}
        for a, b in ((1.0, 2.0), (3.0, 4.0))
    ]
    mean = {"x.lora_A.weight": torch.tensor([[2.0]]), "x.lora_B.weight": torch.tensor([[3.0]])}
    products = ProductSum()
    for each in updates:
        products.add(each, 1)
    for shift, expected in ((0.0, 1 / 7), (1.0, 0.0), (0.5, 0.5 / 7)):
        before = {"adapter": mean, "base_shift": {"x.matrix": torch.tensor([[4.0]]).double()}}
        after = {"adapter": mean, "base_shift": {"x.matrix": torch.tensor([[4.0 + shift]]).double()}}
        error = aggregation_error(mean, products.mean(), shift_change(before, after))
        assert error == pytest.approx(expected, abs=1e-12)


def test_a_finished_adapter_is_factors_plus_shift():
    here, moved = factors(0), factors(1, r=3)
    adapter = {"x.lora_A.weight": here.right, "x.lora_B.weight": here.left}
    done = finished_factors(adapter, add_to_shift({}, {"x": moved}))
    assert done["x.lora_A.weight"].shape == (5, 10)
    product = done["x.lora_B.weight"] @ done["x.lora_A.weight"]
    torch.testing.assert_close(product, here.product() + moved.product(), rtol=0, atol=1e-12)
    # What cancels still needs a rank that PEFT can load.
    gone = finished_factors(adapter, add_to_shift({}, {"x": Factors(-here.left, here.right)}))
    assert gone["x.lora_A.weight"].shape == (1, 10)
    assert not gone["x.lora_B.weight"].any()
    assert finished_factors(adapter, {}) == adapter


def gpt2(dtype=torch.float32):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=12, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).to(dtype)
    # Conv1D keeps its weight transposed, and is not square here: the case a released FedEx-LoRA gets wrong.
    lora = LoraConfig(r=2, lora_alpha=6, target_modules=["c_fc", "c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    return get_peft_model(model, lora)


def random_state(model, scale=0.1):
    adapter = {n: torch.randn_like(t) * scale for n, t in LiveAdapter(model).read().items()}
    terms = {}
    for seed, (module, (a, b)) in enumerate(factor_names(adapter).items()):
        term = factors(seed, d=adapter[b].shape[0], m=adapter[a].shape[1], r=1 if seed else 12)
        terms[module] = Factors(term.left * scale, term.right * scale)
    return {"adapter": adapter, "base_shift": add_to_shift({}, terms)}


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(10)[None]).logits


def test_a_shift_is_the_product_on_transposed_weights_too(tmp_path):
    model = gpt2()
    plain = logits(model)
    state = random_state(model)
    assert {name.rsplit(".", 1)[1] for name in state["base_shift"]} == {"left", "right", "matrix"}
    LiveAdapter(model).load(state["adapter"])
    with shifted(model, travelling(state["base_shift"])):
        beside = logits(model)
        with model.disable_adapter():
            torch.testing.assert_close(logits(model), plain, rtol=0, atol=0)  # the reference knows no shift
    assert (logits(model) - beside).abs().max() > 1e-2
    # The same by writing into the weights: W0 is (m, d) here, so s (B A)' and s M' are added.
    for module in factor_names(state["adapter"]):
        layer = model.get_submodule(module)
        layer.base_layer.weight.data += layer.scaling["default"] * dense(state["base_shift"], module).mT.float()
    torch.testing.assert_close(logits(model), beside, rtol=1e-4, atol=1e-5)
    # And as a plain adapter on the original base, read by PEFT alone.
    save_finished_adapter(model, state, tmp_path)
    base = gpt2().unload()
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base, tmp_path)), beside, rtol=1e-4, atol=1e-5)


def test_a_shift_finer_than_the_base_weights_is_not_rounded_away():
    model = gpt2(torch.bfloat16)
    module = next(iter(factor_names(LiveAdapter(model).read())))
    layer = model.get_submodule(module)
    weight = layer.base_layer.weight.float().mT  # (d, m)
    fine = weight * 2**-10
    # Merged, nothing of it would be left: bfloat16 has 8 bits.
    assert torch.equal((weight + fine).bfloat16(), weight.bfloat16())
    x = torch.randn(3, weight.shape[1])
    # The layer's own output is in bfloat16 as well, so what the shift adds is looked at where the base gives 0.
    layer.base_layer.weight.data.zero_()
    layer.base_layer.bias.data.zero_()
    with shifted(model, {f"{module}.matrix": fine}), torch.no_grad():
        added = layer(x.bfloat16())
    expected = 3.0 * x.bfloat16().float() @ fine.mT  # s = 6 / 2
    torch.testing.assert_close(added.float(), expected, rtol=2**-8, atol=0)


def test_layers_that_are_not_linear_are_refused():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv1d(4, 4, 3)

    model = get_peft_model(Net(), LoraConfig(r=2, target_modules=["conv"]))
    with pytest.raises(ConfigError, match=r"the adapter sits on .*conv, a Conv1d"):
        check_shiftable(model, "flora")
    check_shiftable(gpt2(), "flora")
