"""Clients that train the last layers alone: by hand, in runs, and that all layers for everybody change no bit."""

import json

import pyarrow as pa
import pytest
import torch

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.model_shape import ModelShape
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.adapters.last_layers import LastLayers, client_layers, names_of_last_layers
from fedllm_train.clients.memory_fit import ClientMemory, MemoryFit, memory_fit
from fedllm_train.strategies import STRATEGIES, users_of
from fedllm_train.strategies.fedavg import FedAvg
from fedllm_train.strategies.fedavgm import FedAvgM
from fedllm_train.strategy import Federation

PRIVATE = {"dp_clip": 1.0, "dp_noise_multiplier": 1.0, "dp_delta": 1e-5, "cohort_rule": "all"}
FAMILY = ["fedavg", "fedprox", "fedavgm", "fedadagrad", "fedyogi", "fedadam"]


def adapter(low, high):
    return {"m.0.lora_A.weight": torch.full((1, 2), low), "m.1.lora_A.weight": torch.full((1, 2), high)}


def made(method, **settings):
    given = {"uniform_weights": None, **settings}
    federation = Federation(settings=method.Settings(**given), seed=0, num_clients=3, cohort_size=3)
    return LastLayers(method(federation), {"small": 1})


def test_a_tensors_mean_is_over_those_who_trained_it():
    method = made(FedAvg)
    state = method.start(adapter(1.0, 1.0))
    assert list(method.expects(state, "small", 0)["adapter"]) == ["m.1.lora_A.weight"]
    assert len(method.expects(state, "big", 0)["adapter"]) == 2
    sums = {}
    for update, rows in ((adapter(3.0, 3.0), 1), ({"m.1.lora_A.weight": torch.full((1, 2), 6.0)}, 2)):
        method.fold(sums, {"adapter": update}, method.weigh({"adapter": update}, rows))
    after = method.server_step(state, sums, 0)["adapter"]
    # Layer 0: 3 of one client alone. Layer 1: (1 x 3 + 2 x 6) / 3 = 5.
    assert after["m.0.lora_A.weight"].tolist() == [[3.0, 3.0]]
    assert after["m.1.lora_A.weight"].tolist() == [[5.0, 5.0]]


@pytest.mark.parametrize("method", [FedAvg, FedAvgM])
def test_what_nobody_trained_stays_to_the_bit(method):
    strategy = made(method)
    state = strategy.start(adapter(0.1, 1.0))
    sums = {}
    update = {"m.1.lora_A.weight": torch.full((1, 2), 6.0)}
    strategy.fold(sums, {"adapter": update}, strategy.weigh({"adapter": update}, 2))
    after = strategy.server_step(state, sums, 0)["adapter"]
    assert torch.equal(after["m.0.lora_A.weight"], state["adapter"]["m.0.lora_A.weight"])
    assert after["m.1.lora_A.weight"].tolist() == [[6.0, 6.0]]


def test_layers_are_told_by_the_first_number():
    names = ["model.layers.9.q.2.w", "model.layers.10.q.0.w", "model.layers.11.q.w", "lm_head.w"]
    assert names_of_last_layers(names, 2) == {*names[1:]}
    assert names_of_last_layers(names, 9) == {*names}
    with pytest.raises(ConfigError, match="no tensor of the adapter belongs to a numbered layer"):
        names_of_last_layers(["lm_head.w"], 1)


def test_as_many_layers_as_a_clients_memory_holds():
    shape = ModelShape(
        num_matmul_parameters=4000, num_layers=4, hidden_size=10, vocab_size=20, num_trainable=10**9 // 4
    )
    fit = MemoryFit(shape=shape, rank=8, precision="bf16", batch_size=1, sequence_length=1, recompute=False)
    # 4 GB for all four layers, so 1 GB a layer, and a few kilobytes.
    memory = ClientMemory(memory_gb={"a": 1.1, "b": 3.5, "c": 9.0, "d": 0.5}.get, fit=fit)
    assert client_layers("memory", ["a", "b", "c"], None, memory) == {"a": 1, "b": 3, "c": 4}
    assert client_layers("memory", ["a"], None) == {}
    with pytest.raises(ConfigError, match="'d' has 0.5 GB of memory, and training with the least of the last layers"):
        client_layers("memory", ["d"], None, memory)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("3", "give memory or column:NAME"),
        ("column:depth", r"client_layers names column 'depth', which the clients table lacks; it has \['bad'\]"),
        ("column:bad", "client_layers: column 'bad' holds 0 for client 'a'; layers are 1 or more"),
    ],
)
def test_rules_that_cannot_be_read(rule, says):
    with pytest.raises(ConfigError, match=says):
        client_layers(rule, ["a"], pa.table({"client_id": ["a"], "bad": [0]}))


def test_it_is_for_methods_that_average_each_tensor_by_itself():
    assert users_of("client_layers") == [name for name in STRATEGIES if name in FAMILY]


def nodes(folder, rows):
    file = folder / "nodes.csv"
    header = "client_id,memory_gb,flops,download_mbit,upload_mbit\n"
    file.write_text(header + "".join(f"{name},{memory!r},1e9,10,10\n" for name, memory in rows.items()))
    return str(file)


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fedadam"])
def test_enough_memory_for_everybody_changes_no_bit(kit, tmp_path, strategy):
    settings = {"strategy": strategy, "num_rounds": 2}
    plain = kit.make_trainer(tmp_path / "plain", **settings).train()
    table = nodes(tmp_path, {"*": 100.0})
    layered = kit.make_trainer(tmp_path / "layered", client_layers="memory", client_table=table, **settings)
    assert set(layered.plan.federation.layers.values()) == {2}
    assert adapter_sha256(layered.train().server["adapter"]) == adapter_sha256(plain.server["adapter"])


def test_a_client_with_little_memory_trains_and_sends_the_last_layer(kit, tmp_path):
    fit = memory_fit(kit.make_model(), kit.lora(), kit.trl_args("sft"), task="sft")
    small, *others = sorted(kit.SIZES)
    enough = {small: (fit.gb_of_last_layers(1) + fit.gb_of_last_layers(2)) / 2, "*": fit.gb_of_last_layers(2)}
    settings = {"client_layers": "memory", "client_table": nodes(tmp_path, enough), "cohort_rule": "all"}
    trainer = kit.make_trainer(tmp_path / "run", num_rounds=2, **settings)
    assert trainer.plan.federation.layers == {small: 1} | dict.fromkeys(others, 2)
    state = trainer.train()
    visits = {each["client_id"]: each for each in kit.records_of(tmp_path / "run")[0]["clients"]}
    # One of two equal layers is about half of the message, and the clock counts fewer operations.
    assert visits[small]["upload_bytes"] < 0.6 * visits[others[0]]["upload_bytes"]
    assert visits[small]["download_bytes"] == visits[others[0]]["download_bytes"]
    per_step = {name: visit["compute_seconds"] / visit["num_steps"] for name, visit in visits.items()}
    assert per_step[small] < per_step[others[0]]
    record = json.loads((tmp_path / "run" / "rounds.jsonl").read_text().splitlines()[-1])
    assert 0 <= record["aggregation_error"] < 1
    # Killed after the first round and resumed: the same bits.
    kit.run_and_stop(tmp_path / "again", after_round=0, num_rounds=2, **settings)
    resumed = kit.make_trainer(tmp_path / "again", num_rounds=2, **settings).train(resume=True)
    assert adapter_sha256(resumed.server["adapter"]) == adapter_sha256(state.server["adapter"])


def test_a_client_alone_with_its_last_layer_leaves_the_first_as_it_was(kit, tmp_path):
    fit = memory_fit(kit.make_model(), kit.lora(), kit.trl_args("sft"), task="sft")
    table = nodes(tmp_path, {"*": fit.gb_of_last_layers(1)})
    trainer = kit.make_trainer(tmp_path / "run", num_rounds=1, client_layers="memory", client_table=table)
    before, after = trainer.start_adapter, trainer.train().server["adapter"]
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved == names_of_last_layers([*after], 1)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"strategy": "scaffold", "client_layers": "memory"}, "client_layers"),
        ({"client_layers": "memory"}, "client_layers goes by the clients' memory, and there is no client_table"),
        ({"client_layers": "column:depth"}, "which the clients table lacks"),
        ({"client_layers": "memory", **PRIVATE}, "given with dp_clip"),
    ],
)
def test_what_cannot_be_honoured_is_refused(kit, tmp_path, settings, says):
    with pytest.raises(ConfigError, match=says):
        kit.make_trainer(tmp_path / "run", **settings)
