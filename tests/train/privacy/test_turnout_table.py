"""Every rule of participation with every mechanism: what it is accounted for as, or why it is refused."""

import itertools

import pytest

from fedllm_data.errors import ConfigError
from fedllm_train.config import FederatedConfig
from fedllm_train.participation.cohort_rules import COHORT_RULES
from fedllm_train.privacy.accounting import run_guarantee
from fedllm_train.privacy.private_turnout import check_private_turnout

TABLE = {"client_table": "profile:phone-4g"}
WAITS = {
    "cohort": {},
    "cohort on a clock": TABLE,
    "deadline": {**TABLE, "participation": "deadline", "deadline_seconds": 60.0},
    "first of more": {**TABLE, "participation": "deadline", "over_selection": 1.3},
    "late applied": {**TABLE, "participation": "deadline", "deadline_seconds": 60.0, "late": "apply"},
    "buffer": {**TABLE, "participation": "buffered"},
}
MECHANISMS = {
    "independent": {},
    "without replacement": {"dp_sampling": "without_replacement"},
    "tree": {"dp_mechanism": "tree"},
}
RULES = ("uniform", "weighted", "fixed", "all", "poisson", "fedllm-bench")
NO_BOUND, ONE_SIZE, NO_SAMPLE = "has no bound", "use cohort_rule uniform", "is no random sample"
ONE_BY_ONE, TWICE, NONE_COUNTED = "asks clients one by one", "late is 'apply'", "counts on no sampling"
FIRST = "no independent sample"


EVERY = list(itertools.product(WAITS, RULES, MECHANISMS))


def verdict(waits, rule, mechanism):
    """What should come of it: how it is accounted for, or a part of the refusal."""
    if waits == "buffer" and rule not in ("uniform", "weighted"):
        return ONE_BY_ONE
    if mechanism == "tree":
        if rule == "poisson":
            return NONE_COUNTED
        return TWICE if waits == "late applied" else "turns"
    if mechanism == "without replacement":
        if not waits.startswith("cohort"):
            return NO_SAMPLE
        return "without_replacement" if rule == "uniform" else ONE_SIZE
    if waits.startswith("cohort"):
        return "poisson" if rule in ("poisson", "all") else NO_BOUND
    if waits == "late applied":
        return TWICE
    return FIRST if rule == "poisson" else "none"


def accounted(waits, rule, mechanism, *, has_windows=False, has_fixed_lengths=True):
    """How a run is accounted for, through the checks that a run goes through."""
    cohort = {"cohort_clients": "a,b"} if rule == "fixed" else {}
    config = FederatedConfig(
        output_dir="unused",
        dp_clip=1.0,
        dp_noise_multiplier=1.0,
        dp_delta=1e-5,
        cohort_rule=rule,
        **cohort,
        **WAITS[waits],
        **MECHANISMS[mechanism],
    )
    check_private_turnout(
        config,
        has_windows=has_windows,
        has_fixed_lengths=has_fixed_lengths,
        has_related_noise=config.has_related_noise,
    )
    is_sampled = config.participation == "synchronous"
    made = run_guarantee(config, num_rounds=100, num_clients=100, cohort_size=10, is_sampled=is_sampled)
    assert made.epsilon(100) > 0
    return made.sampling


def test_the_table_has_every_rule():
    assert set(RULES) == set(COHORT_RULES)


@pytest.mark.parametrize(("waits", "rule", "mechanism"), EVERY)
def test_every_rule_with_every_mechanism(waits, rule, mechanism):
    expected = verdict(waits, rule, mechanism)
    if expected in ("poisson", "without_replacement", "none", "turns"):
        assert accounted(waits, rule, mechanism) == expected
    else:
        with pytest.raises(ConfigError, match=expected):
            accounted(waits, rule, mechanism)


@pytest.mark.parametrize(("waits", "rule", "mechanism"), EVERY)
def test_machines_that_are_open_at_times_leave_no_sample(waits, rule, mechanism):
    expected = verdict(waits, rule, mechanism)
    if expected in ("poisson", "without_replacement"):
        with pytest.raises(ConfigError, match="open at times only"):
            accounted(waits, rule, mechanism, has_windows=True)
    elif expected in ("none", "turns"):
        assert accounted(waits, rule, mechanism, has_windows=True) == expected


@pytest.mark.parametrize(("waits", "rule", "mechanism"), EVERY)
@pytest.mark.parametrize("has_windows", [False, True])
def test_lengths_that_tell_are_refused_wherever_a_clock_decides_who_counts(waits, rule, mechanism, has_windows):
    expected = verdict(waits, rule, mechanism)
    if expected not in ("none", "turns"):
        return  # refused, or the clock decides nothing
    decides = has_windows or not waits.startswith("cohort")
    if decides:
        with pytest.raises(ConfigError, match="without an entropy code"):
            accounted(waits, rule, mechanism, has_windows=has_windows, has_fixed_lengths=False)
    else:
        assert accounted(waits, rule, mechanism, has_fixed_lengths=False) == expected


def test_what_is_not_amplified_is_never_below_what_is():
    spent = {}
    for waits, rule, mechanism in (
        ("cohort", "poisson", "independent"),
        ("deadline", "uniform", "independent"),
        ("cohort", "all", "independent"),
    ):
        config = FederatedConfig(
            output_dir="unused", dp_clip=1.0, dp_noise_multiplier=4.0, dp_delta=1e-5, cohort_rule=rule, **WAITS[waits]
        )
        size = 100 if rule == "all" else 10
        sampled = config.participation == "synchronous"
        made = run_guarantee(config, num_rounds=20, num_clients=100, cohort_size=size, is_sampled=sampled)
        spent[waits, rule, mechanism] = made.epsilon(20)
    poisson, deadline, everybody = spent.values()
    assert poisson < deadline == everybody


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_clients": 2, "cohort_rule": "poisson"}, "min_clients is 2"),
        ({"min_clients": 2, "dp_sampling": "without_replacement"}, "min_clients is 2"),
        ({"min_clients": 2, "dp_mechanism": "tree"}, "min_clients is 2"),
        ({"eval_every": 1, "load_best": True, "dp_mechanism": "tree"}, "load_best choose by scores"),
        ({"dp_mechanism": "matrix"}, "dp_matrix goes with dp_mechanism matrix"),
        ({"dp_matrix": "m.json", "cohort_rule": "poisson"}, "dp_matrix goes with dp_mechanism matrix"),
        ({"dp_mechanism": "tre"}, "dp_mechanism 'tre' is unknown; did you mean"),
        ({"dp_sampling": "uniform"}, "dp_sampling 'uniform' is unknown"),
        ({"dp_min_separation": 3, "cohort_rule": "poisson"}, "does not look at how often"),
        ({"dp_max_participations": 3, "cohort_rule": "poisson"}, "does not look at how often"),
        ({"dp_min_separation": 0, "dp_mechanism": "tree"}, "dp_min_separation is 0"),
        ({"dp_max_participations": 0, "dp_mechanism": "tree"}, "dp_max_participations is 0"),
        ({"dp_mechanism": "tree", "dp_sampling": "without_replacement"}, "leave dp_sampling out"),
        ({"dp_mechanism": "tree", "dp_noise_multiplier": 0.0}, "no noise to relate"),
        ({"dp_mechanism": "tree", "dp_clip": None, "dp_delta": None, "dp_noise_multiplier": None}, "without dp_clip"),
        ({"dp_sampling": "without_replacement", "dp_clip": None, "dp_delta": None, "dp_noise_multiplier": None},
         "without dp_clip"),
    ],
)  # fmt: skip
def test_settings_that_contradict_one_another_are_refused(changes, message):
    given = {"output_dir": "unused", "dp_clip": 1.0, "dp_noise_multiplier": 1.0, "dp_delta": 1e-5}
    with pytest.raises(ConfigError, match=message):
        FederatedConfig(**{**given, **changes})
