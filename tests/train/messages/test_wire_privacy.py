"""Packed uploads and what a server may take for granted: sensitivity is the clip whatever a client sends."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_train.adapters.arithmetic import distance
from fedllm_train.aggregation.aggregation import Inbox
from fedllm_train.aggregation.plain import PlainAggregation
from fedllm_train.aggregation.private import ClientPrivacy, PrivateAggregation
from fedllm_train.aggregation.staleness import ServerStates
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.engine import Reply, Task
from fedllm_train.messages.wire import ClientWire, ServerWire
from fedllm_train.messages.wire_names import PRESETS
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.privacy.accounting import Guarantee
from fedllm_train.privacy.clipping_note import clipping_note
from fedllm_train.strategies import STRATEGIES
from fedllm_train.strategy import Federation

CLIP = 0.5
START = {"b": torch.zeros(10, 10), "a": torch.linspace(-1, 1, 160)}
MOVED = {name: torch.linspace(0, 3, tensor.numel()).cos().reshape(tensor.shape) for name, tensor in START.items()}
BETTER = {name: tensor + 0.02 * MOVED[name] for name, tensor in START.items()}
"""The server's adapter after some rounds."""


def guarantee():
    return Guarantee(clip=CLIP, noise_multiplier=0.0, delta=1e-5, sampling_rate=1.0, expected_cohort=1, num_rounds=1)


def both_ends(**ways):
    made = WireSettings(**ways)
    client, server = (kind(made, seed=3, first=lambda _: START) for kind in (ClientWire, ServerWire))
    config = FederatedConfig(output_dir="unused")
    federation = Federation(
        settings=config.method, seed=0, num_clients=1, cohort_size=1, eligible=["ann"], sizes={"ann": 1}
    )
    box = Inbox(strategy=STRATEGIES["fedavg"](federation), wire=server, start_adapter=START, max_norm=None)
    return client, server, box


def change_of(seed, size=1.0):
    rng = np.random.default_rng(seed)
    return {name: torch.from_numpy(size * rng.normal(size=t.shape)).float() for name, t in START.items()}


def visit(client, server, change):
    """The reply of a client that reads the server's adapter and adds a change, and what it read."""
    packed = server.pack_down({"adapter": BETTER}, "ann", 0)
    task = Task(run="key", step=0, client_id="ann", seed=0, learning_rate=0.0, message=packed.message)
    received, _ = client.unpack_down(task, {})
    read = received["adapter"]
    update = {"adapter": {name: read[name] + change[name] for name in read}}
    message = client.pack_up(update, read, {}, task)[0].message
    return Reply(step=0, client_id="ann", message=message, num_rows=1), read


@given(
    wire=st.sampled_from([*PRESETS, "drive:biased", "topk:0.01+float32"]),
    down=st.sampled_from(["none", "int4", "drive"]),
    size=st.sampled_from([1e-4, 0.02, 1.0, 1e3]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_no_client_moves_the_sum_by_more_than_the_clip_whatever_its_codec(wire, down, size, seed):
    client, server, box = both_ends(wire=wire, download_wire=down)
    private = ClientPrivacy(guarantee=guarantee(), secret=None)
    made = PrivateAggregation(box, ServerStates(step=0, newest={"adapter": BETTER}), private, anybody="ann")
    reply, _ = visit(client, server, change_of(seed, size))
    assert made.add(reply) is None
    total = sum(float(tensor.square().sum()) for tensor in made.total().values()) ** 0.5
    assert total <= CLIP * (1 + 1e-12)
    if size >= 1.0:
        assert total == pytest.approx(CLIP, rel=1e-12)
        assert made.as_record()["privacy"]["num_clipped"] == 1


@pytest.mark.parametrize("base", ["previous", "start", "zero"])
def test_the_server_moves_its_own_adapter_by_the_clients_change_not_to_what_the_client_read(base):
    """So what a coarse broadcast lost is not lost for good; without packing the update is left as it came."""
    change = change_of(1, 0.01)
    client, server, box = both_ends(download_wire="sign", download_base=base)
    reply, read = visit(client, server, change)
    assert distance(read, BETTER) > 0.01  # it could fail: the broadcast loses something
    update, anchor, problem = box.read(reply, {"adapter": BETTER})
    assert problem is None
    assert all(torch.equal(anchor[name], BETTER[name]) for name in BETTER)
    for name, tensor in update["adapter"].items():
        torch.testing.assert_close(tensor, BETTER[name] + change[name], rtol=1e-6, atol=2e-7)


@given(data=st.data(), wire=st.sampled_from(list(PRESETS)))
@settings(max_examples=80, deadline=None)
def test_a_damaged_upload_is_used_or_left_out_with_a_reason_and_nothing_else(data, wire):
    client, server, box = both_ends(wire=wire)
    reply, _ = visit(client, server, change_of(2))
    message = bytearray(reply.message)
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, min(len(message), 300) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(message)[: data.draw(st.integers(0, len(message)))]
    made = PlainAggregation(box, ServerStates(step=0, newest={"adapter": BETTER}), min_clients=1)
    problem = made.add(Reply(step=0, client_id="ann", message=damaged, num_rows=1))
    assert problem is None or problem.startswith("its ")


def test_a_wire_that_lengthens_is_said_to_cut_more():
    note = clipping_note("drive", guarantee())
    assert "1.253 times their length" in note
    assert "as by a dp_clip of 0.399 without packing; drive:biased lengthens nothing" in note  # 0.5 / 1.2533
    assert [clipping_note(wire, guarantee()) for wire in ("none", "int4", "drive:biased", "topk")] == [None] * 4


def test_a_private_run_records_no_error_of_a_true_update_and_says_that_more_is_cut(kit, tmp_path, caplog):
    run = tmp_path / "run"
    private = {"dp_clip": 0.3, "dp_noise_multiplier": 0.0, "dp_delta": 1e-3, "cohort_rule": "all"}
    with caplog.at_level(logging.WARNING):
        trainer = kit.make_trainer(run, num_rounds=2, local_steps=1, wire="drive", download_wire="int8", **private)
        trainer.train()
    assert "lengthens nothing" in caplog.text
    assert trainer.config_record()["privacy"]["norm_growth"] == pytest.approx(1.2533, abs=1e-4)
    for record in kit.records_of(run):
        assert record["wire"]["relative_error"] is None
        assert record["wire"]["bits_per_value"] > 0
        assert all("relative_error" not in visit for visit in record["clients"])
