"""Robust sums in runs: what is refused, what bad updates do, what a method sees, and the same bits when resumed."""

from dataclasses import replace

import pytest
import torch

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.aggregation.robust import heuristic_note
from fedllm_train.aggregation.robust_settings import (
    ROBUST_SUMS,
    SELECTIONS,
    RobustSettings,
    check_robust_method,
    least_updates,
)
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.engine import InProcessEngine
from fedllm_train.messages import codec
from fedllm_train.strategies import STRATEGIES

SIZES = {f"client-{letter}": 2 + number for number, letter in enumerate("abcdefgh")}
BAD = {"robust_num_bad": 1}
RULES = {
    "median": {},
    "trimmed_mean": BAD,
    "krum": BAD,
    "multi_krum": BAD,
    "bulyan": BAD,
    "geometric_median": {},
    "norm_bound": {},
    "centred_clip": {},
    "fltrust": {"robust_root": "client-h"},
}
LOUD = "client-c"


def run(kit, out, rule, *, strategy="ffa_lora", **changes):
    """The trainer and the final adapter of a run of seven clients a round."""
    given = {"robust_sum": rule, **RULES.get(rule, {}), "num_rounds": 2, "cohort_size": 7, "local_steps": 1, **changes}
    return kit.make_trainer(out, strategy=strategy, clients=kit.make_clients(sizes=SIZES), **given).train().adapter


class Loud(InProcessEngine):
    """One client, whose update is a thousand times as long as it was, or is not a number."""

    factor = 1000.0

    def take(self):
        reply = super().take()
        if reply is None or reply.client_id != LOUD:
            return reply
        parts = codec.decode(reply.message)
        loud = {name: tensor * self.factor for name, tensor in parts["adapter"].items()}
        return replace(reply, message=codec.encode({**parts, "adapter": loud}))


class Mad(Loud):
    """One client, whose update is not a number."""

    factor = float("nan")


def test_all_rules_are_tried_here():
    assert set(RULES) == set(ROBUST_SUMS) - {"none"}


@pytest.mark.parametrize("rule", RULES)
def test_a_loud_client_moves_the_mean_far_and_a_robust_sum_little(kit, tmp_path, rule):
    changes = {"cohort_size": 7 if rule == "fltrust" else 8, "num_rounds": 1}  # all, beside the root
    honest = run(kit, tmp_path / "honest", rule, **changes)
    loud = run(kit, tmp_path / "loud", rule, engine=kit.in_process(engine=Loud), **changes)
    mean = run(kit, tmp_path / "mean", "none", engine=kit.in_process(engine=Loud), **changes)

    def apart(one, two):
        return float(torch.stack([(one[name] - two[name]).norm() for name in one]).norm())

    assert apart(loud, honest) < apart(mean, honest) / 20
    (record,) = kit.records_of(tmp_path / "loud")
    shares = record["robust"]["shares"]
    assert record["robust"]["rule"] == rule
    assert shares[LOUD] <= 1 / 7 + 1e-9
    if rule not in ("norm_bound", "centred_clip", "fltrust"):
        assert sum(shares.values()) == pytest.approx(1)


def test_without_bad_clients_the_trimmed_mean_is_the_mean_of_clients_that_count_alike(kit, tmp_path):
    trimmed = run(kit, tmp_path / "trimmed", "trimmed_mean", robust_num_bad=0)
    mean = run(kit, tmp_path / "mean", "none", uniform_weights=True)
    assert all(torch.allclose(trimmed[name], mean[name], atol=1e-6) for name in mean)


@pytest.mark.parametrize("rule", ["krum", "multi_krum", "median"])
def test_an_update_that_is_not_finite_is_left_out_by_name(kit, tmp_path, rule):
    run(kit, tmp_path / "run", rule, engine=kit.in_process(engine=Mad), num_rounds=1, cohort_size=8)
    (record,) = kit.records_of(tmp_path / "run")
    assert [each["client_id"] for each in record["left_out"]] == [LOUD]
    assert LOUD not in record["robust"]["shares"]


def test_too_few_replies_make_no_step_and_the_record_says_why(kit, tmp_path):
    sizes = {name: rows for name, rows in SIZES.items() if name != "client-h"}
    changes = {"robust_sum": "bulyan", "robust_num_bad": 1, "cohort_size": 7, "num_rounds": 1}
    engine, clients = kit.in_process(engine=Mad), kit.make_clients(sizes=sizes)
    kit.make_trainer(tmp_path / "run", strategy="ffa_lora", clients=clients, engine=engine, **changes).train()
    (record,) = kit.records_of(tmp_path / "run")
    assert record["server_step"] is False
    assert record["robust"]["reason"] == "the rule needs 7 updates"


@pytest.mark.parametrize(
    ("rule", "strategy", "changes"),
    [
        ("centred_clip", "fedavg", {"wire": "int8"}),
        ("multi_krum", "scaffold", {}),
        ("multi_krum", "flora", {}),
        ("median", "fedadam", {"download_wire": "int8"}),
        ("fltrust", "ffa_lora", {"robust_root": "client-h"}),
    ],
)
def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(kit, tmp_path, rule, strategy, changes):
    settings = {"num_rounds": 3, "cohort_size": 7, "keep_checkpoints": 3, **changes}
    whole = run(kit, tmp_path / "whole", rule, strategy=strategy, **settings)
    kit.cut_after(tmp_path / "whole", tmp_path / "cut", after_round=0)
    given = {"robust_sum": rule, **RULES[rule], "local_steps": 1, **settings}
    trainer = kit.make_trainer(tmp_path / "cut", strategy=strategy, clients=kit.make_clients(sizes=SIZES), **given)
    assert adapter_sha256(trainer.train(resume=True).adapter) == adapter_sha256(whole)


def test_the_root_is_asked_in_every_round_and_counts_for_nothing_itself(kit, tmp_path):
    run(kit, tmp_path / "run", "fltrust", num_rounds=3, cohort_size=3)
    for record in kit.records_of(tmp_path / "run"):
        assert "client-h" in [each["client_id"] for each in record["clients"]]
        assert len(record["robust"]["shares"]) == 3
        assert "client-h" not in record["robust"]["shares"]


# -- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"robust_sum": "medain"}, "did you mean median"),
        ({"robust_sum": "krum"}, "say with robust_num_bad how many bad clients"),
        ({"robust_sum": "median", "robust_num_bad": 1}, "robust_sum median does not look at it"),
        ({"robust_num_bad": 1}, "robust_sum none does not look at it"),
        ({"robust_sum": "trimmed_mean", "robust_num_bad": -1}, "it must not be negative"),
        ({"robust_sum": "norm_bound", "robust_clip": 0.0}, "robust_clip is 0.0; it must be positive"),
        ({"robust_sum": "centred_clip", "robust_steps": 0}, "it must be at least 1"),
        ({"robust_sum": "fltrust"}, "name with robust_root the client"),
        ({"robust_sum": "krum", "robust_num_bad": 1, "robust_keep": 2}, "use multi_krum, or leave it out"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, reason):
    with pytest.raises(ConfigError, match=reason):
        FederatedConfig(output_dir="run", **given)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"robust_sum": "krum", "robust_num_bad": 3}, "needs 9 updates, and a step takes 7"),
        ({"robust_sum": "bulyan", "robust_num_bad": 2}, "needs 11 updates"),
        ({"robust_sum": "trimmed_mean", "robust_num_bad": 4}, "needs 9 updates"),
        ({"robust_sum": "multi_krum", "robust_num_bad": 1, "robust_keep": 7}, "needs 8 updates"),
        ({"robust_sum": "fltrust", "robust_root": "client-x"}, "none of the 8 clients"),
        ({"robust_sum": "median", "strategy": "scaffold"}, 'a method whose "sees" is "mean"'),
        ({"robust_sum": "median", "strategy": "flora"}, "needs every update"),
        ({"robust_sum": "krum", "robust_num_bad": 1, "strategy": "fedkseed"}, "send no adapter"),
        ({"robust_sum": "median", "strategy": "local"}, "send no adapter"),
        (
            {"robust_sum": "median", "dp_clip": 1.0, "dp_noise_multiplier": 1.0, "dp_delta": 1e-5,
             "cohort_rule": "poisson"},
            "dp_clip is given",
        ),
        ({"robust_sum": "median", "uniform_weights": False}, "uniform_weights False is given"),
        ({"robust_sum": "krum", "robust_num_bad": 1, "strategy": "hetlora", "client_ranks": "2,4"},
         "client_ranks is given"),
    ],
)  # fmt: skip
def test_rules_that_cannot_stand_for_a_methods_mean_are_refused(kit, tmp_path, given, reason):
    strategy = given.pop("strategy", "fedavg")
    with pytest.raises(ConfigError, match=reason):
        run(kit, tmp_path / "run", given.pop("robust_sum"), strategy=strategy, **given)
    assert not (tmp_path / "run").exists()


def test_every_method_is_refused_or_runs_by_what_it_sees():
    for name, method in STRATEGIES.items():
        for rule in RULES:
            settings = RobustSettings(robust_sum=rule, **RULES[rule])
            allowed = method.traits.sends_adapter and method.traits.travels
            allowed = allowed and (rule in SELECTIONS or method.traits.sees == "mean")
            allowed = allowed and (method.traits.adapter_down in ("same", "none") or method.traits.sees == "each")
            try:
                check_robust_method(settings, name, method.traits, cohort_size=7, others={})
                assert allowed, (name, rule)
            except ConfigError:
                assert not allowed, (name, rule)


def test_least_updates_are_those_of_the_papers():
    for bad in range(4):
        given = {"robust_num_bad": bad}
        assert least_updates(RobustSettings(robust_sum="krum", **given)) == 2 * bad + 3
        assert least_updates(RobustSettings(robust_sum="bulyan", **given)) == 4 * bad + 3
        assert least_updates(RobustSettings(robust_sum="trimmed_mean", **given)) == 2 * bad + 1


def test_a_rule_on_both_factors_is_named_a_heuristic():
    both, one = {"q.lora_A.weight": 0, "q.lora_B.weight": 0}, {"q.lora_B.weight": 0}
    for rule, given in RULES.items():
        settings = RobustSettings(robust_sum=rule, **given)
        is_told = heuristic_note(settings, both) is not None
        assert is_told == (rule in ("median", "trimmed_mean", "bulyan", "geometric_median", "fltrust"))
        assert heuristic_note(settings, one) is None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"cohort_size": 8}, "a round takes 8 clients, and beside robust_root 'client-h' there are 7"),
        ({"cohort_rule": "all"}, "a round takes 8 clients, and beside robust_root"),
    ],
)
def test_a_root_that_cannot_be_one_is_refused_before_the_model_is_loaded(kit, tmp_path, given, reason):
    sizes = {f"client-{letter}": 3 for letter in "abcdefgh"}
    rule = {"strategy": "ffa_lora", "robust_sum": "fltrust", "robust_root": "client-h", "num_rounds": 1}
    with pytest.raises(ConfigError, match=reason):
        kit.make_trainer(tmp_path / "run", clients=kit.make_clients(sizes=sizes), **rule, **given)


def test_the_root_is_never_drawn_as_an_attacker(kit, tmp_path):
    sizes = {f"client-{letter}": 3 for letter in "abcdefgh"}
    rule = {"strategy": "ffa_lora", "robust_sum": "fltrust", "robust_root": "client-h", "num_rounds": 1}
    attack = {"attack": "sign_flip", "attack_share": 0.99, "cohort_size": 7}
    trainer = kit.make_trainer(tmp_path / "run", clients=kit.make_clients(sizes=sizes), **rule, **attack)
    assert set(trainer.plan.attackers) == sizes.keys() - {"client-h"}


def test_a_root_that_the_client_table_calls_an_attacker_is_refused(kit, tmp_path):
    (tmp_path / "table.csv").write_text("client_id,profile,attack\n*,phone-4g,\nclient-h,,sign_flip\n")
    sizes = {f"client-{letter}": 3 for letter in "abcdefgh"}
    rule = {"strategy": "ffa_lora", "robust_sum": "fltrust", "robust_root": "client-h", "num_rounds": 1}
    table = {"client_table": str(tmp_path / "table.csv"), "cohort_size": 7}
    with pytest.raises(ConfigError, match="it is a simulated attacker"):
        kit.make_trainer(tmp_path / "run", clients=kit.make_clients(sizes=sizes), **rule, **table)
