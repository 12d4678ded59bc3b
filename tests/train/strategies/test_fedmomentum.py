"""FedMomentum: the mean product, split between the adapter and the base."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as drawn
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.adapters.lora import Factors, is_b
from fedllm_train.strategies.fedmomentum import split_product

from .conftest import added, product, shift_matrix
from .test_exact_lora import fresh_adapter, lora_adapter, one


def test_a_round_by_hand(rules):
    method = rules.make("fedmomentum")
    state = method.start(one(a=1.0, b=0.0))
    after = rules.step(method, state, [(one(a=1.0, b=2.0), 1), (one(a=3.0, b=4.0), 3)])
    # (1*2 + 3*12) / 4 = 9.5, of rank 1: all of it in the adapter, evenly.
    assert after["adapter"]["x.lora_A.weight"].item() == pytest.approx(9.5**0.5)
    assert after["adapter"]["x.lora_B.weight"].item() == pytest.approx(9.5**0.5)
    assert not after["base_shift"]


@pytest.mark.parametrize(("energy", "lost"), [(1.0, 1e-6), (0.9999, 0.01), (0.9, 0.9)])
def test_adapter_and_base_hold_the_mean_product_as_far_as_is_asked(rules, energy, lost):
    method = rules.make("fedmomentum", residual_energy=energy)
    state = method.start(fresh_adapter())
    for round_index in range(2):
        clients = [(lora_adapter(10 * round_index + k), n) for k, n in ((1, 1), (2, 2), (3, 3))]
        before, state = state, rules.step(method, state, clients, round_index)
        for module in "xy":
            mean = sum(n * product(each, module) for each, n in clients) / 6
            made = added(state, module) - shift_matrix(before, module)
            assert float((made - mean).norm()) <= lost * float(mean.norm())
            # The adapter is the best of its rank, and balanced.
            left, right = (state["adapter"][f"{module}.lora_{factor}.weight"].double() for factor in "BA")
            best = torch.linalg.svdvals(mean)[:2]
            torch.testing.assert_close(left.mT @ left, torch.diag(best), atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(right @ right.mT, torch.diag(best), atol=1e-4, rtol=1e-4)


@drawn(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), inner=st.integers(1, 7), rank=st.integers(1, 4), energy=st.floats(0.5, 1.0))
def test_what_is_dropped_is_less_than_the_rest_of_the_energy(seed, inner, rank, energy):
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(*size, generator=generator).double() for size in ((6, inner), (inner, 5)))
    whole = left @ right
    first, rest = split_product(Factors(left, right), rank, energy)
    lost = float((whole - first.product() - rest.product()).square().sum())
    assert lost <= (1 - energy) * float(whole.square().sum()) + 1e-9
    assert first.left.shape == (6, rank)
    # One component less would not have been enough.
    if rest.left.shape[1] and energy < 1:
        less = rest.left[:, :-1] @ rest.right[:-1]
        assert (
            float((whole - first.product() - less).square().sum()) > (1 - energy) * float(whole.square().sum()) - 1e-9
        )


def test_a_direction_of_no_size_can_be_trained_again(rules):
    method = rules.make("fedmomentum")
    narrow = {name: t if not is_b(name) else t * torch.tensor([1.0, 0.0]) for name, t in lora_adapter(1).items()}
    after = rules.step(method, method.start(fresh_adapter()), [(narrow, 1)])["adapter"]
    torch.testing.assert_close(product(after), product(narrow), atol=1e-5, rtol=1e-5)
    assert not after["x.lora_B.weight"][:, 1].any()
    assert float(after["x.lora_A.weight"][1].norm()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("energy", [0.0, 1.5])
def test_what_is_no_share_is_refused(rules, energy):
    with pytest.raises(ConfigError, match=rf"residual_energy is {energy}; it must lie in \(0, 1\]"):
        rules.make("fedmomentum", residual_energy=energy)


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_a_stopped_run_goes_on_to_the_same_bits(kit, tmp_path, task):
    settings = {"strategy": "fedmomentum", "num_rounds": 3, "cohort_size": 2, "local_steps": 1, "keep_checkpoints": 3}
    whole = kit.make_trainer(tmp_path / "whole", task, **settings).train()
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=1)
    resumed = kit.make_trainer(tmp_path / "cut", task, **settings).train(resume=True)
    for part in whole.server:
        assert adapter_sha256(resumed.server[part]) == adapter_sha256(whole.server[part])
    files = [tmp_path / run / "adapter" / "adapter_model.safetensors" for run in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert all(record["aggregation_error"] <= 0.0101 for record in kit.records_of(tmp_path / "cut"))


def test_keeping_all_loses_nothing_in_a_run(kit, tmp_path):
    kit.make_trainer(tmp_path / "run", strategy="fedmomentum", residual_energy=1.0, cohort_size=2).train()
    assert all(record["aggregation_error"] < 1e-5 for record in kit.records_of(tmp_path / "run"))
