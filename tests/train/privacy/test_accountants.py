"""Three accountants side by side: the golden values, dp-accounting called directly, which of them is claimed."""

import json
import math

import dp_accounting
import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld.privacy_loss_distribution import from_truncated_subsampled_gaussian_mechanism
from dp_accounting.rdp import RdpAccountant
from scipy.stats import norm

from fedllm_data.errors import ConfigError
from fedllm_train.config import FederatedConfig
from fedllm_train.privacy.accountants import (
    gaussian_epsilons,
    poisson_epsilon,
    poisson_epsilons,
    without_replacement_epsilons,
    zcdp_epsilon,
)
from fedllm_train.privacy.accounting import run_guarantee

RELATION = dp_accounting.NeighboringRelation


@pytest.mark.parametrize(
    ("q", "z", "num_rounds", "delta", "pld", "rdp"),
    [
        (0.1, 1.0, 100, 1e-5, 7.047, 7.904),
        (0.01, 1.0, 1000, 1e-6, 2.125, 2.437),
        (0.1, 0.6, 60, 1e-5, 16.247, 18.556),
    ],
)
def test_the_golden_values_of_poisson_sampling(q, z, num_rounds, delta, pld, rdp):
    found = poisson_epsilons(z, q, num_rounds, delta)
    assert found["pld"] == pytest.approx(pld, abs=6e-4)
    assert found["rdp"] == pytest.approx(rdp, abs=6e-4)
    assert found["pld"] < found["rdp"] < found["zcdp"]  # zCDP gains nothing from sampling
    event = dp_event.SelfComposedDpEvent(dp_event.PoissonSampledDpEvent(q, dp_event.GaussianDpEvent(z)), num_rounds)
    assert found["rdp"] == RdpAccountant(neighboring_relation=RELATION.ADD_OR_REMOVE_ONE).compose(event).get_epsilon(
        delta
    )


def test_the_golden_value_without_replacement_is_of_noise_over_what_replacing_can_change():
    found = without_replacement_epsilons(1.0, 100, 10, 100, 1e-5)
    assert found["rdp"] == pytest.approx(14.05, abs=5e-3)
    assert found["pld"] is None
    assert found["zcdp"] > found["rdp"]
    assert poisson_epsilons(1.0, 0.1, 100, 1e-5)["rdp"] == pytest.approx(7.90, abs=5e-3)


@pytest.mark.parametrize(("rho", "epsilon"), [(0.81, 8.92), (0.5, 6.84)])
def test_the_golden_values_of_zcdp(rho, epsilon):
    assert zcdp_epsilon(rho, 1e-10) == pytest.approx(epsilon, abs=5e-3)
    theirs = RdpAccountant().compose(dp_event.ZCDpEvent(rho)).get_epsilon(1e-10)
    assert zcdp_epsilon(rho, 1e-10) == theirs
    # A Gaussian of noise z is 1 / (2 z^2)-zCDP: the identity of two formulations.
    assert gaussian_epsilons((2 * rho) ** -0.5, 1e-10)["rdp"] == pytest.approx(theirs, rel=1e-9)


def test_rounds_without_sampling_are_one_gaussian():
    rounds, one = poisson_epsilons(10.0, 1.0, 100, 1e-5), gaussian_epsilons(1.0, 1e-5)
    for name in ("pld", "rdp", "zcdp"):
        assert rounds[name] == pytest.approx(one[name], rel=2e-3)
    assert rounds["pld"] == pytest.approx(4.38, abs=5e-3)  # the golden value: T 100, z 10


def test_a_cap_on_poisson_cohorts_is_not_free():
    """The golden value 3.60 against .954: N 1,000, q .01, T 100, delta 1e-6, cohorts cut to 20 at random.

    No setting cuts a Poisson cohort, for this reason.
    """
    capped = from_truncated_subsampled_gaussian_mechanism(
        dataset_size=1000,
        sampling_probability=0.01,
        truncated_batch_size=20,
        noise_multiplier=1.0,
        value_discretization_interval=1e-3,
    )
    assert capped.self_compose(100).get_epsilon_for_delta(1e-6) == pytest.approx(3.60, abs=5e-3)
    assert poisson_epsilon(1.0, 0.01, 100, 1e-6) == pytest.approx(0.954, abs=1e-3)


@pytest.mark.parametrize("z", [0.02, 0.3, 1.0, 8.0])
def test_one_gaussian_has_the_epsilon_of_the_closed_form(z):
    # delta = Phi(mu/2 - e/mu) - exp(e) Phi(-mu/2 - e/mu) with mu = 1 / z (Balle and Wang 2018, theorem 8).
    found, mu = gaussian_epsilons(z, 1e-5), 1 / z
    epsilon = found["pld"]
    second = epsilon + norm.logcdf(-mu / 2 - epsilon / mu)
    assert norm.cdf(mu / 2 - epsilon / mu) - math.exp(second) == pytest.approx(1e-5, rel=1e-4)
    assert epsilon < found["rdp"] == pytest.approx(found["zcdp"])


# -- the record -----------------------------------------------------------------------------------------------------


def guarantee_of(*, num_clients=100, cohort_size=10, num_rounds=100, is_sampled=True, **changes):
    given = {"output_dir": "run", "dp_clip": 0.5, "dp_delta": 1e-5, "dp_noise_multiplier": 1.0, **changes}
    settings = FederatedConfig(**given)
    return run_guarantee(
        settings,
        num_rounds=num_rounds,
        num_clients=num_clients,
        cohort_size=cohort_size,
        is_sampled=is_sampled,
    )


def test_the_record_has_all_three_and_says_which_is_claimed():
    record = json.loads(json.dumps(guarantee_of(cohort_rule="poisson").as_record()))
    assert record["claim"] == "pld"
    assert record["epsilon"] == record["by_accountant"]["pld"] == pytest.approx(7.047, abs=6e-4)
    assert record["by_accountant"]["rdp"] == pytest.approx(7.904, abs=6e-4)
    assert record["by_accountant"]["zcdp"] == pytest.approx(96.1, abs=0.1)


def test_without_replacement_half_of_the_noise_counts_and_renyi_is_claimed():
    """Replacing a client moves the clipped sum by two clips: z 2 is what the golden value's z 1 is."""
    made = guarantee_of(dp_sampling="without_replacement", dp_noise_multiplier=2.0)
    record = json.loads(json.dumps(made.as_record()))
    assert record["epsilon"] == pytest.approx(14.05, abs=5e-3)
    assert (record["claim"], record["by_accountant"]["pld"]) == ("rdp", None)
    assert record["neighbours"] == "one client replaced by another"
    assert (record["sampling"], record["num_clients"], record["expected_cohort"]) == ("without_replacement", 100, 10)
    assert "for one client replaced by another" in made.spent_in_words(100)
    assert not any("Poisson" in each for each in record["assumptions"])
    assert any("twice the clip" in each for each in record["assumptions"])


@pytest.mark.parametrize(
    "changes",
    [
        {"dp_sampling": "without_replacement"},
        {"dp_mechanism": "tree", "dp_min_separation": 10},
        {"cohort_rule": "poisson", "dp_clip_quantile": 0.5},
        {"cohort_rule": "all", "is_sampled": False},
    ],
)
def test_noise_is_found_for_every_mechanism(changes):
    made = guarantee_of(dp_noise_multiplier=None, dp_epsilon=8.0, **changes)
    assert made.epsilon(100) <= 8.0
    less = guarantee_of(dp_noise_multiplier=made.noise_multiplier / 1.003, **changes)
    assert less.epsilon(100) > 8.0


@pytest.mark.parametrize("changes", [{"dp_sampling": "without_replacement"}, {"dp_mechanism": "tree"}])
def test_epsilon_grows_with_rounds(changes):
    made = guarantee_of(num_rounds=20, **changes)
    spent = [made.epsilon(num_rounds) for num_rounds in (0, 1, 5, 20)]
    assert spent[0] == 0
    assert spent == sorted(spent)
    assert spent[-1] > spent[1]


def test_the_tree_is_one_gaussian_of_its_sensitivity():
    made = guarantee_of(
        dp_mechanism="tree", dp_min_separation=1000, dp_noise_multiplier=7.0, dp_delta=1e-10, num_rounds=1000
    )
    record = json.loads(json.dumps(made.as_record()))
    assert record["by_accountant"]["rdp"] == pytest.approx(2.913, abs=5e-4)  # the golden value
    assert record["epsilon"] == record["by_accountant"]["pld"] < 2.913
    theirs = PLDAccountant(RELATION.REPLACE_SPECIAL).compose(dp_event.GaussianDpEvent(7 / 10**0.5)).get_epsilon(1e-10)
    assert record["epsilon"] == pytest.approx(theirs, rel=1e-2)
    related = record["related_noise"]
    assert (related["min_separation"], related["max_participations"]) == (1000, 1)
    assert related["sensitivity"] ** 2 == pytest.approx(10)
    assert any("one update in 1000 rounds in a row and 1 in the run" in each for each in record["assumptions"])
    assert record["sampling_rate"] == 1.0


def test_noise_that_means_nothing_is_refused_for_every_mechanism():
    for changes in ({"dp_sampling": "without_replacement"}, {"dp_mechanism": "tree"}):
        with pytest.raises(ConfigError, match="the guarantee means nothing"):
            guarantee_of(dp_noise_multiplier=0.05, **changes).epsilon(10)
