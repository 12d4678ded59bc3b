"""Error feedback: what is held back is sent later, a lost upload changes nothing, and both ends of EF21 agree."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.engines.engine import Reply, Task
from fedllm_train.messages.feedback import ESTIMATE, RESIDUAL
from fedllm_train.messages.wire import ClientWire, ServerWire
from fedllm_train.messages.wire_settings import WireSettings

LOSSY = ["bf16", "int8", "int4", "int3", "sign", "drive", "topk:0.1", "topk-int8", "topk-int4", "ecolora"]
ZERO = {"b": torch.zeros(6, 10), "a": torch.zeros(140)}


def change_of(seed, step):
    values = torch.from_numpy(np.random.default_rng([seed, step]).normal(size=200).astype(np.float32))
    return {"b": values[:60].clone().reshape(6, 10), "a": values[60:].clone()}


def ends(wire, feedback):
    made = WireSettings(wire=wire, error_feedback=feedback)
    return tuple(kind(made, seed=4, first=lambda _: ZERO) for kind in (ClientWire, ServerWire))


def task_of(client_id, step):
    return Task(run="key", step=step, client_id=client_id, seed=0, learning_rate=0.0, message=b"")


def vector(adapter):
    return torch.cat([adapter[name].flatten().double() for name in sorted(adapter)])


@given(
    wire=st.sampled_from(LOSSY),
    outcomes=st.lists(st.sampled_from(["accepted", "refused", "absent"]), min_size=1, max_size=10),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_with_ef14_all_that_was_sent_and_what_is_left_is_all_that_was_meant(wire, outcomes, seed):
    """sum s + e = sum v over the visits that counted; e is kept in float32, the decoded s are added in float64."""
    client, server = ends(wire, "ef14")
    hidden, sent, meant = {}, torch.zeros(200).double(), torch.zeros(200).double()
    for step, outcome in enumerate(outcomes):
        if outcome == "absent":
            continue
        change = change_of(seed, step)
        packed, kept = client.pack_up({"adapter": change}, ZERO, hidden, task_of("ann", step))
        if outcome == "refused":  # what the client kept at that visit does not count
            continue
        reply = Reply(step=step, client_id="ann", message=packed.message)
        sent += vector(server.correction(reply, ZERO))
        meant += vector(change)
        hidden = kept
    left = vector(hidden[RESIDUAL]) if hidden else torch.zeros(200).double()
    size = float(meant.abs().max()) + float(left.abs().max()) + 1
    assert float((sent + left - meant).abs().max()) <= len(outcomes) * size * 2**-24


def test_ef14_sends_what_it_kept_and_the_plain_wire_never_does():
    # topk of 1 in 200: the first message has the largest value; the second, of no change at all, the next one.
    for feedback, second in (("ef14", 3.0), ("none", 0.0)):
        client, server = ends("topk:0.005", feedback)
        change = {"b": torch.zeros(6, 10), "a": torch.zeros(140)}
        change["a"][5], change["a"][9] = -4.0, 3.0
        packed, hidden = client.pack_up({"adapter": change}, ZERO, {}, task_of("ann", 0))
        first = server.correction(Reply(step=0, client_id="ann", message=packed.message), ZERO)
        assert float(first["a"][5]) == -4.0
        packed, _ = client.pack_up({"adapter": ZERO}, ZERO, hidden, task_of("ann", 1))
        again = server.correction(Reply(step=1, client_id="ann", message=packed.message), ZERO)
        assert float(again["a"][9]) == second


@pytest.mark.parametrize("wire", LOSSY)
def test_ef21s_estimate_comes_near_a_change_that_stays_the_same(wire):
    """C(v - g) is repeated until g is v: the error of a codec that shrinks every difference goes to zero."""
    client, _ = ends(wire, "ef21")
    hidden, errors = {}, []
    for step in range(60):
        packed, hidden = client.pack_up({"adapter": change_of(1, 0)}, ZERO, hidden, task_of("ann", step))
        errors.append(packed.relative_error)
    assert errors[-1] < 0.05
    off = (vector(hidden[ESTIMATE]) - vector(change_of(1, 0))).norm() / vector(change_of(1, 0)).norm()
    assert errors[-1] == pytest.approx(float(off), abs=1e-12)


@given(
    wire=st.sampled_from(LOSSY),
    history=st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=8),
)
@settings(max_examples=40, deadline=None)
def test_with_ef21_the_server_has_the_mean_of_what_its_clients_have_whatever_is_lost(wire, history):
    client, server = ends(wire, "ef21")
    weights = {"ann": 7, "bob": 3, "cyd": 12}
    hidden = {client_id: {} for client_id in weights}
    heard = set()
    for step, arrives in enumerate(history):
        for number, (client_id, comes) in enumerate(zip(weights, arrives, strict=True)):
            packed, kept = client.pack_up(
                {"adapter": change_of(number, step)}, ZERO, hidden[client_id], task_of(client_id, step)
            )
            if comes:
                reply = Reply(step=step, client_id=client_id, message=packed.message)
                server.estimates.add(client_id, server.correction(reply, ZERO), weights[client_id])
                hidden[client_id] = kept
                heard.add(client_id)
        server = ServerWire(
            WireSettings(wire=wire, error_feedback="ef21"), seed=4, first=lambda _: ZERO, state=server.state()
        )
        if heard:
            total = sum(weights[each] for each in heard)
            expected = sum(weights[each] * vector(hidden[each][ESTIMATE]) for each in heard) / total
            torch.testing.assert_close(vector(server.estimates.mean()), expected, rtol=1e-12, atol=1e-14)


def test_what_a_round_does_not_send_keeps_its_feedback():
    """RoLoRA sends B and A in turns: what was held back of one stays while the other is sent."""
    client, _ = ends("topk:0.1", "ef14")
    change = change_of(2, 0)
    only_a, only_b = ({name: change[name]} for name in ("a", "b"))
    _, hidden = client.pack_up({"adapter": only_a}, ZERO, {}, task_of("ann", 0))
    before = adapter_sha256({"a": hidden[RESIDUAL]["a"]})
    _, hidden = client.pack_up({"adapter": only_b}, ZERO, hidden, task_of("ann", 1))
    assert sorted(hidden[RESIDUAL]) == ["a", "b"]
    assert adapter_sha256({"a": hidden[RESIDUAL]["a"]}) == before
