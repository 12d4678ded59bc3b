"""FedSVD: A from the singular vectors of the product, which stays what it was."""

import pytest
import torch

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.adapters.lora import is_b

from .conftest import product
from .test_exact_lora import lora_adapter, one


def only_b(adapter):
    return {name: tensor for name, tensor in adapter.items() if is_b(name)}


def stepped(rules, method, state, seeds, rows=(1, 2, 3), round_index=0):
    updates = [(only_b(lora_adapter(seed)), n) for seed, n in zip(seeds, rows, strict=True)]
    return rules.step(method, state, updates, round_index)


def test_a_round_by_hand(rules):
    method = rules.make("fedsvd")
    state = method.start(one(a=2.0, b=0.0))
    after = rules.step(method, state, [({"x.lora_B.weight": torch.tensor([[b]])}, n) for b, n in ((1.0, 1), (5.0, 3))])
    # By rows B = (1*1 + 3*5) / 4 = 4 and A = 2: the product 8 is 1 * 8 * 1, all of it in B.
    assert (after["adapter"]["x.lora_A.weight"].item(), after["adapter"]["x.lora_B.weight"].item()) == (1.0, 8.0)
    assert {n for n in method.broadcast(after, "a", 1)["adapter"]} == {"x.lora_A.weight", "x.lora_B.weight"}
    assert list(method.expects(after, "a", 1)["adapter"]) == ["x.lora_B.weight"]


def test_rows_of_a_are_orthonormal_and_the_product_is_the_mean_of_the_clients_products(rules):
    method = rules.make("fedsvd")
    state = method.start(lora_adapter(0))
    for round_index in range(3):
        seeds = [10 * round_index + k for k in (1, 2, 3)]
        before, state = state, stepped(rules, method, state, seeds, round_index=round_index)
        for module in "xy":
            a = state["adapter"][f"{module}.lora_A.weight"].double()
            torch.testing.assert_close(a @ a.mT, torch.eye(2).double(), atol=1e-6, rtol=0)
            clients = [product(before["adapter"] | only_b(lora_adapter(seed)), module) for seed in seeds]
            exact = sum(n * each for n, each in zip((1, 2, 3), clients, strict=True)) / 6
            torch.testing.assert_close(product(state["adapter"], module), exact, atol=1e-5, rtol=1e-5)
            # All of S stands in B: its columns are orthogonal, and as long as the singular values.
            b = state["adapter"][f"{module}.lora_B.weight"].double()
            singular = torch.linalg.svdvals(exact)[:2]
            torch.testing.assert_close(b.mT @ b, torch.diag(singular**2), atol=1e-4, rtol=1e-4)


def test_a_keeps_the_space_of_its_first_rows(rules):
    method = rules.make("fedsvd")
    start = lora_adapter(0)
    state = stepped(rules, method, method.start(start), (1, 2, 3))
    state = stepped(rules, method, state, (4, 5, 6), round_index=1)
    both = torch.cat([start["x.lora_A.weight"], state["adapter"]["x.lora_A.weight"]]).double()
    assert int(torch.linalg.matrix_rank(both, rtol=1e-5)) == 2


def test_writing_the_product_again_changes_nothing_the_second_time(rules):
    method = rules.make("fedsvd")
    once = stepped(rules, method, method.start(lora_adapter(0)), (1, 2, 3))
    again = rules.step(method, once, [(only_b(once["adapter"]), 1)])
    for name, tensor in once["adapter"].items():
        torch.testing.assert_close(again["adapter"][name], tensor, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "chosen"), [({"svd_period": 2}, [1, 3]), ({"svd_warmup": 2}, [2, 3]), ({"svd_warmup": 3}, [3])]
)
def test_a_is_chosen_again_when_it_is_time_and_else_it_is_ffa_lora(rules, settings, chosen):
    method, ffa = rules.make("fedsvd", **settings), rules.make("ffa_lora", uniform_weights=False)
    state, changed = method.start(lora_adapter(0)), []
    for round_index in range(4):
        plain = stepped(rules, ffa, state, (1, 2, 3), round_index=round_index)
        after = stepped(rules, method, state, (1, 2, 3), round_index=round_index)
        if torch.equal(after["adapter"]["x.lora_A.weight"], state["adapter"]["x.lora_A.weight"]):
            assert adapter_sha256(after["adapter"]) == adapter_sha256(plain["adapter"])
        else:
            changed.append(round_index)
        state = after
    assert changed == chosen


def test_a_product_of_zero_leaves_orthonormal_rows_to_train_along(rules):
    method = rules.make("fedsvd")
    zero = {name: t * 0 if is_b(name) else t for name, t in lora_adapter(0).items()}
    after = rules.step(method, method.start(zero), [(only_b(zero), 1)])["adapter"]
    a = after["x.lora_A.weight"]
    torch.testing.assert_close(a @ a.mT, torch.eye(2), atol=1e-6, rtol=0)
    assert not after["x.lora_B.weight"].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"svd_period": 0}, "svd_period is 0; it must be at least 1"), ({"svd_warmup": -1}, "must not be negative")],
)
def test_odd_settings_are_refused(rules, settings, message):
    with pytest.raises(ConfigError, match=message):
        rules.make("fedsvd", **settings)


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_a_stopped_run_goes_on_to_the_same_bits_and_loses_nothing_in_averaging(kit, tmp_path, task):
    settings = {"strategy": "fedsvd", "num_rounds": 3, "cohort_size": 2, "local_steps": 1, "keep_checkpoints": 3}
    whole = kit.make_trainer(tmp_path / "whole", task, **settings).train()
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=1)
    resumed = kit.make_trainer(tmp_path / "cut", task, **settings).train(resume=True)
    assert adapter_sha256(resumed.adapter) == adapter_sha256(whole.adapter)
    assert all(record["aggregation_error"] < 1e-5 for record in kit.records_of(tmp_path / "cut"))
    for name, tensor in whole.adapter.items():
        if not is_b(name):
            torch.testing.assert_close(tensor @ tensor.mT, torch.eye(len(tensor)), atol=1e-5, rtol=0)


def test_a_private_run_has_orthonormal_rows_and_a_guarantee(kit, tmp_path):
    private = {"dp_clip": 0.5, "dp_noise_multiplier": 0.8, "dp_delta": 1e-3, "cohort_rule": "poisson"}
    trainer = kit.make_trainer(tmp_path / "run", strategy="fedsvd", num_rounds=2, local_steps=1, **private)
    state = trainer.train()
    assert trainer.plan.guarantee is not None
    for name, tensor in state.adapter.items():
        if not is_b(name):
            torch.testing.assert_close(tensor @ tensor.mT, torch.eye(len(tensor)), atol=1e-5, rtol=0)
