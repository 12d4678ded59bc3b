"""What a run spends: dp-accounting called directly, the closed form without sampling, monotony, what is refused."""

import math

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from scipy.stats import norm

from fedllm_data.errors import ConfigError
from fedllm_train.config import FederatedConfig
from fedllm_train.privacy.accounting import epsilon_spent, noise_for_epsilon, run_guarantee


def directly(z, q, num_rounds, delta):
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-3)
    accountant.compose(dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(z)), num_rounds)
    return accountant.get_epsilon(delta)


def test_epsilon_is_dp_accountings():
    assert epsilon_spent(1.0, 0.05, 20, 1e-5) == pytest.approx(directly(1.0, 0.05, 20, 1e-5), rel=1e-9)


def test_without_sampling_it_bounds_the_closed_form_tightly():
    # T Gaussian rounds are one with mu = sqrt(T) / z, whose delta is Phi(mu/2 - e/mu) - exp(e) Phi(-mu/2 - e/mu)
    # (Balle and Wang 2018, theorem 8).
    def delta_of(epsilon, mu):
        return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)

    epsilon, mu = epsilon_spent(8.0, 1.0, 16, 1e-5), 4 / 8
    assert delta_of(epsilon, mu) <= 1e-5
    assert delta_of(epsilon * 0.99, mu) > 1e-5


def test_noise_for_an_epsilon_is_enough_and_hardly_more():
    z = noise_for_epsilon(3.0, 1e-5, 0.05, 20)
    assert directly(z, 0.05, 20, 1e-5) <= 3.0
    assert directly(z / 1.002, 0.05, 20, 1e-5) > 3.0


def test_epsilon_grows_with_rounds_and_rate_and_falls_with_noise():
    spent = [epsilon_spent(2.0, 0.1, num_rounds, 1e-5) for num_rounds in (0, 1, 5, 20)]
    assert spent[0] == 0
    assert spent == sorted(set(spent))
    assert epsilon_spent(2.0, 0.2, 5, 1e-5) > spent[2] > epsilon_spent(3.0, 0.1, 5, 1e-5)


def settings(**changes):
    given = {"output_dir": "run", "dp_clip": 0.5, "dp_delta": 1e-4, "cohort_rule": "poisson", "num_rounds": 3}
    return FederatedConfig(**{**given, **changes})


def test_a_guarantee_names_its_unit_and_what_it_rests_on():
    record = run_guarantee(settings(dp_epsilon=2.0), num_rounds=3, num_clients=50, cohort_size=5).as_record()
    assert (record["unit"], record["sampling_rate"], record["expected_cohort"]) == ("client", 0.1, 5)
    assert 1.95 < record["epsilon"] <= 2.0
    assert any("Poisson" in each for each in record["assumptions"])


def test_without_noise_there_is_no_epsilon():
    guarantee = run_guarantee(settings(dp_noise_multiplier=0.0), num_rounds=3, num_clients=50, cohort_size=5)
    assert guarantee.epsilon(3) is None
    assert run_guarantee(FederatedConfig(output_dir="run"), num_rounds=3, num_clients=50, cohort_size=5) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "either dp_noise_multiplier or dp_epsilon"),
        ({"dp_epsilon": 1.0, "dp_noise_multiplier": 1.0}, "either dp_noise_multiplier or dp_epsilon"),
        ({"dp_epsilon": 0.0}, "dp_epsilon is 0.0"),
        ({"dp_noise_multiplier": -1.0}, "must not be negative"),
        ({"dp_epsilon": 1.0, "dp_delta": None}, "dp_delta is None"),
        ({"dp_epsilon": 1.0, "dp_clip": 0.0}, "dp_clip is 0.0"),
        ({"dp_epsilon": 1.0, "dp_clip": None}, "given without dp_clip"),
        ({"dp_epsilon": 1.0, "cohort_rule": "uniform"}, "use cohort_rule poisson, or all"),
        ({"dp_epsilon": 1.0, "min_clients": 2}, "min_clients is 2"),
        ({"dp_epsilon": 1.0, "eval_every": 1, "load_best": True}, "load_best choose by scores"),
    ],
)
def test_settings_that_give_no_guarantee_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        settings(**changes)


def test_a_delta_that_allows_publishing_a_client_is_refused():
    with pytest.raises(ConfigError, match="1/50 allows publishing"):
        run_guarantee(settings(dp_epsilon=1.0, dp_delta=0.02), num_rounds=3, num_clients=50, cohort_size=5)


def test_noise_so_small_that_it_means_nothing_is_refused():
    with pytest.raises(ConfigError, match="the guarantee means nothing"):
        epsilon_spent(0.01, 0.1, 3, 1e-5)
