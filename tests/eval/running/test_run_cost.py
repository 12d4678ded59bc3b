"""A run folder's cost from its own files: what is measured, what is reckoned, and what is not known."""

import json

import pytest
import yaml

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.flops import Work, token_flops, visit_flops
from fedllm_eval.machines.model_shape import ModelShape
from fedllm_eval.running.run_cost import StatedCosts, count_parameters, run_cost


def a_round(index, clients, down, up, steps, seconds):
    return {
        "round_index": index,
        "clients": [{"client_id": name, "num_steps": 2, "seconds": 1.0} for name in clients],
        "ledger": {
            "download_bytes": down,
            "upload_bytes": up,
            "num_local_steps": steps,
            "client_seconds": seconds,
        },
        "seconds": 1.5,
    }


ROUNDS = [a_round(0, ["ann", "bob"], 400, 200, 4, 2.0), a_round(1, ["bob", "cyd", "eve"], 1000, 500, 10, 5.0)]


def write(folder, rounds):
    (folder / "rounds.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rounds))
    return folder


def test_totals_by_hand(tmp_path):
    cost = run_cost(
        write(tmp_path, ROUNDS), StatedCosts(download_mbit_per_second=0.001, upload_mbit_per_second=0.0004, watts=72)
    )
    assert (cost.download_bytes, cost.upload_bytes, cost.num_local_steps) == (1000, 500, 10)
    assert (cost.num_rounds, cost.num_visits, cost.num_clients) == (2, 5, 4)
    assert (cost.client_seconds, cost.seconds) == (5.0, 3.0)
    # Rounds of 400 / 2 and 600 / 3 bytes down, 100 up a client: 3.6 seconds each.
    assert cost.transfer_seconds == pytest.approx(7.2)
    # 5 s at 72 W are 360 J, a ten-thousandth of a kilowatt-hour.
    assert cost.energy_kwh == pytest.approx(1e-4)
    assert "72 W stated" in cost.energy_source
    json.dumps(cost.as_record())


def test_what_is_not_known_is_none(tmp_path):
    cost = run_cost(write(tmp_path, ROUNDS))
    for name in ("transfer_seconds", "num_tokens", "flops", "peak_memory_bytes", "energy_kwh", "energy_source"):
        assert getattr(cost, name) is None


def test_what_the_rounds_measure_goes_before_what_is_stated(tmp_path):
    rounds = json.loads(json.dumps(ROUNDS))
    for record in rounds:
        for client in record["clients"]:
            client |= {"num_tokens": 11, "energy_joules": 7.2, "peak_memory_bytes": 5}
    rounds[1]["clients"][0]["peak_memory_bytes"] = 9
    cost = run_cost(write(tmp_path, rounds), StatedCosts(watts=72))
    assert (cost.num_tokens, cost.tokens_are_bound, cost.peak_memory_bytes) == (55, False, 9)
    assert (cost.energy_kwh, cost.energy_source) == (pytest.approx(36 / 3.6e6), "meter")


def test_operations_of_a_lora_run(make_run, model_folder, tmp_path):
    run = write(make_run(tmp_path / "run", task="dpo"), ROUNDS)
    config = run / "config.yaml"
    config.write_text(
        config.read_text() + "  max_length: 64\n  per_device_train_batch_size: 4\n  gradient_accumulation_steps: 2\n"
    )
    cost = run_cost(run)
    # At most 10 steps of 8 pairs, two sequences of 64 tokens each.
    assert (cost.num_tokens, cost.tokens_are_bound) == (10 * 8 * 2 * 64, True)
    base, adapter = count_parameters(model_folder), count_parameters(run / "adapter")
    # Rank 2 on q (32 -> 32) and v (32 -> 16) in both layers.
    assert adapter == 2 * (2 * (32 + 32) + 2 * (32 + 16))
    from transformers import AutoModelForCausalLM

    assert base == sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(model_folder).parameters())
    assert cost.flops == (4 * base + 6 * adapter + 2 * base) * cost.num_tokens
    assert "2 N D of the reference" in cost.flops_rule


def test_operations_by_the_models_shape(make_run, tmp_path):
    run = write(make_run(tmp_path / "run", task="dpo"), ROUNDS)
    config = run / "config.yaml"
    shape = ModelShape(
        num_matmul_parameters=1000, num_layers=2, hidden_size=8, vocab_size=10, num_trainable=50, attention_size=16
    )
    config.write_text(
        config.read_text()
        + "  max_length: 64\n  per_device_train_batch_size: 4\n  gradient_checkpointing: true\n"
        + yaml.safe_dump({"machines": {"model_shape": shape.as_record()}})
    )
    cost = run_cost(run)
    work = Work(objective="dpo", recompute=True)
    # At most 10 steps of 4 pairs, two sequences of 64 tokens each.
    assert cost.flops == visit_flops(shape, work, num_rows=40, tokens_per_row=64)
    assert cost.tokens_are_bound
    assert cost.flops_rule == "matrix by matrix, in sequences of 64 tokens"
    rounds = json.loads(json.dumps(ROUNDS))
    for client in (client for record in rounds for client in record["clients"]):
        client["num_tokens"] = 160  # 5 visits: 800 tokens in 80 sequences of 10
    cost = run_cost(write(run, rounds))
    assert cost.flops == 800 * token_flops(shape, work, 10)
    assert "sequences of 10 tokens" in cost.flops_rule


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "one after another"),
        ("{", "no JSON"),
        ('{"a": 1}', "is no round"),
        (json.dumps(ROUNDS[1]), "one after another"),
    ],
)
def test_broken_folders(tmp_path, content, message):
    with pytest.raises(ConfigError, match=r"no rounds\.jsonl"):
        run_cost(tmp_path)
    (tmp_path / "rounds.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=message):
        run_cost(tmp_path)


def test_settings_that_make_no_sense(tmp_path):
    run = write(tmp_path, ROUNDS)
    with pytest.raises(ConfigError, match="one direction"):
        run_cost(run, StatedCosts(download_mbit_per_second=1.0))
