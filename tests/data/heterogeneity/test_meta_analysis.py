import numpy as np
import pytest
from scipy.stats import chi2_contingency

from fedllm_data.heterogeneity.length import intraclass_correlation
from fedllm_data.heterogeneity.meta_analysis import (
    beta_binomial_shares,
    dersimonian_laird,
    stratified_dispersion,
)


def test_dersimonian_laird_of_three_studies_by_hand():
    # Effects 1, 2, 6 with variances 1, 1/2, 1: weights 1, 2, 1, total 4, mean (1 + 4 + 6) / 4 = 2.75.
    # Q = 1.75^2 + 2 * 0.75^2 + 3.25^2 = 3.0625 + 1.125 + 10.5625 = 14.75 with 2 degrees of freedom.
    # tau^2 = (14.75 - 2) / (4 - (1 + 4 + 1) / 4) = 12.75 / 2.5 = 5.1; I^2 = 12.75 / 14.75.
    found = dersimonian_laird(np.array([1.0, 2.0, 6.0]), np.array([1.0, 0.5, 1.0]))
    assert (found.q, found.degrees) == (pytest.approx(14.75), 2)
    assert found.tau_squared == pytest.approx(5.1)
    assert found.i_squared == pytest.approx(12.75 / 14.75)


def test_equal_effects_lie_below_what_chance_gives():
    # Q = 0 with 1 degree of freedom: (0 - 1) / (2 - 2 / 2) = -1, not cut off at 0.
    found = dersimonian_laird(np.array([3.0, 3.0]), np.array([1.0, 1.0]))
    assert (found.q, found.tau_squared, found.i_squared) == (0, pytest.approx(-1), 0)


def test_a_client_that_knows_nothing_is_left_out_and_one_alone_says_nothing():
    with_it = dersimonian_laird(np.array([1.0, 2.0, 9.0]), np.array([1.0, 1.0, np.inf]))
    assert with_it == dersimonian_laird(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    assert np.isnan(dersimonian_laird(np.array([1.0]), np.array([1.0])).tau_squared)


def test_one_stratum_gives_the_chi_squared_test_of_independence():
    successes, trials = np.array([3, 8, 1, 20]), np.array([10, 12, 9, 33])
    found = stratified_dispersion(successes[:, None], trials[:, None])
    wanted = chi2_contingency(np.stack([successes, trials - successes], axis=1), correction=False).statistic
    assert found.q == pytest.approx(wanted, abs=1e-9)
    # DerSimonian and Laird of Peto's one-step effects; shuffling makes E[Q] = (K - 1) N / (N - 1), not K - 1.
    rate = successes.sum() / trials.sum()
    information = trials * rate * (1 - rate)
    peto = dersimonian_laird((successes - trials * rate) / information, 1 / information)
    num_rows = trials.sum()
    assert found.q == pytest.approx(peto.q, abs=1e-9)
    assert found.degrees == pytest.approx(3 * num_rows / (num_rows - 1), abs=1e-9)
    scale = (peto.q - 3) / peto.tau_squared * num_rows / (num_rows - 1)
    assert found.tau_squared == pytest.approx((found.q - found.degrees) / scale, abs=1e-9)


def test_degrees_are_the_mean_of_q_when_outcomes_are_shuffled_in_sparse_strata():
    rng = np.random.default_rng(3)
    stratum, client = rng.integers(40, size=150), rng.choice(4, 150, p=[0.55, 0.25, 0.15, 0.05])
    outcome = (rng.random(150) < 0.6).astype(np.int64)

    def dispersion():
        successes, trials = np.zeros((4, 40), np.int64), np.zeros((4, 40), np.int64)
        np.add.at(trials, (client, stratum), 1)
        np.add.at(successes, (client, stratum), outcome)
        return stratified_dispersion(successes, trials)

    found = []
    order = np.argsort(stratum, kind="stable")
    for _ in range(1000):
        shuffled = np.argsort(stratum + rng.random(150))
        outcome[order] = outcome[shuffled]
        found.append(dispersion())
    assert len({round(float(draw.degrees), 9) for draw in found}) == 1
    assert np.mean([draw.q for draw in found]) == pytest.approx(found[0].degrees, rel=0.06)


@pytest.mark.parametrize(("true", "low", "high"), [(0.0, -0.01, 0.01), (0.0625, 0.05, 0.07), (0.36, 0.24, 0.36)])
def test_tau_squared_is_the_variance_of_the_log_odds_and_understates_a_large_one(true, low, high):
    rng = np.random.default_rng(4)
    effect_K, base_S = rng.normal(0, true**0.5, 10_000), np.array([-0.5, 0.0, 1.0])
    trials = rng.integers(0, 12, (10_000, 3))
    successes = rng.binomial(trials, 1 / (1 + np.exp(-(base_S + effect_K[:, None]))))
    assert low < stratified_dispersion(successes, trials).tau_squared < high


@pytest.mark.parametrize(
    ("successes", "trials"),
    [
        ([[4], [2]], [[4], [2]]),  # the pool always chose alike
        ([[1, 0], [0, 1]], [[2, 0], [0, 2]]),  # every client met choices of its own
        ([[2]], [[4]]),  # one client
        ([[0], [0]], [[0], [0]]),  # nothing was chosen
    ],
)
def test_choices_that_tell_nothing_about_clients_give_no_number(successes, trials):
    assert np.isnan(stratified_dispersion(np.array(successes), np.array(trials)).tau_squared)


def test_no_strata_give_no_number():
    empty = np.zeros((3, 0), np.int64)
    assert np.isnan(stratified_dispersion(empty, empty).q)


def test_shares_are_shrunk_with_the_intraclass_correlation():
    successes, trials = np.array([9, 1, 4, 0]), np.array([10, 10, 6, 2])
    shares, rho = beta_binomial_shares(successes, trials)
    counts = np.stack([trials - successes, successes], axis=1)
    assert rho == pytest.approx(intraclass_correlation(counts, np.array([0.0, 1.0]))[0], abs=1e-9)
    weight = (1 - rho) / rho
    np.testing.assert_allclose(shares, (successes + weight * 0.5) / (trials + weight), rtol=1e-12)  # pool: 14 of 28


def test_clients_alike_get_the_share_of_the_pool_and_one_without_pairs_too():
    shares, rho = beta_binomial_shares(np.array([5, 5, 0]), np.array([10, 10, 0]))
    assert rho < 0
    assert shares.tolist() == [0.5, 0.5, 0.5]
    shares, rho = beta_binomial_shares(np.array([3]), np.array([4]))
    assert shares.tolist() == [0.75]
    assert np.isnan(rho)
    assert np.isnan(beta_binomial_shares(np.array([0]), np.array([0]))[0]).all()
