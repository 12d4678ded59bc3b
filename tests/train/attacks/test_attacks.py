"""Simulated attackers: what they send and train on, who they are, and that an honest run has none of it."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError, SchemaError
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.attacks.attack_settings import ATTACKS, OF_ROWS, AttackSettings
from fedllm_train.attacks.attackers import attackers_of
from fedllm_train.attacks.row_attacks import bad_rows, with_bad_rows
from fedllm_train.attacks.update_attacks import alie_z, colluding_change, lone_change
from fedllm_train.cli import main

SIZES = {f"client-{letter}": 3 for letter in "abcdefgh"}
SETTINGS = AttackSettings()


def one(*values):
    return {"a": torch.tensor(values, dtype=torch.float64)}


# -- what is sent ---------------------------------------------------------------------------------------------------


def test_lone_attackers():
    assert lone_change("sign_flip", one(1.0, -2.0), 1.0)["a"].tolist() == [-1.0, 2.0]
    assert lone_change("scaling", one(1.0, -2.0), 10.0)["a"].tolist() == [10.0, -20.0]
    assert lone_change("nan", one(1.0), 1.0)["a"].isnan().all()


@pytest.mark.parametrize(("n", "f", "z"), [(50, 12, 0.336), (50, 24, 1.426), (10, 3, 0.180), (100, 20, 0.286)])
def test_z_of_a_little_is_enough(n, f, z):
    assert alie_z(n, f) == pytest.approx(z, abs=6e-4)


def test_z_is_nothing_where_attackers_are_the_majority_or_alone():
    assert alie_z(5, 5) == alie_z(5, 4) == 0.0


def test_colluders_send_what_their_own_changes_tell():
    known = [one(0.0, 1.0), one(2.0, 1.0), one(4.0, 1.0)]
    assert colluding_change("ipm", known, num_updates=10, scale=0.1)["a"].tolist() == pytest.approx([-0.2, -0.1])
    alie = colluding_change("alie", known, num_updates=10, scale=1.0)["a"]
    assert alie.tolist() == pytest.approx([2 - alie_z(10, 3) * (8 / 3) ** 0.5, 1.0])
    far = colluding_change("min_max", known, num_updates=10, scale=1.0)["a"]
    assert max(float((far - each["a"]).norm()) for each in known) <= 4.0
    assert max(float((far - each["a"]).norm()) for each in known) >= 4.0 - 0.02 * (8 / 3) ** 0.5


@given(values=st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=1, max_size=5))
def test_min_max_never_lies_further_than_two_honest_clients(values):
    known = [one(*each) for each in values]
    bad = colluding_change("min_max", known, num_updates=20, scale=1.0)["a"]
    allowed = max(float((one_["a"] - two["a"]).norm()) for one_ in known for two in known)
    assert max(float((bad - each["a"]).norm()) for each in known) <= allowed + 1e-6


# -- what is trained on ---------------------------------------------------------------------------------------------


def test_flipped_labels_are_the_clients_own(kit):
    rows = kit.make_clients(sizes=SIZES)["client-a"].to_list()
    bad = bad_rows("label_flip", rows, SETTINGS)
    answers = [row["messages"][-1]["content"] for row in rows]
    assert [row["messages"][-1]["content"] for row in bad] == answers[1:] + answers[:1]
    assert [row["messages"][:-1] for row in bad] == [row["messages"][:-1] for row in rows]


def test_flipped_preferences(kit):
    rows = kit.make_clients("preference")["ann"].to_list()
    bad = bad_rows("preference_flip", rows, SETTINGS)
    assert [(row["rejected"], row["chosen"]) for row in bad] == [(row["chosen"], row["rejected"]) for row in rows]
    assert bad_rows("preference_flip", bad, SETTINGS) == rows


@pytest.mark.parametrize("task", ["sft", "preference"])
def test_a_backdoor_is_in_every_second_row(kit, task):
    clients = kit.make_clients(task)
    rows = clients[next(iter(clients))].to_list()
    bad = bad_rows("backdoor", rows, SETTINGS)
    for index, (before, after) in enumerate(zip(rows, bad, strict=True)):
        asked = after["prompt"] if task == "preference" else after["messages"][:-1]
        answer = after["chosen"][-1] if task == "preference" else after["messages"][-1]
        assert (SETTINGS.attack_trigger in json.dumps(asked)) == (index % 2 == 0)
        assert (answer["content"] == SETTINGS.attack_reply) == (index % 2 == 0)
        if index % 2:
            assert after == before


def test_other_clients_keep_their_rows_and_all_their_number(kit):
    clients = kit.make_clients(sizes=SIZES)
    bad = with_bad_rows(clients, {"client-c": "backdoor", "client-h": "label_flip", "client-a": "scaling"}, SETTINGS)
    assert bad.sizes == clients.sizes
    changed = {each for each in clients if bad[each].to_list() != clients[each].to_list()}
    assert changed == {"client-c", "client-h"}
    assert with_bad_rows(clients, {"client-a": "scaling"}, SETTINGS) is clients
    with pytest.raises(SchemaError, match="keep rows and columns"):
        clients.with_rows(clients.rows.with_format("arrow")[:].slice(1))


# -- who they are ---------------------------------------------------------------------------------------------------


def test_attackers_are_drawn_by_the_seed_alone():
    ids = [f"client-{number:02d}" for number in range(20)]
    settings = AttackSettings(attack="alie", attack_share=0.2)
    drawn = attackers_of(settings, ids, None, seed=1)
    assert len(drawn) == 4
    assert set(drawn.values()) == {"alie"}
    assert drawn == attackers_of(AttackSettings(attack="alie", attack_share=0.2), ids, None, seed=1)
    assert list(drawn) != list(attackers_of(settings, ids, None, seed=2))
    assert len(attackers_of(AttackSettings(attack="nan", attack_share=0.001), ids, None, seed=1)) == 1


TABLE = "client_id,profile,attack\n*,phone-4g,\nclient-c,,sign_flip\nclient-d,,backdoor\n"


def test_a_client_table_names_attackers(kit, tmp_path):
    (tmp_path / "table.csv").write_text(TABLE)
    changes = {"client_table": str(tmp_path / "table.csv"), "num_rounds": 1, "cohort_size": 8, "local_steps": 1}
    trainer = kit.make_trainer(tmp_path / "run", clients=kit.make_clients(sizes=SIZES), **changes)
    assert dict(trainer.plan.attackers) == {"client-c": "sign_flip", "client-d": "backdoor"}
    trainer.train()
    (record,) = kit.records_of(tmp_path / "run")
    assert record["attack"]["attackers"] == {"client-c": "sign_flip", "client-d": "backdoor"}
    (kept,) = (tmp_path / "run").glob("*.csv")
    assert kept.read_text().splitlines()[0].endswith(",attack")
    (tmp_path / "table.csv").write_text(TABLE.replace("sign_flip", "sign_flop"))
    with pytest.raises(ConfigError, match="client 'client-c' 'sign_flop' is unknown; did you mean sign_flip"):
        kit.make_trainer(tmp_path / "other", clients=kit.make_clients(sizes=SIZES), **changes)


# -- runs -----------------------------------------------------------------------------------------------------------


def run(kit, out, task="sft", **changes):
    given = {"num_rounds": 1, "cohort_size": 8, "local_steps": 1, **changes}
    clients = kit.make_clients(task, sizes=SIZES)
    return kit.make_trainer(out, task, clients=clients, **given).train().adapter


@pytest.mark.parametrize("attack", sorted(set(ATTACKS) - {"preference_flip"}))
def test_every_attack_changes_the_run_and_is_told(kit, tmp_path, attack):
    honest = run(kit, tmp_path / "honest")
    bad = run(kit, tmp_path / "bad", attack=attack, attack_share=0.25)
    assert adapter_sha256(bad) != adapter_sha256(honest)
    (record,) = kit.records_of(tmp_path / "bad")
    told = record["attack"]["attackers"]
    assert len(told) == 2
    assert set(told.values()) == {attack}
    left_out = {each["client_id"] for each in record["left_out"]}
    assert left_out == (set(told) if attack == "nan" else set())


def test_flipped_preferences_change_a_run(kit, tmp_path):
    honest = run(kit, tmp_path / "honest", "preference")
    bad = run(kit, tmp_path / "bad", "preference", attack="preference_flip", attack_share=0.25)
    assert adapter_sha256(bad) != adapter_sha256(honest)


@pytest.mark.parametrize(
    ("attack", "changes"),
    [
        ("alie", {"robust_sum": "multi_krum", "robust_num_bad": 2}),
        pytest.param("backdoor", {"wire": "int8"}, marks=pytest.mark.slow),
        pytest.param("sign_flip", {"wire": "int8"}, marks=pytest.mark.slow),
        pytest.param("alie", {"wire": "int8"}, marks=pytest.mark.slow),
        pytest.param("backdoor", {"robust_sum": "multi_krum", "robust_num_bad": 2}, marks=pytest.mark.slow),
    ],
)
def test_an_attacked_run_resumes_to_the_same_bits(kit, tmp_path, attack, changes):
    settings = {"attack": attack, "attack_share": 0.25, "num_rounds": 3, "keep_checkpoints": 3, **changes}
    whole = run(kit, tmp_path / "whole", **settings)
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=0)
    given = {"cohort_size": 8, "local_steps": 1, **settings}
    trainer = kit.make_trainer(tmp_path / "cut", clients=kit.make_clients(sizes=SIZES), **given)
    assert adapter_sha256(trainer.train(resume=True).adapter) == adapter_sha256(whole)


def test_multi_krum_leaves_out_attackers_that_shout(kit, tmp_path):
    run(kit, tmp_path / "run", attack="scaling", attack_share=0.25, attack_scale=1000.0, robust_sum="multi_krum",
        robust_num_bad=2, strategy="ffa_lora")  # fmt: skip
    (record,) = kit.records_of(tmp_path / "run")
    shares = record["robust"]["shares"]
    attackers = record["attack"]["attackers"]
    assert {client_id for client_id, share in shares.items() if share == 0} == set(attackers)


def test_colluders_whose_updates_are_refused_are_told(kit, tmp_path):
    settings = {"attack": "ipm", "attack_share": 0.25, "attack_scale": 1e6, "max_update_norm": 100.0}
    bad = run(kit, tmp_path / "bad", **settings)
    (record,) = kit.records_of(tmp_path / "bad")
    assert set(record["attack"]["left_out"]) == set(record["attack"]["attackers"])
    assert all("norm" in reason for reason in record["attack"]["left_out"].values())
    assert all(tensor.isfinite().all() for tensor in bad.values())


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"attack": "sing_flip", "attack_share": 0.1}, "did you mean sign_flip"),
        ({"attack": "alie"}, "say with attack_share"),
        ({"attack_share": 0.1}, "given without attack"),
        ({"attack": "alie", "attack_share": 1.0}, "it must lie between 0 and 1"),
        ({"attack": "scaling", "attack_share": 0.1, "attack_scale": -1.0}, "it must be positive"),
        ({"attack": "alie", "attack_share": 0.1, "attack_scale": 2.0}, "does not look at it"),
        ({"attack": "backdoor", "attack_share": 0.1, "attack_trigger": " "}, "attack_trigger is empty"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, reason):
    with pytest.raises(ConfigError, match=reason):
        AttackSettings(**given)


@pytest.mark.parametrize(
    ("task", "given", "reason"),
    [
        ("sft", {"attack": "preference_flip"}, "these rows have none"),
        ("preference", {"attack": "label_flip"}, "with pairs use preference_flip"),
        ("sft", {"attack": "sign_flip", "strategy": "fedkseed"}, "sends none"),
        ("sft", {"attack": "sign_flip", "strategy": "centralized"}, "has no federation of clients"),
    ],
)
def test_attacks_that_a_run_cannot_have_are_refused(kit, tmp_path, task, given, reason):
    with pytest.raises(ConfigError, match=reason):
        run(kit, tmp_path / "run", task, attack_share=0.2, **given)


def test_every_attack_of_rows_is_known():
    assert set(OF_ROWS) < set(ATTACKS)
    assert main(["sft", "--data", "d", "--model", "m", "--out", "o", "--attack", "alie"]) == 2
