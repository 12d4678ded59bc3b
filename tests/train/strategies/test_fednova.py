"""FedNova: the server rule by hand, and equal numbers of steps give FedAvg's adapter to the bit."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.aggregation.aggregation import Inbox
from fedllm_train.engines.engine import Reply
from fedllm_train.messages import codec
from fedllm_train.messages.wire import ServerWire
from fedllm_train.messages.wire_settings import WireSettings


def update(value, steps):
    return {"adapter": {"w": torch.tensor([value])}, "steps": {"num_steps": torch.tensor([steps])}}


def test_the_server_rule_by_hand(rules):
    strategy = rules.make("fednova")
    state = strategy.start(rules.one(w=[1.0]))
    # p = 1/4, 3/4; a = 2, 4; d = (3 - 1)/2 = 1 and (9 - 1)/4 = 2.
    # Mean steps 2/4 + 3*4/4 = 3.5, mean d = 1/4 + 3*2/4 = 1.75: theta = 1 + 3.5 * 1.75 = 7.125. FedAvg says 7.5.
    state = rules.step(strategy, state, [(update(3.0, 2), 1), (update(9.0, 4), 3)])
    assert state["adapter"]["w"].tolist() == pytest.approx([7.125], abs=1e-6)
    assert rules.step(rules.make("fedavg"), state, [(update(3.0, 2), 1), (update(9.0, 4), 3)])["adapter"][
        "w"
    ].tolist() == [7.5]


def test_one_client_gives_its_own_adapter_whatever_its_steps(rules):
    strategy = rules.make("fednova")
    state = strategy.start(rules.one(w=[0.1]))
    assert rules.step(strategy, state, [(update(0.7, 13), 29)])["adapter"]["w"].tolist() == [torch.tensor(0.7).item()]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    clients=st.lists(st.tuples(st.floats(-8, 8, width=32), st.floats(0.01, 300)), min_size=1, max_size=6),
    steps=st.integers(1, 1000),
)
def test_equal_steps_are_fedavg_to_the_bit_whatever_the_weights(rules, clients, steps):
    start = rules.one(w=[0.3])
    ours, plain = rules.make("fednova"), rules.make("fedavg")
    updates = [(update(value, steps), weight) for value, weight in clients]
    got = rules.step(ours, ours.start(start), updates)["adapter"]
    assert adapter_sha256(got) == adapter_sha256(rules.step(plain, plain.start(start), updates)["adapter"])


@pytest.mark.parametrize("steps", [0, -3])
def test_a_number_of_steps_that_is_none_is_left_out(rules, steps):
    strategy = rules.make("fednova")
    inbox = Inbox(
        strategy=strategy, wire=ServerWire(WireSettings(), seed=0, first=lambda _: {}), start_adapter=rules.one(w=[1.0]), max_norm=None
    )
    reply = Reply(step=0, client_id="a", message=codec.encode(update(1.0, steps)), num_rows=1)
    assert f"it claims [{steps}] steps" in inbox.read(reply, strategy.start(rules.one(w=[1.0])))[2]


def test_a_run_with_equal_steps_is_fedavgs_and_one_by_epochs_is_not(kit, tmp_path):
    ends = {}
    for work in ({"local_steps": 2}, {"local_epochs": 1.0}):
        for strategy in ("fedavg", "fednova"):
            run = tmp_path / f"{strategy}-{next(iter(work))}"
            state = kit.make_trainer(run, strategy=strategy, num_rounds=2, **work).train()
            ends[strategy, next(iter(work))] = adapter_sha256(state.server["adapter"])
    assert ends["fedavg", "local_steps"] == ends["fednova", "local_steps"]
    assert ends["fedavg", "local_epochs"] != ends["fednova", "local_epochs"]


def test_a_resumed_run_ends_alike(kit, tmp_path):
    whole = kit.make_trainer(tmp_path / "whole", strategy="fednova", local_epochs=1.0, keep_checkpoints=4).train()
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=1)
    again = kit.make_trainer(tmp_path / "cut", strategy="fednova", local_epochs=1.0, keep_checkpoints=4).train(
        resume=True
    )
    assert adapter_sha256(again.server["adapter"]) == adapter_sha256(whole.server["adapter"])
