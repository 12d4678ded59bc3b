"""Whatever divides by a number of clients divides by those who can take part, not by all of the dataset."""

import pytest
import torch

from fedllm_train.config import FederatedConfig
from fedllm_train.participation.cohort_rules import cohort_pool
from fedllm_train.privacy.accounting import run_guarantee

FIXED = {"cohort_rule": "fixed", "cohort_clients": "a, c"}


@pytest.mark.parametrize(("settings", "num_clients"), [({}, 5), (FIXED, 2), ({"cohort_rule": "all"}, 5)])
def test_scaffold_moves_c_by_the_share_of_those_who_can_take_part(rules, settings, num_clients):
    strategy = rules.make("scaffold", client_ids=("a", "b", "c", "d", "e"), **settings)
    state = strategy.start({"w": torch.tensor([0.0], dtype=torch.float64)})
    change = {"adapter": state["adapter"], "control_change": {"w": torch.tensor([6.0], dtype=torch.float64)}}
    # Two clients' changes of 6: c = 12 / N.
    assert rules.step(strategy, state, [(change, 1), (change, 1)])["control"]["w"].item() == 12 / num_clients


def test_a_fixed_cohort_ends_where_a_dataset_of_these_clients_alone_does(kit, tmp_path):
    """SCAFFOLD's c, and with it every adapter from the second round on, is the same to the bit."""
    settings = {"strategy": "scaffold", "num_rounds": 3, "local_steps": 1}
    fixed = {"cohort_rule": "fixed", "cohort_clients": "ann,bob", "cohort_size": 2}
    of_five = kit.make_trainer(tmp_path / "fixed", **fixed, **settings).train().server
    two = kit.make_clients().select(["ann", "bob"])
    alone = kit.make_trainer(tmp_path / "alone", clients=two, cohort_rule="all", cohort_size=2, **settings)
    for part, tensors in alone.train().server.items():
        assert all(torch.equal(of_five[part][name], tensor) for name, tensor in tensors.items())


def test_groups_by_language_are_of_those_who_can_take_part(rules):
    languages = {"a": "en", "b": "en", "c": "fr", "d": "fr", "e": "fr"}
    fixed = {"client_ids": tuple(languages), "cohort_rule": "fixed", "cohort_clients": "a,b,c"}
    strategy = rules.make("language_clusters", languages=languages, **fixed)
    state = strategy.start(rules.one(w=[0.0]))
    # Only c speaks French among the three: no group of its own, with min_cluster_clients 2.
    assert sorted(state) == ["adapter", "group en", "group others"]
    sums = {}
    for client_id in "abc":
        sent = strategy.broadcast(state, client_id, 0)
        rules.fold(strategy, sums, {"adapter": rules.one(w=[3.0]), "group": sent["group"]}, 1)
    # a, b and c learned 3; d and e, who never come, hold nothing back.
    assert strategy.server_step(state, sums, 0)["adapter"]["w"].tolist() == [3.0]


def test_ranks_are_dealt_out_among_those_who_can_take_part(kit, tmp_path):
    # By rows: bob 3, dan 5, ann 7, eve 9, cyd 12; of eve and cyd alone, eve has fewer.
    fixed = {"cohort_rule": "fixed", "cohort_clients": "cyd,eve", "cohort_size": 2}
    trainer = kit.make_trainer(tmp_path / "run", strategy="flexlora", client_ranks="2,4", **fixed)
    strategy, state = trainer.plan.strategy, trainer.loaded.start_state
    sent = {client_id: strategy.broadcast(state, client_id, 0)["adapter"] for client_id in ("cyd", "eve")}
    ranks = {c: next(t.shape[0] for n, t in adapter.items() if "lora_A" in n) for c, adapter in sent.items()}
    assert ranks == {"eve": 2, "cyd": 4}


def test_a_centralized_run_makes_as_many_steps_as_one_in_which_all_take_part(kit, tmp_path):
    settings = {"cohort_rule": "all", "num_rounds": 1, "local_steps": 2}
    ledgers = [
        kit.make_trainer(tmp_path / name, strategy=name, **settings).train().ledger
        for name in ("centralized", "fedavg")
    ]
    assert ledgers[0].num_local_steps == ledgers[1].num_local_steps == 5 * 2


def test_privacy_is_accounted_for_the_clients_that_can_be_sampled():
    given = {"dp_clip": 1.0, "dp_noise_multiplier": 1.0, "dp_delta": 1e-3, "output_dir": "run", "num_rounds": 2}
    for rule, size in (("poisson", {"cohort_size": 2}), ("all", {})):
        config = FederatedConfig(cohort_rule=rule, **size, **given)
        pool, cohort_size = cohort_pool(config, ["a", "b", "c", "d"])
        guarantee = run_guarantee(config, num_rounds=2, num_clients=len(pool), cohort_size=cohort_size)
        assert (guarantee.sampling_rate, guarantee.expected_cohort) == {"poisson": (0.5, 2), "all": (1.0, 4)}[rule]
