"""What goes down: every client reads the same bits whatever it missed, in few bytes, and a resume changes none."""

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError, DownloadError
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.engines.engine import NO_STEP, Reply, Task
from fedllm_train.messages import codec
from fedllm_train.messages.chain import Chain, Change
from fedllm_train.messages.wire import ClientWire, ServerWire
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.messages.wire_state import WireState

WIRES = ["bf16", "int8", "int4", "sign", "drive", "topk:0.3", "topk-int4", "ecolora"]
NUM_VALUES = 300


@cache
def adapter_at(step):
    """An adapter of 300 values in two tensors; round 0's is the starting adapter."""
    rng = np.random.default_rng([7, max(step, 0)])
    values = np.random.default_rng(7).normal(size=NUM_VALUES) + 0.1 * (step > 0) * rng.normal(size=NUM_VALUES)
    tensor = torch.from_numpy(values.astype(np.float32))
    return {"b": tensor[:100].clone().reshape(10, 10), "a": tensor[100:].clone()}


START = adapter_at(0)


def settings_of(wire, base="previous"):
    return WireSettings(download_wire=wire, download_base=base)


def task_of(message, client_id, step):
    return Task(run="key", step=step, client_id=client_id, seed=0, learning_rate=0.0, message=message)


def through_disk(state):
    """A state as a checkpoint holds it."""
    record = state.as_record()
    tensors = codec.decode(codec.encode(state.tensors)) if state.tensors else {}
    return WireState(tensors=tensors, **record)


@dataclass
class Federation:
    """A server and clients that keep what they read when their reply is accepted."""

    settings: WireSettings
    server: ServerWire = None
    kept: dict = field(default_factory=dict)

    def __post_init__(self):
        self.server = self.server or ServerWire(self.settings, seed=3, first=lambda _: START)
        self.client = ClientWire(self.settings, seed=3, first=lambda _: START)

    def resume(self):
        self.server = ServerWire(self.settings, seed=3, first=lambda _: START, state=through_disk(self.server.state()))

    def visit(self, client_id, step, outcome="accepted"):
        """Send a broadcast; return what the client read, what the server thinks it read, and the message."""
        parts = {"adapter": adapter_at(step)}
        packed = self.server.pack_down(parts, client_id, step)
        hidden = self.kept.get(client_id, {})
        received, kept = self.client.unpack_down(task_of(packed.message, client_id, step), hidden)
        read = self.server.as_read(parts, client_id, step)
        if outcome == "lost":
            reply, problem = Reply(step=step, client_id=client_id, reason="lost"), "lost"
        else:
            reply = Reply(step=step, client_id=client_id, message=b"m")
            problem = None if outcome == "accepted" else "refused"
        self.server.noted(reply, problem)
        if outcome == "accepted":
            self.kept[client_id] = kept
        return received["adapter"], read["adapter"], packed


# -- the same bits ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("base", ["previous", "start", "zero"])
def test_client_and_server_agree_on_what_was_read_to_the_bit(wire, base):
    federation = Federation(settings_of(wire, base))
    for step in range(5):
        read, thought, _ = federation.visit("ann", step)
        assert adapter_sha256(read) == adapter_sha256(thought)
        assert step == 0 or adapter_sha256(read) != adapter_sha256(adapter_at(step))  # it could fail: the wire loses


@pytest.mark.parametrize("wire", ["int4", "drive", "topk-int4", "ecolora"])
@pytest.mark.parametrize("missed", [1, 2, 5, 12])
def test_a_client_that_missed_rounds_equals_one_that_missed_none_to_the_bit(wire, missed):
    federation = Federation(settings_of(wire))
    federation.visit("rare", 0)
    for step in range(missed + 2):
        always, _, _ = federation.visit("always", step)
    rare, _, _ = federation.visit("rare", missed + 1)
    new, _, _ = federation.visit("new", missed + 1)
    assert adapter_sha256(rare) == adapter_sha256(always) == adapter_sha256(new)


OUTCOMES = st.sampled_from(["absent", "accepted", "refused", "lost"])


@given(
    wire=st.sampled_from(WIRES),
    history=st.lists(st.tuples(OUTCOMES, OUTCOMES, OUTCOMES, st.booleans()), min_size=1, max_size=12),
)
@settings(max_examples=40, deadline=None)
def test_whatever_is_refused_or_lost_and_wherever_a_run_resumes_all_read_one_adapter(wire, history):
    cut, whole = Federation(settings_of(wire)), Federation(settings_of(wire))
    for step, (*outcomes, resumes) in enumerate(history):
        read = set()
        for client_id, outcome in zip(("ann", "bob", "cyd"), outcomes, strict=True):
            if outcome != "absent":
                got, thought, packed = cut.visit(client_id, step, outcome)
                read |= {adapter_sha256(got), adapter_sha256(thought)}
                assert packed.message == whole.visit(client_id, step, outcome)[2].message
        assert len(read) <= 1
        if resumes:
            cut.resume()


# -- bytes ------------------------------------------------------------------------------------------------------------


def test_a_client_is_sent_changes_or_the_whole_whichever_is_shorter():
    federation = Federation(settings_of("int8"))
    whole = len(codec.encode({"adapter": START}))
    federation.visit("rare", 0)
    lengths = {}
    for step in range(1, 9):
        federation.visit("always", step)
        probe = Federation(settings_of("int8"), server=federation.server, kept=dict(federation.kept))
        lengths[step] = len(probe.visit("rare", step, "refused")[2].message)
    changes = [length for length in lengths.values() if length < whole]
    assert 2 <= len(changes) < 8
    assert changes == sorted(changes)  # each round that is missed makes a message longer, until the whole is shorter
    assert all(length == whole for length in list(lengths.values())[len(changes) :])


def test_at_first_everybody_knows_the_starting_adapter_and_follows_from_there():
    federation = Federation(settings_of("drive"))
    for step in range(3):
        federation.visit("always", step)
    _, _, packed = federation.visit("new", 3)
    assert codec.decode(packed.message)["follows"]["step"].item() == NO_STEP


@pytest.mark.parametrize("base", ["start", "zero"])
def test_messages_that_stand_alone_need_nothing_from_before(base):
    federation = Federation(settings_of("int4", base))
    for step in range(4):
        always, _, first = federation.visit("always", step)
        new, _, second = federation.visit(f"new {step}", step)
        assert first.message is second.message  # packed once for all
        assert adapter_sha256(always) == adapter_sha256(new)
    assert federation.server.state() == WireState()


def test_flascs_download_keeps_the_values_of_the_largest_size():
    federation = Federation(settings_of("topk:0.25", "zero"))
    read, _, _ = federation.visit("ann", 3)
    sent, true = (torch.cat([each["a"], each["b"].flatten()]) for each in (read, adapter_at(3)))
    assert int((sent != 0).sum()) == NUM_VALUES // 4
    assert true[sent != 0].abs().min() >= true[sent == 0].abs().max()
    assert torch.equal(sent[sent != 0], true[sent != 0])


def test_what_the_server_keeps_does_not_grow_with_the_clients_or_the_rounds():
    federation = Federation(settings_of("int4"))
    sizes = []
    for step in range(40):
        for number in range(5):
            federation.visit(f"client {step * 5 + number}", step)
        state = federation.server.state()
        sizes.append((sum(t.nbytes for part in state.tensors.values() for t in part.values()), len(state.versions)))
    assert sizes[10] == sizes[39]
    # The newest broadcast and, at most as long, the changes that lead to it.
    assert sizes[39][0] <= 2 * 4 * NUM_VALUES


def test_the_first_message_that_drops_a_version_is_the_first_that_would_be_longer():
    # Changes of 10 bytes against a whole of 25: two of them are shorter, three are not.
    chain = Chain(versions={})
    for step in range(6):
        chain.add(step, Change(packed={}, num_bytes=10), whole_bytes=25)
        chain.accepted(f"at {step}", step)
    chain.prune([])
    assert [chain.version_of(f"at {step}") for step in range(6)] == [None, None, None, 3, 4, 5]
    assert list(chain.changes) == [4, 5]


def test_errors_and_bits_are_those_of_what_was_packed():
    federation = Federation(settings_of("drive"))
    _, _, packed = federation.visit("ann", 0)
    assert packed.relative_error == 0.0  # nothing changed before round 0, and nothing is lost of nothing
    read, _, packed = federation.visit("ann", 1)
    off = sum(float((read[n] - adapter_at(1)[n]).double().square().sum()) for n in read) ** 0.5
    true = sum(float((adapter_at(1)[n] - START[n]).double().square().sum()) for n in read) ** 0.5
    assert packed.relative_error == pytest.approx(off / true, rel=1e-5)
    assert packed.bits_per_value == 8 * len(packed.message) / NUM_VALUES
    whole = ServerWire(WireSettings(), seed=3, first=lambda _: START).pack_down({"adapter": START}, "ann", 0)
    assert whole.relative_error == 0.0
    assert 32 < whole.bits_per_value < 40


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_a_chain_is_refused_where_clients_are_sent_different_adapters():
    server = ServerWire(settings_of("int4"), seed=3, first=lambda _: START)
    server.pack_down({"adapter": adapter_at(1)}, "ann", 1)
    copy = {name: tensor.clone() for name, tensor in adapter_at(1).items()}
    server.pack_down({"adapter": copy}, "bob", 1)  # equal values in other tensors are the same adapter
    with pytest.raises(ConfigError, match="different adapters in one round; use download_base start or zero"):
        server.pack_down({"adapter": adapter_at(2)}, "bob", 1)


def test_a_client_that_lost_what_it_kept_says_so_and_is_sent_the_whole():
    federation = Federation(settings_of("int8"))
    federation.visit("ann", 0)
    kept = federation.kept.pop("ann")
    for step in range(1, 12):
        federation.visit("bob", step)
        federation.visit("ann", step, "refused") if step < 3 and federation.kept.update(ann=kept) else None
    federation.kept["bob"] = kept
    with pytest.raises(DownloadError, match="follows the broadcast of round 12, and the client has that of round 1"):
        federation.visit("bob", 12)
    federation.server.noted(Reply(step=12, client_id="bob", reason="it said so"), "it said so")
    read, thought, packed = federation.visit("bob", 12)
    assert "adapter" in codec.decode(packed.message)
    assert adapter_sha256(read) == adapter_sha256(thought)


def test_a_broadcast_that_is_not_finite_is_refused_in_one_line():
    server = ServerWire(settings_of("int8"), seed=3, first=lambda _: START)
    broken = {name: tensor * float("inf") for name, tensor in START.items()}
    with pytest.raises(
        DownloadError, match="round 3: what is sent to clients cannot be packed: a value is not finite"
    ):
        server.pack_down({"adapter": broken}, "ann", 2)


@given(data=st.data(), wire=st.sampled_from(WIRES), base=st.sampled_from(["previous", "start"]))
@settings(max_examples=60, deadline=None)
def test_a_damaged_download_is_read_or_refused_and_nothing_else(data, wire, base):
    federation = Federation(settings_of(wire, base))
    for step in range(3):
        _, _, packed = federation.visit("ann", step)
    message = bytearray(packed.message)
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(message)[: data.draw(st.integers(0, len(message)))]
    with suppress(DownloadError):  # anything else would fail
        received, _ = federation.client.unpack_down(task_of(damaged, "ann", 2), federation.kept["ann"])
        assert "adapter" in received
