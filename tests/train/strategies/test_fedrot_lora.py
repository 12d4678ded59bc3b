"""FedRot-LoRA: turned factors have the product they had, and lie nearer to one another."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.adapters.lora import ProductSum, aggregation_error
from fedllm_train.strategies.fedrot_lora import aligned, rotation

from .conftest import product
from .test_exact_lora import lora_adapter


def turned(adapter, angle):
    """The same products, factors turned by an angle in the plane."""
    angle = torch.tensor(angle, dtype=torch.float64)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    return {
        name: (turn.mT @ tensor.double() if "lora_A" in name else tensor.double() @ turn)
        for name, tensor in adapter.items()
    }


def test_a_quarter_turn_by_hand():
    # A of the client is the global one turned by 90 degrees; lambda 1 turns it back, lambda 0.5 by 45 degrees: the
    # rotation nearest to half of the identity and half of a quarter turn.
    reference = {"x.lora_A.weight": torch.eye(2), "x.lora_B.weight": torch.eye(2)}
    client = turned(reference, torch.pi / 2)
    back = aligned(client, reference, 1, 1.0)
    torch.testing.assert_close(back["x.lora_A.weight"], torch.eye(2).double())
    half = aligned(client, reference, 1, 0.5)["x.lora_A.weight"]
    torch.testing.assert_close(half.abs(), torch.full((2, 2), 0.5**0.5).double())
    torch.testing.assert_close(product({n: t for n, t in back.items()}), torch.eye(2).double())


def test_odd_rounds_look_at_a_even_ones_at_b_and_the_first_at_nothing(rules):
    method = rules.make("fedrot_lora", rotation_strength=1.0)
    reference = lora_adapter(0)
    own = lora_adapter(1)
    sent = {}
    for round_index in range(3):
        visit = rules.visit({"adapter": reference}, lambda given, options: own, round_index=round_index)
        sent[round_index] = method.client_update(visit)["adapter"]
    assert adapter_sha256(sent[0]) == adapter_sha256(own)

    def distance(adapter, factor):
        name = f"x.lora_{factor}.weight"
        return float((adapter[name] - reference[name]).norm())

    assert distance(sent[1], "A") < distance(sent[0], "A")
    assert distance(sent[2], "B") < distance(sent[0], "B")
    assert distance(sent[1], "A") < distance(sent[2], "A")
    assert distance(sent[2], "B") < distance(sent[1], "B")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), rank=st.integers(1, 4), strength=st.floats(0, 1), round_index=st.integers(1, 4))
def test_products_stay_and_the_turn_is_a_rotation(seed, rank, strength, round_index):
    reference, own = (lora_adapter(seed + k, r=rank, modules=("x",)) for k in (0, 1))
    own = {name: tensor.double() for name, tensor in own.items()}
    after = aligned(own, reference, round_index, strength)
    torch.testing.assert_close(product(after), product(own), atol=1e-9, rtol=1e-9)
    turn = rotation(reference["x.lora_A.weight"].double() @ own["x.lora_A.weight"].mT, strength)
    torch.testing.assert_close(turn.mT @ turn, torch.eye(rank).double(), atol=1e-9, rtol=0)
    assert float(torch.linalg.det(turn)) == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), strength=st.floats(0.05, 1), angle=st.floats(-2.8, 2.8), is_a=st.booleans())
def test_a_turned_client_comes_nearer_and_all_the_way_it_is_back(seed, strength, angle, is_a):
    reference = {name: tensor.double() for name, tensor in lora_adapter(seed, modules=("x",)).items()}
    own = turned(reference, angle)
    factor = "x.lora_A.weight" if is_a else "x.lora_B.weight"
    after = aligned(own, reference, 1 if is_a else 2, strength)
    far = float((own[factor] - reference[factor]).norm())
    assert float((after[factor] - reference[factor]).norm()) <= far * (1 + 1e-9) + 1e-9
    whole = aligned(own, reference, 1 if is_a else 2, 1.0)
    torch.testing.assert_close(whole[factor], reference[factor], atol=1e-7, rtol=1e-7)


def test_averaging_loses_nothing_of_clients_that_differ_by_turns_alone(rules):
    reference = lora_adapter(3)
    clients = [turned(reference, angle) for angle in (-1.0, 0.2, 1.3)]
    lost = []
    for strength in (0.0, 0.5, 1.0):
        method, products, sums = rules.make("fedrot_lora", rotation_strength=strength), ProductSum(), {}
        for client in clients:
            visit = rules.visit({"adapter": reference}, lambda g, o, client=client: client, round_index=1)
            update = method.client_update(visit)
            products.add(update["adapter"], 1)
            rules.fold(method, sums, update, 1)
        after = method.server_step(method.start(reference), sums, 1)
        lost.append(aggregation_error(after["adapter"], products.mean()))
    assert lost[0] > lost[1] > lost[2]
    assert lost[2] == pytest.approx(0.0, abs=1e-6)


def test_a_strength_outside_the_way_is_refused(rules):
    with pytest.raises(ConfigError, match=r"rotation_strength is 1.5; it must lie in \[0, 1\]"):
        rules.make("fedrot_lora", rotation_strength=1.5)


def test_a_strength_of_0_is_fedavg_to_the_bit(kit, tmp_path):
    plain = kit.make_trainer(tmp_path / "fedavg", num_rounds=3, local_steps=1).train()
    still = kit.make_trainer(
        tmp_path / "still", strategy="fedrot_lora", num_rounds=3, local_steps=1, rotation_strength=0.0
    ).train()
    assert adapter_sha256(still.adapter) == adapter_sha256(plain.adapter)
    assert still.ledger.upload_bytes == plain.ledger.upload_bytes


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_a_stopped_run_goes_on_to_the_same_bits(kit, tmp_path, task):
    choices = {"strategy": "fedrot_lora", "num_rounds": 3, "cohort_size": 2, "local_steps": 1, "keep_checkpoints": 3}
    whole = kit.make_trainer(tmp_path / "whole", task, **choices).train()
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=1)
    resumed = kit.make_trainer(tmp_path / "cut", task, **choices).train(resume=True)
    assert adapter_sha256(resumed.adapter) == adapter_sha256(whole.adapter)
    plain = kit.make_trainer(tmp_path / "plain", task, **(choices | {"strategy": "fedavg"})).train()
    assert adapter_sha256(plain.adapter) != adapter_sha256(whole.adapter)
