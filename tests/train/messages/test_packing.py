"""Packed uploads: what is sent, what the server sees, what a client keeps, what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fedllm_train.messages.compression import CODECS, RESIDUAL, Quantised, TopK, Upload, check_upload

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import adapter_sha256, distance
from fedllm_train.config import FederatedConfig
from fedllm_train.messages import codec
from fedllm_train.messages.update_checks import update_problem
from fedllm_train.strategies import STRATEGIES
from fedllm_train.strategy import Federation
from fedllm_train.visit import Visit


def rng(seed=0):
    return np.random.default_rng(seed)


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def upload(**settings):
    return Upload(FederatedConfig(output_dir="unused", **settings))


def visit(start, client_id="ann", round_index=0):
    return Visit(
        client_id=client_id,
        round_index=round_index,
        received={"adapter": start},
        start_adapter=start,
        num_rows=1,
        num_steps=1,
        learning_rate=0.1,
        fitter=None,
    )


# -- codecs ---------------------------------------------------------------------------------------------------------


def test_topk_sends_the_largest_and_of_equals_the_first():
    # floor(0.5 * 5) = 2 of (1, -3, 2, 2, 0): -3, and of the two 2s the first.
    packed = TopK(0.5).pack(vector(1, -3, 2, 2, 0), [5], rng())
    assert packed["values"].tolist() == [-3, 2]
    assert TopK(0.5).unpack(packed, [5]).tolist() == [0, -3, 2, 0, 0]


@pytest.mark.parametrize("fraction", [0.002, 0.01, 0.1, 0.5, 1.0])
def test_topk_sends_the_stated_number_and_places_the_shorter_way(fraction):
    values = torch.randn(1003, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    packed = TopK(fraction).pack(values, [1000, 3], rng())
    num_sent = math.floor(fraction * 1003)
    assert len(packed["values"]) == num_sent
    places = packed.get("places", packed.get("bits"))
    assert places.nbytes == min(4 * num_sent, math.ceil(1003 / 8))
    back = TopK(fraction).unpack(packed, [1000, 3])
    assert int((back != 0).sum()) == num_sent
    kept = back != 0
    assert torch.equal(back[kept], values[kept].float().double())
    if fraction < 1:
        assert values[kept].abs().min() >= values[~kept].abs().max()


@pytest.mark.parametrize("num_levels", [127, 7])
def test_rounding_is_unbiased_and_off_by_less_than_a_level(num_levels):
    quantised, values, sizes = Quantised(num_levels), vector(1.0, -0.3, 0.0, 0.04, 5.0, -2.0, 0.7), [4, 3]
    level = vector(1, 1, 1, 1, 5, 5, 5) / num_levels
    draws = torch.stack([quantised.unpack(quantised.pack(values, sizes, rng(i)), sizes) for i in range(2000)])
    assert ((draws - values).abs() <= level * 1.0001).all()
    # A value between two levels is off by at most half a level of deviation: 4 * 0.5 / sqrt(2000) levels are allowed.
    assert ((draws.mean(dim=0) - values).abs() <= level * 4 * 0.5 / 2000**0.5 + 1e-6).all()
    assert draws[:, 2].eq(0).all()


@pytest.mark.parametrize(("num_levels", "num_bytes"), [(127, 7), (7, 4)])
def test_levels_take_a_byte_or_half_of_one(num_levels, num_bytes):
    packed = Quantised(num_levels).pack(torch.zeros(7, dtype=torch.float64), [4, 3], rng())
    assert packed["levels"].nbytes == num_bytes
    assert Quantised(num_levels).unpack(packed, [4, 3]).tolist() == [0] * 7


def test_extremes_reach_the_last_level_and_no_further():
    for largest in (1.0, 0.1, 1e-30, 3.3333):
        for num_levels in (127, 7):
            quantised, values = Quantised(num_levels), vector(largest, -largest)
            for seed in range(20):
                back = quantised.unpack(quantised.pack(values, [2], rng(seed)), [2])
                torch.testing.assert_close(back, values, rtol=1.01 / num_levels, atol=0)
                assert back.sign().tolist() == [1, -1]


# -- messages -------------------------------------------------------------------------------------------------------

START = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([[0.5, 0.25]])}
UPDATE = {"b": torch.tensor([1.5, 2.0]), "a": torch.tensor([[0.5, -0.75]])}


def test_without_a_codec_the_message_is_the_plain_one():
    update = {"adapter": UPDATE, "control": START}
    message = upload().encode(update, visit(START), {})
    assert message == codec.encode(update)
    assert adapter_sha256(upload().decode(message, {"adapter": START})["adapter"]) == adapter_sha256(UPDATE)


def test_the_server_adds_what_was_sent_to_what_it_sent():
    # Changes in the order of names: a (0, -1), b (0.5, 0); a quarter of four is the -1.
    sent = upload(upload_codec="topk", topk_fraction=0.25)
    back = sent.decode(sent.encode({"adapter": UPDATE}, visit(START), {}), {"adapter": START})
    assert back["adapter"]["a"].tolist() == [[0.5, -0.75]]
    assert back["adapter"]["b"].tolist() == [1.0, 2.0]


def test_other_parts_travel_whole():
    sent = upload(upload_codec="int4")
    back = sent.decode(sent.encode({"adapter": UPDATE, "control": UPDATE}, visit(START), {}), {"adapter": START})
    assert adapter_sha256(back["control"]) == adapter_sha256(UPDATE)
    assert distance(back["adapter"], UPDATE) <= (1 + 0.5**2) ** 0.5 / 7


def test_what_is_kept_is_sent_the_next_time():
    # Round 0: changes (0, -1, 0.5, 0), one is sent: -1; 0.5 is kept. Round 1, the same again: -1 and 0.5 + 0.5 = 1;
    # of equals the first goes, so -1, and 1 is kept. Round 2, no change: the 1 goes.
    sent = upload(upload_codec="topk", topk_fraction=0.25, error_feedback=True)
    residual = {}
    for update, moved, kept in ((UPDATE, [-1, 0], [0, 0.5]), (UPDATE, [-1, 0], [0, 1]), (START, [0, 1], [0, 0])):
        at = visit(START)
        back = sent.decode(sent.encode({"adapter": update}, at, residual), {"adapter": START})["adapter"]
        residual = at.memory[RESIDUAL]
        assert [float(back["a"][0, 1] - START["a"][0, 1]), float(back["b"][0] - START["b"][0])] == moved
        assert [float(residual["a"][0, 1]), float(residual["b"][0])] == kept


def test_rounding_depends_on_seed_round_and_client_alone():
    start = {"a": torch.zeros(100)}
    update = {"adapter": {"a": torch.linspace(-1, 1, 100)}}
    messages = [
        upload(upload_codec="int8", seed=seed).encode(update, visit(start, client_id, round_index), {})
        for seed, client_id, round_index in ((0, "ann", 0), (0, "ann", 0), (1, "ann", 0), (0, "bob", 0), (0, "ann", 1))
    ]
    assert messages[0] == messages[1]
    assert len(set(messages)) == 4


@pytest.mark.parametrize("name", [name for name in CODECS if name != "none"])
def test_a_message_that_does_not_fit_is_left_out_not_fatal(name):
    sent = upload(upload_codec=name)
    large = {"a": torch.zeros(60)}
    message = sent.encode({"adapter": {"a": torch.ones(60)}}, visit(large), {})
    expected = {"adapter": {"a": torch.zeros(50)}}
    wrongs = [message, codec.encode({"packed": {"values": torch.ones(5)}}), codec.encode({"other": UPDATE})]
    if name == "topk":
        wrongs.append(codec.encode({"packed": {"values": torch.ones(1), "places": torch.tensor([50])}}))
    for wrong in wrongs:
        assert "lacks adapter//a" in update_problem(sent.decode(wrong, expected), expected, max_norm=None)


# -- runs -----------------------------------------------------------------------------------------------------------


def test_a_density_of_one_is_fedavg_up_to_rounding(kit, tmp_path):
    plain = kit.make_trainer(tmp_path / "plain", num_rounds=1).train()
    dense = kit.make_trainer(tmp_path / "dense", num_rounds=1, upload_codec="topk", topk_fraction=1.0).train()
    for name, tensor in plain.adapter.items():
        torch.testing.assert_close(dense.adapter[name], tensor, rtol=2e-7, atol=1e-9)
    assert dense.ledger.download_bytes == plain.ledger.download_bytes


@pytest.mark.parametrize("strategy", ["fedavg", "rolora"])
def test_runs_with_error_feedback_resume_to_the_bit(kit, tmp_path, strategy):
    settings = {"strategy": strategy, "upload_codec": "topk", "topk_fraction": 0.05, "error_feedback": True}
    whole = kit.make_trainer(tmp_path / "whole", **settings).train()
    kit.run_and_stop(tmp_path / "cut", after_round=1, **settings)
    resumed = kit.make_trainer(tmp_path / "cut", **settings).train(resume=True)
    assert adapter_sha256(resumed.adapter) == adapter_sha256(whole.adapter)
    assert resumed.ledger.upload_bytes == whole.ledger.upload_bytes < whole.ledger.download_bytes / 5
    assert "the 0.05 of an update's values that are largest" in (tmp_path / "whole" / "README.md").read_text()


@pytest.mark.parametrize("strategy", ["scaffold", "fedex_lora", "hetlora"])
def test_methods_that_send_more_or_need_products_run_packed(kit, tmp_path, strategy):
    state = kit.make_trainer(tmp_path / "run", strategy=strategy, num_rounds=2, upload_codec="int8").train()
    assert all(not record["left_out"] for record in kit.records_of(tmp_path / "run"))
    assert state.ledger.upload_bytes < state.ledger.download_bytes


def test_bytes_are_those_of_what_is_sent(kit, tmp_path):
    state = kit.make_trainer(
        tmp_path / "run", num_rounds=1, cohort_size=1, upload_codec="topk", topk_fraction=0.1
    ).train()
    num_values = sum(tensor.numel() for tensor in state.adapter.values())
    # A float32 for every tenth value and a bit for each, within the few hundred bytes of a safetensors header.
    assert 0 <= state.ledger.upload_bytes - (4 * (num_values // 10) + math.ceil(num_values / 8)) < 400


def test_all_methods_but_the_baselines_and_flora_can_be_packed():
    adapter = {"m.lora_A.weight": torch.ones(2, 3), "m.lora_B.weight": torch.zeros(3, 2)}
    config = FederatedConfig(output_dir="unused", upload_codec="int8")
    refused = []
    for name, strategy in STRATEGIES.items():
        made = strategy(Federation(config=replace(config, strategy=name), client_ids=["a"], sizes={"a": 1}))
        try:
            check_upload(replace(config, strategy=name), made, made.start(adapter), "a")
        except ConfigError:
            refused.append(name)
    assert refused == ["local", "centralized", "flora"]  # as docs/methods.md says


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"upload_codec": "zip"}, "choose from none, topk, int8, int4"),
        ({"upload_codec": "topk", "topk_fraction": 0.0}, "topk_fraction is 0.0"),
        ({"upload_codec": "int8", "topk_fraction": 0.2}, "topk_fraction is given"),
        ({"error_feedback": True}, "error_feedback is given"),
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
        ("flora", 0.1, "begin from an adapter that the server does not send"),
        ("fedavg", 1e-6, "which is none"),
    ],
)
def test_what_cannot_be_packed_is_refused_before_the_run_folder(kit, tmp_path, strategy, fraction, message):
    with pytest.raises(ConfigError, match=message):
        kit.make_trainer(tmp_path / "run", strategy=strategy, upload_codec="topk", topk_fraction=fraction)
    assert not (tmp_path / "run").exists()
