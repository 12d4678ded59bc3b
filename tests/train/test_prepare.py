"""From settings and a roster to a plan: no rows, no weights; every refusal that needs neither."""

from types import SimpleNamespace

import pyarrow as pa
import pytest

from fedllm_data.errors import ConfigError
from fedllm_data.roster import Roster, roster_of
from fedllm_train import FederatedConfig
from fedllm_train.prepare import prepare
from fedllm_train.strategies import STRATEGIES

SIZES = {"ann": 7, "bob": 3, "cyd": 12, "dan": 5}
CLIENT = SimpleNamespace(learning_rate=0.02, train_batch_size=2, gradient_accumulation_steps=3, packing=False)


def no_table():
    raise AssertionError("the clients table was read")


def roster(load_table=no_table, sizes=SIZES):
    return Roster(name="org/clients", split="train", task="sft", revision="1", sizes=sizes, load_table=load_table)


def table(**columns):
    return lambda: pa.table({"client_id": list(SIZES), **columns})


def config(**settings):
    settings.setdefault("num_rounds", 4)
    if settings.get("cohort_rule") not in ("all", "fixed"):
        settings.setdefault("cohort_size", 2)
    return FederatedConfig(output_dir="run", **settings)


def test_the_plan_holds_what_was_resolved():
    plan = prepare(config(expected_epochs=3.0, min_learning_rate=None), roster(), CLIENT)
    assert list(plan.participants) == list(SIZES)
    assert (plan.cohort_size, plan.learning_rate, plan.min_learning_rate) == (2, 0.02, 0.001)
    # Every client is expected to be visited 4 * 2 / 4 = 2 times; 12 rows, 3 epochs: 12 * 3 / 2 / 6 = 3 steps.
    assert plan.work.visits == 2.0
    assert plan.work.num_steps(12) == 3
    assert plan.guarantee is None


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "language_clusters"])
def test_no_method_but_that_of_languages_reads_the_clients_table(strategy):
    prepare(config(strategy=strategy), roster(), CLIENT)


def test_languages_come_from_the_clients_table():
    plan = prepare(config(strategy="language_clusters"), roster(table(main_language=["en", "en", "fr", "fr"])), CLIENT)
    assert plan.federation.languages == {"ann": "en", "bob": "en", "cyd": "fr", "dan": "fr"}
    assert set(plan.strategy.start({})) == {"adapter", "group en", "group fr"}


def test_a_roster_says_of_clients_in_memory_what_their_rows_say(kit):
    clients = kit.make_clients()
    listed = roster_of(clients)
    assert dict(listed.sizes) == kit.SIZES
    assert set(listed.languages.values()) == {"en"}
    assert listed.task == "sft"
    assert len(listed) == len(clients)


def test_what_hosts_are_told_names_nobody_but_by_rank():
    plan = prepare(config(strategy="hetlora", client_ranks="column:rank"), roster(table(rank=[2, 4, 2, 4])), CLIENT)
    told = plan.federation.for_hosts()
    assert told.ranks == {"ann": 2, "bob": 4, "cyd": 2, "dan": 4}
    assert (told.eligible, dict(told.sizes), dict(told.languages)) == ((), {}, {})
    assert told.num_clients == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cohort_size": 5}, "cohort_size is 5 but the dataset has 4 clients"),
        ({"cohort_rule": "nosuch"}, "cohort_rule 'nosuch' is unknown"),
        ({"cohort_rule": "fixed", "cohort_clients": "eve"}, "cohort_clients names 'eve'"),
        ({"min_clients": 3}, "min_clients is 3 but at most 2 clients"),
        ({"num_processes": 3}, "num_processes is 3 but 2 clients take part"),
        ({"strategy": "local", "local_client": "eve"}, "local_client 'eve' is not among the 4 clients"),
        ({"strategy": "centralized", "local_epochs": 1.0}, "strategy centralized takes as many steps"),
        ({"strategy": "flora", "full_finetuning": True}, "strategy 'flora' works on LoRA factors"),
        ({"strategy": "local", "wire": "int8"}, "strategy 'local' uploads nothing"),
        (
            {"strategy": "flora", "wire": "topk", "error_feedback": "ef14"},
            "error_feedback is given, but clients of strategy 'flora' begin every round from another adapter",
        ),
        ({"strategy": "ditto", "eval_every": 1}, "with Ditto clients end with adapters of their own"),
        ({"round_rows": "fedllm-bench"}, "packing joins rows into sequences"),
        ({"report_to": "nosuch"}, "report_to 'nosuch' is unknown"),
    ],
)
def test_what_cannot_be_honoured_is_refused_without_rows_or_weights(settings, message):
    client = SimpleNamespace(**vars(CLIENT) | {"packing": "round_rows" in settings})
    with pytest.raises(ConfigError, match=message):
        prepare(config(**settings), roster(), client)


def test_a_model_in_memory_cannot_be_sent_to_other_processes():
    with pytest.raises(ConfigError, match="num_processes is 2 and the model was given in memory"):
        prepare(config(num_processes=2), roster(), CLIENT, model_is_named=False)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_differential_privacy_takes_the_methods_that_see_a_mean_and_no_others(strategy):
    private = {"dp_clip": 1.0, "dp_noise_multiplier": 0.0, "dp_delta": 1e-3, "cohort_rule": "poisson"}
    private |= {"core_frame": "random"} if strategy == "fed_sb" else {}
    sees = STRATEGIES[strategy].traits.sees
    if sees == "mean":
        assert prepare(config(strategy=strategy, **private), roster(), CLIENT).guarantee is not None
        return
    with pytest.raises(ConfigError, match=f"dp_clip is given, but strategy '{strategy}'"):
        prepare(
            config(strategy=strategy, **private),
            roster(table(main_language=["en"] * 4) if strategy == "language_clusters" else no_table),
            CLIENT,
        )


def test_a_frame_of_gradients_is_not_covered_by_differential_privacy():
    private = {"dp_clip": 1.0, "dp_noise_multiplier": 0.0, "dp_delta": 1e-3, "cohort_rule": "poisson"}
    with pytest.raises(ConfigError, match="core_frame is gradient"):
        prepare(config(strategy="fed_sb", **private), roster(), CLIENT)
