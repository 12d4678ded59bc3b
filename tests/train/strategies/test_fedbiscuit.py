"""FedBiscuit's groups: who is asked, who is grouped with whom, what is averaged, and runs that find the groups."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import settings as drawn
from hypothesis import strategies as st

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.participation.cohort_rules import sample_cohort
from fedllm_train.run_files.checkpoint import load_latest
from fedllm_train.seeds import stream_seed
from fedllm_train.strategies.fedbiscuit import balanced_groups
from fedllm_train.visit import Visit

SMALL = {"biscuit_adapters": 2, "biscuit_warmup": 1, "biscuit_regroup": 4}
WARM = 2
"""Rounds of the warm-up of `SMALL`."""


def told(place, losses):
    return {"losses": {"of_adapters": torch.tensor(losses)}, "place": {"place": torch.tensor(place)}}


def trained(group, value):
    return {"adapter": {"w": torch.tensor([value])}, "group": {"index": torch.tensor(group)}}


def step(rules, method, state, updates, round_index):
    sums = {}
    for update, num_rows in updates:
        rules.fold(method, sums, update, num_rows)
    return method.server_step(state, sums, round_index)


# -- groups -------------------------------------------------------------------------------------------------------


def test_groups_by_hand():
    # Five clients, three adapters, served in the order 0 1 2 3 4. Best: 0 0 0 1 0. Adapter 0 is the largest and takes
    # the first ceil(5/3) = 2: clients 0 and 1. Left 2, 3, 4: best of the open ones 2, 1, 1. Adapter 1 takes
    # ceil(3/2) = 2: clients 3 and 4. Client 2 is left for adapter 2.
    losses = np.array([[1, 2, 3], [1, 3, 2], [1, 3, 2], [2, 1, 3], [1, 2, 3]], dtype=float)
    assert balanced_groups(losses, np.arange(5)).tolist() == [0, 0, 2, 1, 1]
    # Served the other way round, 4 and 2 come first to adapter 0; then 3 and 1 differ, and 0 goes where there is room.
    assert balanced_groups(losses, np.arange(5)[::-1].copy()).tolist() == [1, 2, 0, 1, 0]


@drawn(max_examples=60, deadline=None)
@given(data=st.data(), num_clients=st.integers(0, 12), num_adapters=st.integers(1, 5))
def test_groups_are_balanced_and_everybody_has_one(data, num_clients, num_adapters):
    some = st.lists(st.floats(-5, 5), min_size=num_adapters, max_size=num_adapters)
    losses = np.array(data.draw(st.lists(some, min_size=num_clients, max_size=num_clients))).reshape(-1, num_adapters)
    order = np.array(data.draw(st.permutations(range(num_clients))), dtype=np.int64)
    groups = balanced_groups(losses, order)
    sizes = np.bincount(groups, minlength=num_adapters)
    assert groups.shape == (num_clients,)
    assert sizes.sum() == num_clients
    assert len(sizes) == num_adapters
    assert np.ptp(sizes) <= 1
    # No two clients would both be better off if they changed places.
    for a in range(num_clients):
        for b in range(a):
            now = losses[a, groups[a]], losses[b, groups[b]]
            changed = losses[a, groups[b]], losses[b, groups[a]]
            assert not (changed[0] < now[0] and changed[1] < now[1])


def test_where_tastes_are_even_everybody_has_the_best():
    losses = np.random.default_rng(0).normal(size=(9, 3))
    losses[np.arange(9), np.arange(9) % 3] = -9.0
    assert balanced_groups(losses, np.random.default_rng(1).permutation(9)).tolist() == [k % 3 for k in range(9)]


# -- rules --------------------------------------------------------------------------------------------------------


def test_rounds_of_the_warm_up_train_one_adapter_after_another(rules):
    method = rules.make("fedbiscuit", biscuit_adapters=2, biscuit_warmup=2)
    state = method.start(rules.one(w=[0.0]))
    turns = [int(method.broadcast(state, "a", t)["group"]["index"]) for t in range(4)]
    assert turns == [0, 0, 1, 1]
    state = step(rules, method, state, [(trained(0, 2.0), 1), (trained(0, 5.0), 3)], 0)
    # By rows (1*2 + 3*5) / 4 = 4.25; the second adapter has not had its turn, so the first is the global one.
    assert [state[part]["w"].item() for part in ("adapter 0", "adapter 1", "adapter")] == [4.25, 0.0, 4.25]
    state = step(rules, method, state, [(trained(1, 1.0), 1)], 2)
    assert [state[part]["w"].item() for part in ("adapter 0", "adapter 1", "adapter")] == [4.25, 1.0, 2.625]


def test_after_it_clients_are_asked_once_grouped_and_asked_again(rules):
    method = rules.make("fedbiscuit", **SMALL)
    state = method.start(rules.one(w=[0.0]))
    asked = method.broadcast(state, "b", WARM)
    assert asked.keys() == {"adapter 0", "adapter 1", "place"}
    assert int(asked["place"]["place"]) == 1
    # a, b, d like the first adapter, c the second: of four, two each; who of the three moves depends on the order.
    losses = {0: [1.0, 2.0], 1: [1.0, 2.0], 2: [2.0, 1.0], 3: [1.0, 2.0]}
    state = step(rules, method, state, [(told(place, each), 1) for place, each in losses.items()], WARM)
    groups = state["clients"]["group"].tolist()
    assert sorted(groups) == [0, 0, 1, 1]
    assert groups[2] == 1
    for place, client_id in enumerate("abcd"):
        sent = method.broadcast(state, client_id, WARM + 1)
        assert int(sent["group"]["index"]) == groups[place]
        assert method.expects(state, client_id, WARM + 1)["adapter"] == {"w": (1,)}
        assert method.asks_for_losses(state, client_id, WARM + 4)  # biscuit_regroup later
    before = {part: adapter_sha256(state[part]) for part in ("adapter 0", "adapter 1")}
    after = step(rules, method, state, [(trained(1, 7.0), 2)], WARM + 1)
    assert adapter_sha256(after["adapter 0"]) == before["adapter 0"]
    assert after["adapter 1"]["w"].item() == 7.0
    assert after["adapter"]["w"].item() == 3.5


def test_who_comes_later_is_dealt_in_with_the_others(rules):
    method = rules.make("fedbiscuit", client_ids=tuple("abcdef"), **SMALL)
    state = method.start(rules.one(w=[0.0]))
    state = step(rules, method, state, [(told(0, [1.0, 2.0]), 1), (told(1, [1.0, 2.0]), 1)], WARM)
    assert sorted(state["clients"]["group"][:2].tolist()) == [0, 1]
    assert state["clients"]["group"][2:].tolist() == [-1] * 4
    state = step(rules, method, state, [(told(p, [1.0, 2.0]), 1) for p in (3, 5)], WARM + 1)
    known = state["clients"]["group"][[0, 1, 3, 5]].tolist()
    assert sorted(known) == [0, 0, 1, 1]
    assert method.asks_for_losses(state, "c", WARM + 1)
    assert not method.asks_for_losses(state, "d", WARM + 2)


def walked(visit, losses):
    """A visit whose walk has as many steps as there are rows of losses."""

    def walk(take_step):
        for row in losses:
            take_step(lambda adapter, row=row: row[int(adapter["w"].item())])

    return replace(visit, walker=walk)


def sent_all(rules):
    parts = {f"adapter {u}": {"w": torch.tensor([float(u)])} for u in range(3)}
    return Visit(
        client_id="a", round_index=3, received={**parts, "place": {"place": torch.tensor(0)}}, start_adapter={},
        num_rows=4, num_steps=2, learning_rate=0.1, fitter=None,
    )  # fmt: skip


def test_a_client_sends_the_mean_loss_of_each_adapter_on_its_own_rows(rules):
    method = rules.make("fedbiscuit")
    update = method.client_update(walked(sent_all(rules), [[1.0, 2.0, 6.0], [3.0, 1.0, 2.0]]))
    # (1+3)/2, (2+1)/2, (6+2)/2
    assert update["losses"]["of_adapters"].tolist() == [2.0, 1.5, 4.0]
    assert update.keys() == {"losses", "place"}


def test_a_client_that_would_be_asked_keeps_its_own_best(rules):
    method = rules.make("fedbiscuit")
    assert method.personal_adapter(walked(sent_all(rules), [[1.0, 0.5, 6.0]]))["w"].item() == 1.0


@pytest.mark.parametrize(
    "update", [trained(3, 1.0), trained(-1, 1.0), told(4, [1.0, 2.0, 3.0]), told(-1, [1.0, 2.0, 3.0]),
               {"losses": {"of_adapters": torch.ones(3)}, "place": {"place": torch.tensor(1.5)}}]
)  # fmt: skip
def test_a_message_about_nobody_is_left_out(rules, update):
    with pytest.raises(ValueError, match="is none that there is"):
        rules.make("fedbiscuit").opened(update)


@pytest.mark.parametrize("name", ["biscuit_adapters", "biscuit_warmup", "biscuit_regroup"])
def test_counts_below_one_are_refused(rules, name):
    with pytest.raises(ConfigError, match=f"{name} is 0; it must be at least 1"):
        rules.make("fedbiscuit", **{name: 0})


# -- runs ---------------------------------------------------------------------------------------------------------


def test_one_adapter_is_fedavg_to_the_bit(kit, tmp_path):
    plain = kit.make_trainer(tmp_path / "plain").train()
    one = kit.make_trainer(tmp_path / "one", strategy="fedbiscuit", biscuit_adapters=1).train()
    assert adapter_sha256(one.adapter) == adapter_sha256(plain.adapter)


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_clients_choose_by_the_runs_own_loss_on_their_own_rows(kit, tmp_path, task):
    settings = {"strategy": "fedbiscuit", "num_rounds": 4, "cohort_rule": "all", "keep_checkpoints": 4, **SMALL}
    trainer = kit.make_trainer(tmp_path / "whole", task, personal_clients="all", **settings)
    state = trainer.train()
    records = kit.records_of(tmp_path / "whole")
    clients, ids = state.server["clients"], sorted(trainer.clients)
    assert clients["asked"].tolist() == [WARM] * len(ids)
    # Everybody was asked in one round: nothing was trained in it.
    digests = [record["adapter_sha256"] for record in records]
    assert digests[WARM] == digests[WARM - 1] != digests[WARM + 1]
    assert all(visit["train_loss"] > 0 for visit in records[WARM]["clients"])
    # The losses are those of a visit's batches at both adapters as they were before that round.
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=WARM - 1)
    before, _ = load_latest(tmp_path / "cut")
    host = trainer.loaded.host
    for place, client_id in enumerate(ids):
        found = []

        def look(loss, found=found):
            found.append([loss(before.server[f"adapter {u}"]) for u in range(2)])

        seed = stream_seed(5, "client", round_index=WARM, client_id=client_id)
        rows = host.resident.with_reference(client_id, host.tokens[client_id].rows)
        host.resident.walk(look, rows, seed=seed, num_steps=2)
        expected = torch.tensor(found, dtype=torch.float64).mean(0)
        torch.testing.assert_close(clients["losses"][place], expected, atol=1e-6, rtol=1e-6)
        assert expected[0] != expected[1]
    assert np.ptp(np.bincount(clients["group"].numpy(), minlength=2)) <= 1
    # Each ends with the adapter of its group.
    entries = json.loads((tmp_path / "whole" / "personal" / "clients.json").read_text())
    groups = dict(zip(ids, clients["group"].tolist(), strict=True))
    assert {c: entry["folder"] for c, entry in entries.items()} == {
        c: adapter_sha256(state.server[f"adapter {group}"])[:32] for c, group in groups.items()
    }
    assert len(set(groups.values())) == 2


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_a_stopped_run_goes_on_to_the_same_bits(kit, tmp_path, task):
    settings = {"strategy": "fedbiscuit", "num_rounds": 5, "cohort_size": 3, "local_steps": 1, "keep_checkpoints": 5}
    settings |= SMALL | {"biscuit_regroup": 2}
    whole = kit.make_trainer(tmp_path / "whole", task, **settings).train()
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=WARM)
    resumed = kit.make_trainer(tmp_path / "cut", task, **settings).train(resume=True)
    for part in whole.server:
        assert adapter_sha256(resumed.server[part]) == adapter_sha256(whole.server[part])
    assert (whole.ledger.upload_bytes, whole.ledger.download_bytes) == (
        resumed.ledger.upload_bytes,
        resumed.ledger.download_bytes,
    )


def test_a_bound_on_norms_looks_at_adapters_alone(kit, tmp_path):
    settings = {"strategy": "fedbiscuit", "num_rounds": 4, "cohort_size": 3, "local_steps": 1, **SMALL}
    kit.make_trainer(tmp_path / "run", max_update_norm=100.0, **settings).train()
    assert all(record["left_out"] == [] for record in kit.records_of(tmp_path / "run"))
    kit.make_trainer(tmp_path / "none", max_update_norm=1e-9, **settings).train()
    left = [len(record["left_out"]) for record in kit.records_of(tmp_path / "none")]
    assert left[:WARM] == [3, 3]
    assert left[WARM] == 0


def opposite_clients(kit, likes):
    """People some of whom prefer one answer of each pair, and some the other."""
    rows = []
    for client_id, liked in likes.items():
        for row in kit.preference_rows(client_id, 8):
            answers = [kit.assistant("red red red"), kit.assistant("dog dog dog")]
            chosen, rejected = answers[liked], answers[1 - liked]
            rows.append(row | {"row_id": f"{client_id}-{row['row_id']}", "chosen": [chosen], "rejected": [rejected]})
    return ClientDataset.from_dataset(Dataset.from_list(rows))


def test_people_of_opposite_preferences_find_their_own_groups_and_fedavg_serves_neither(kit, tmp_path):
    """With DPO, where one person begins each adapter and the two like opposite answers."""
    likes = {"ann": 0, "bob": 1, "cyd": 0, "dan": 1}

    def beginners(seed):
        return [likes[sample_cohort(list(likes), 1, seed=seed, round_index=t)[0]] for t in (0, 1)]

    seed = next(seed for seed in range(100) if beginners(seed) == [0, 1])
    settings = {"clients": opposite_clients(kit, likes), "cohort_size": 1, "seed": seed, "num_rounds": 24}
    trainer = kit.make_trainer(tmp_path / "run", "dpo", strategy="fedbiscuit", **settings, **SMALL | {
        "biscuit_regroup": 50, "personal_clients": "all"})  # fmt: skip
    state = trainer.train()
    clients = state.server["clients"]
    assert (clients["asked"] >= WARM).all()
    assert clients["group"].tolist() == [0, 1, 0, 1]
    plain = kit.make_trainer(tmp_path / "plain", "dpo", **settings).train()
    host, lost = trainer.loaded.host, {}
    for name, adapter_of in (
        ("own", lambda client_id: state.server[f"adapter {likes[client_id]}"]),
        ("fedavg", lambda client_id: plain.adapter),
    ):
        lost[name] = []
        for client_id in likes:
            rows = host.resident.with_reference(client_id, host.tokens[client_id].rows)
            adapter = adapter_of(client_id)
            look = lost[name].append
            host.resident.walk(lambda loss, a=adapter, look=look: look(loss(a)), rows, seed=0, num_steps=2)
    # log 2 is the loss of who does not know: everybody has less in their group, and somebody more with FedAvg.
    assert max(lost["own"]) < np.log(2)
    assert max(lost["fedavg"]) > np.log(2)
