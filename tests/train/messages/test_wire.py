"""Packed messages: what the server sees, what a client keeps, what is refused."""

import math
from dataclasses import replace

import pytest
import torch

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import adapter_sha256, distance, shapes_of
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.engine import Reply, Task
from fedllm_train.messages import codec
from fedllm_train.messages.feedback import RESIDUAL
from fedllm_train.messages.update_checks import update_problem
from fedllm_train.messages.wire import ClientWire, ServerWire
from fedllm_train.messages.wire_checks import check_wire_method
from fedllm_train.messages.wire_names import PRESETS
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.strategies import STRATEGIES

START = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([[0.5, 0.25]])}
UPDATE = {"b": torch.tensor([1.5, 2.0]), "a": torch.tensor([[0.5, -0.75]])}


class wire:
    """Both ends of a wire whose clients know `start` from the beginning."""

    def __init__(self, seed=0, start=START, **settings):
        made = WireSettings(**settings)
        self.client, self.server = (
            kind(made, seed=seed, first=lambda client_id: start) for kind in (ClientWire, ServerWire)
        )


def pack(sent, update, anchor=START, *, hidden=None, client_id="ann", round_index=0):
    """The message of a client whose training started from `anchor`, and what it keeps."""
    task = Task(run="key", step=round_index, client_id=client_id, seed=0, learning_rate=0.0, message=b"")
    packed, kept = sent.client.pack_up(update, anchor, hidden or {}, task)
    return packed.message, kept


def unpack(sent, message, expected=None, anchor=START, *, client_id="ann", round_index=0):
    reply = Reply(step=round_index, client_id=client_id, message=message)
    return sent.server.unpack_up(reply, expected or shapes_of({"adapter": START}), anchor)


# -- messages -------------------------------------------------------------------------------------------------------


def test_without_a_codec_the_message_is_the_plain_one():
    update = {"adapter": UPDATE, "control": START}
    message, _ = pack(wire(), update)
    assert message == codec.encode(update)
    assert adapter_sha256(unpack(wire(), message)["adapter"]) == adapter_sha256(UPDATE)


def test_what_goes_down_is_whole_with_every_wire_and_encoded_once_for_all():
    sent = wire(wire="int4")
    message = sent.server.pack_down({"adapter": UPDATE}, "ann", 0).message
    assert message == codec.encode({"adapter": UPDATE})
    assert sent.server.pack_down({"adapter": dict(UPDATE)}, "bob", 0).message is message  # the very same tensors
    other = {name: tensor.clone() for name, tensor in UPDATE.items()}
    assert sent.server.pack_down({"adapter": other}, "bob", 0).message is not message
    task = Task(run="key", step=0, client_id="ann", seed=0, learning_rate=0.0, message=message)
    received, kept = sent.client.unpack_down(task, {})
    parts = {"adapter": UPDATE}
    assert sent.server.as_read(parts, "ann", 0) is parts
    assert adapter_sha256(received["adapter"]) == adapter_sha256(UPDATE)
    assert kept == {}


def test_the_server_adds_what_was_sent_to_what_it_sent():
    # Changes in the order of names: a (0, -1), b (0.5, 0); a quarter of four is the -1.
    sent = wire(wire="topk:0.25")
    back = unpack(sent, pack(sent, {"adapter": UPDATE})[0])
    assert back["adapter"]["a"].tolist() == [[0.5, -0.75]]
    assert back["adapter"]["b"].tolist() == [1.0, 2.0]


def test_other_parts_travel_whole():
    sent = wire(wire="int4")
    back = unpack(sent, pack(sent, {"adapter": UPDATE, "control": UPDATE})[0])
    assert adapter_sha256(back["control"]) == adapter_sha256(UPDATE)
    assert distance(back["adapter"], UPDATE) <= (1 + 0.5**2) ** 0.5 / 7


def test_what_is_kept_is_sent_the_next_time():
    # Round 0: changes (0, -1, 0.5, 0), one is sent: -1; 0.5 is kept. Round 1, the same again: -1 and 0.5 + 0.5 = 1;
    # of equals the first goes, so -1, and 1 is kept. Round 2, no change: the 1 goes.
    sent = wire(wire="topk:0.25", error_feedback="ef14")
    hidden = {}
    for update, moved, kept in ((UPDATE, [-1, 0], [0, 0.5]), (UPDATE, [-1, 0], [0, 1]), (START, [0, 1], [0, 0])):
        message, hidden = pack(sent, {"adapter": update}, hidden=hidden)
        back, residual = unpack(sent, message)["adapter"], hidden[RESIDUAL]
        assert [float(back["a"][0, 1] - START["a"][0, 1]), float(back["b"][0] - START["b"][0])] == moved
        assert [float(residual["a"][0, 1]), float(residual["b"][0])] == kept


def test_rounding_depends_on_seed_round_and_client_alone():
    start = {"a": torch.zeros(100)}
    update = {"adapter": {"a": torch.linspace(-1, 1, 100)}}
    messages = [
        pack(wire(seed, wire="int8"), update, start, client_id=client_id, round_index=round_index)[0]
        for seed, client_id, round_index in ((0, "ann", 0), (0, "ann", 0), (1, "ann", 0), (0, "bob", 0), (0, "ann", 1))
    ]
    assert messages[0] == messages[1]
    assert len(set(messages)) == 4


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "none"])
def test_a_message_that_does_not_fit_is_left_out_not_fatal(name):
    sent = wire(wire=name)
    message, _ = pack(sent, {"adapter": {"a": torch.ones(60)}}, {"a": torch.zeros(60)})
    anchor = {"a": torch.zeros(20)}
    expected = shapes_of({"adapter": anchor})
    wrongs = [message, codec.encode({"packed": {"values": torch.ones(5)}}), codec.encode({"other": UPDATE})]
    if name == "topk":
        places = torch.tensor([20], dtype=torch.int32)
        wrongs.append(codec.encode({"packed": {"values": torch.ones(1), "places": places}}))
    for wrong in wrongs:
        update = unpack(sent, wrong, expected, anchor)
        assert "lacks adapter//a" in update_problem(update, expected, anchor, max_norm=None)


# -- runs -----------------------------------------------------------------------------------------------------------


def test_a_density_of_one_is_fedavg_up_to_rounding(kit, tmp_path):
    plain = kit.make_trainer(tmp_path / "plain", num_rounds=1).train()
    dense = kit.make_trainer(tmp_path / "dense", num_rounds=1, wire="topk:1.0").train()
    for name, tensor in plain.adapter.items():
        torch.testing.assert_close(dense.adapter[name], tensor, rtol=2e-7, atol=1e-9)
    assert dense.ledger.download_bytes == plain.ledger.download_bytes


@pytest.mark.parametrize("strategy", ["fedavg", "rolora"])
def test_runs_with_error_feedback_resume_to_the_bit(kit, tmp_path, strategy):
    settings = {"strategy": strategy, "wire": "topk:0.05", "error_feedback": "ef14"}
    whole = kit.make_trainer(tmp_path / "whole", **settings).train()
    kit.run_and_stop(tmp_path / "cut", after_round=1, **settings)
    resumed = kit.make_trainer(tmp_path / "cut", **settings).train(resume=True)
    assert adapter_sha256(resumed.adapter) == adapter_sha256(whole.adapter)
    assert resumed.ledger.upload_bytes == whole.ledger.upload_bytes < whole.ledger.download_bytes / 5
    assert "the 0.05 of an update's values that are largest" in (tmp_path / "whole" / "README.md").read_text()


@pytest.mark.parametrize("strategy", ["scaffold", "fedex_lora", "hetlora", "flora"])
def test_methods_that_send_more_or_need_products_run_packed(kit, tmp_path, strategy):
    state = kit.make_trainer(tmp_path / "run", strategy=strategy, num_rounds=2, wire="int8").train()
    assert all(not record["left_out"] for record in kit.records_of(tmp_path / "run"))
    assert state.ledger.upload_bytes < state.ledger.download_bytes


def test_bytes_are_those_of_what_is_sent(kit, tmp_path):
    state = kit.make_trainer(tmp_path / "run", num_rounds=1, cohort_size=1, wire="topk:0.1").train()
    num_values = sum(tensor.numel() for tensor in state.adapter.values())
    # A float32 for every tenth value and a bit for each, within the few hundred bytes of a safetensors header.
    assert 0 <= state.ledger.upload_bytes - (4 * (num_values // 10) + math.ceil(num_values / 8)) < 400


def test_floras_packed_change_is_measured_from_the_adapter_that_each_client_draws(kit, tmp_path):
    """Nobody sends that adapter: both ends draw it. All values in float32 are FLoRA's own factors up to rounding."""
    settings = {"strategy": "flora", "num_rounds": 1, "client_ranks": "2,4"}
    plain = kit.make_trainer(tmp_path / "plain", **settings).train()
    dense = kit.make_trainer(tmp_path / "dense", wire="topk:1.0", **settings).train()
    assert plain.server["base_shift"]
    for module in {name.rsplit(".", 1)[0] for name in plain.server["base_shift"]}:
        expected, got = (matrix_of(state.server["base_shift"], module) for state in (plain, dense))
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)
        assert float(expected.norm()) > 1e-4


def matrix_of(shift, module):
    if f"{module}.matrix" in shift:
        return shift[f"{module}.matrix"]
    return shift[f"{module}.left"] @ shift[f"{module}.right"]


def test_all_methods_that_send_an_adapter_can_be_packed_and_flora_keeps_nothing_back():
    settings = WireSettings(wire="topk:0.5")
    refused = {"none": [], "ef14": []}
    for name, strategy in STRATEGIES.items():
        for error_feedback in refused:
            try:
                check_wire_method(replace(settings, error_feedback=error_feedback), strategy.traits, name)
            except ConfigError:
                refused[error_feedback].append(name)
    assert refused["none"] == ["local", "centralized", "fedkseed"]  # as docs/methods.md says
    assert refused["ef14"] == ["local", "centralized", "flora", "fedsvd", "fedkseed", "fedbiscuit"]


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wire": "zip"}, "choose from none, bf16, int8, int4"),
        ({"wire": "topk:0.0"}, "topk takes a share of the values above 0 and at most 1, not 0"),
        ({"error_feedback": "ef14"}, "error_feedback is 'ef14' and wire is 'none', which sends whole values"),
        ({"wire": "int8", "error_feedback": "on"}, "choose from none, ef14, ef21 \\(it was on or off before"),
        ({"download_wire": "zip"}, "download_wire is 'zip': 'zip' is neither a preset nor a stage"),
        ({"download_wire": "int8", "download_base": "last"}, "choose from previous, start, zero"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        FederatedConfig(output_dir="run", **changes)


@pytest.mark.parametrize(
    ("strategy", "fraction", "message"),
    [
        ("local", 0.1, "uploads nothing"),
        ("centralized", 0.1, "uploads nothing"),
        ("fedavg", 1e-6, "sends none of 2048 values"),
    ],
)
def test_what_cannot_be_packed_is_refused_before_the_run_folder(kit, tmp_path, strategy, fraction, message):
    with pytest.raises(ConfigError, match=message):
        kit.make_trainer(tmp_path / "run", strategy=strategy, wire=f"topk:{fraction}")
    assert not (tmp_path / "run").exists()


def test_flora_refuses_to_keep_back_what_belongs_to_no_later_change(kit, tmp_path):
    with pytest.raises(ConfigError, match="error_feedback is given, but clients of strategy 'flora' begin"):
        kit.make_trainer(tmp_path / "run", strategy="flora", wire="topk", error_feedback="ef14")
    assert not (tmp_path / "run").exists()
