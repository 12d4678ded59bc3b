"""Which rules of participation a guarantee allows, what the others cost, and that a lost client changes no noise."""

import json

import pytest

from fedllm_data.errors import ConfigError
from fedllm_data.roster import roster_of
from fedllm_train.config import FederatedConfig
from fedllm_train.prepare import prepare
from fedllm_train.privacy.accounting import epsilon_spent, run_guarantee
from fedllm_train.privacy.private_turnout import check_private_turnout

PRIVATE = {"dp_clip": 1.0, "dp_noise_multiplier": 1.0, "dp_delta": 1e-5}
TABLE = {"client_table": "profile:phone-4g"}
DEADLINE = {**TABLE, "participation": "deadline", "deadline_seconds": 60.0}
BUFFERED = {**TABLE, "participation": "buffered"}


def config(**changes):
    return FederatedConfig(output_dir="unused", **PRIVATE, **changes)


def guarantee_of(settings, **changes):
    given = {"num_rounds": 100, "num_clients": 100, "cohort_size": 10, **changes}
    return run_guarantee(settings, is_sampled=settings.participation == "synchronous", **given)


@pytest.mark.parametrize(
    ("changes", "has_windows", "message"),
    [
        ({**DEADLINE, "cohort_rule": "poisson"}, False, "the first to arrive are no independent sample"),
        ({**DEADLINE, "late": "apply"}, False, "late is 'apply'"),
        ({**TABLE, "cohort_rule": "poisson"}, True, "open at times only"),
        ({**TABLE, "cohort_rule": "all"}, True, "open at times only"),
    ],
)
def test_what_breaks_the_sample_is_refused(changes, has_windows, message):
    with pytest.raises(ConfigError, match=message):
        check_private_turnout(config(**changes), has_windows=has_windows)


def test_messages_whose_length_tells_of_their_values_are_refused_where_the_first_to_arrive_count():
    for changes in (DEADLINE, BUFFERED):
        with pytest.raises(ConfigError, match="a client's rows would decide whether it comes in time"):
            check_private_turnout(config(**changes), has_windows=False, has_fixed_lengths=False)
    sampled = config(**TABLE, cohort_rule="poisson")
    check_private_turnout(sampled, has_windows=False, has_fixed_lengths=False)


def test_a_run_with_an_entropy_code_is_refused_before_a_model_is_loaded(kit):
    def plan(**changes):
        settings = PRIVATE | DEADLINE | {"cohort_size": 2, "dp_delta": 1e-3} | changes
        prepare(FederatedConfig(output_dir="unused", **settings), roster_of(kit.make_clients()), kit.trl_args("sft"))

    plan(wire="drive", download_wire="int8")
    for name in ("wire", "download_wire"):
        with pytest.raises(ConfigError, match="use a wire without an entropy code"):
            plan(**{name: "topk-int8"})


def test_a_buffer_with_poisson_is_refused_before():
    with pytest.raises(ConfigError, match="asks clients one by one"):
        config(**BUFFERED, cohort_rule="poisson")


@pytest.mark.parametrize(
    "changes",
    [{**TABLE, "cohort_rule": "poisson"}, {**TABLE, "cohort_rule": "poisson", "drop_out": 0.3}, DEADLINE, BUFFERED],
    ids=["clock", "drop-out", "deadline", "buffered"],
)
def test_what_leaves_a_bound_is_allowed(changes):
    check_private_turnout(config(**changes), has_windows=False)


def test_without_a_clock_uniform_cohorts_stay_refused():
    with pytest.raises(ConfigError, match="the privacy accountant has no bound"):
        config()


@pytest.mark.parametrize(("noise", "epsilon"), [(1.0, 91.8), (10.0, 4.38)])
def test_no_amplification_costs_what_it_costs(noise, epsilon):
    assert epsilon_spent(noise, 1.0, 100, 1e-5) == pytest.approx(epsilon, rel=1e-3)


@pytest.mark.parametrize("changes", [DEADLINE, BUFFERED], ids=["deadline", "buffered"])
def test_a_rule_without_sample_is_accounted_for_as_if_everybody_took_part_in_every_round(changes):
    guarantee = guarantee_of(config(**changes))
    assert guarantee.epsilon(100) == pytest.approx(91.8, rel=1e-3)
    assert (guarantee.sampling_rate, guarantee.expected_cohort) == (1.0, 10)
    record = json.loads(json.dumps(guarantee.as_record()))
    assert record["is_sampled"] is False
    assert record["neighbours"] == "one client's updates replaced by zero"
    assert not any("Poisson" in each for each in record["assumptions"])
    assert "without amplification" in guarantee.spent_in_words(100)


def test_the_record_of_a_sampled_run_is_what_it_was():
    """A private run of today must resume: its config.yaml holds this record."""
    record = guarantee_of(config(cohort_rule="poisson")).as_record()
    assert "is_sampled" not in record
    assert record["epsilon"] == pytest.approx(7.047, rel=1e-3)
    assert any("Poisson" in each for each in record["assumptions"])


def test_a_lost_client_changes_neither_the_noise_nor_the_divisor(kit, tmp_path, monkeypatch):
    """Two runs with one secret differ by what the lost clients would have given: the same noise is in both."""
    monkeypatch.setattr("fedllm_train.privacy.beginning.run_secret", lambda run, **rounds: b"s" * 64)
    settings = {"cohort_rule": "poisson", "cohort_size": 4, "num_rounds": 1, "client_table": "profile:phone-4g"}
    settings |= PRIVATE | {"dp_delta": 1e-3}

    def run(name, **changes):
        trainer = kit.make_trainer(tmp_path / name, **settings, **changes)
        state = trainer.train()
        (record,) = kit.records_of(tmp_path / name)
        return trainer.start_adapter, state.adapter, record

    start, whole, all_there = run("whole")
    _, lossy, lost = run("lossy", drop_out=0.9)
    gone, there = ({each["client_id"] for each in lost[key]} for key in ("left_out", "clients"))
    assert gone
    assert gone | there == {each["client_id"] for each in all_there["clients"]}
    assert lost["privacy"]["epsilon"] == all_there["privacy"]["epsilon"]

    def norm(left, right):
        return float(sum((left[name].double() - right[name].double()).square().sum() for name in left)) ** 0.5

    # Each moves the release by at most dp_clip over the expected cohort, 1 / 4. The noise has a norm of about
    # sqrt(2,048) / 4 = 11.3 and must have cancelled.
    assert 0 < norm(whole, lossy) <= len(gone) / 4 + 1e-4
    assert norm(whole, start) > 9
