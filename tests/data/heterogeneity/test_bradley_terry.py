import numpy as np
import pytest
from scipy.special import expit, log_expit
from scipy.stats import kendalltau
from sklearn.linear_model import LogisticRegression

from fedllm_data.heterogeneity.bradley_terry import client_strengths, kendall_tau, win_rate_distance

WEAK = 1e4
"""A prior that moves no strength by 1e-8."""


def bradley_terry(wins, prior_std=WEAK):
    """The strengths of one client, under a prior around 0."""
    first, second = np.triu_indices(len(wins), 1)
    won, lost = wins[first, second][None], wins[second, first][None]
    return client_strengths(won, won + lost, (first, second), np.zeros(len(wins)), prior_std=prior_std)[0]


def design(wins):
    rows, outcome, weight = [], [], []
    for winner, loser in np.argwhere(wins > 0):
        row = np.zeros(len(wins))
        row[[winner, loser]] = 1, -1
        rows += [row, -row]
        outcome += [1, 0]
        weight += [wins[winner, loser] / 2] * 2
    return np.array(rows), outcome, weight


def test_two_models_have_the_log_of_their_odds_between_them():
    strengths = bradley_terry(np.array([[0, 6], [2, 0]]))
    assert strengths[0] - strengths[1] == pytest.approx(np.log(3), abs=1e-7)  # 6 to 2: odds of 3


@pytest.mark.parametrize("seed", range(3))
def test_strengths_are_those_of_a_logistic_regression(seed):
    wins = np.random.default_rng(seed).integers(1, 30, (6, 6))
    np.fill_diagonal(wins, 0)
    rows, outcome, weight = design(wins)
    fitted = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=10_000)
    wanted = fitted.fit(rows[:, 1:], outcome, sample_weight=weight).coef_[0]  # the first model's strength is 0
    ours = bradley_terry(wins)
    np.testing.assert_allclose(ours[1:] - ours[0], wanted, atol=1e-6)


def test_a_prior_is_the_ridge_of_a_logistic_regression():
    wins = np.array([[0, 5, 2], [1, 0, 0], [4, 0, 0]])
    rows, outcome, weight = design(wins)
    ridge = LogisticRegression(C=4.0, fit_intercept=False, tol=1e-12, max_iter=10_000)  # variance 2^2
    wanted = ridge.fit(rows, outcome, sample_weight=weight).coef_[0]
    np.testing.assert_allclose(bradley_terry(wins, prior_std=2.0), wanted, atol=1e-6)


def test_client_strengths_are_the_mode_of_the_posterior():
    rng = np.random.default_rng(0)
    first, second = np.triu_indices(5, 1)
    trials = rng.integers(0, 6, (8, 10))
    wins, centre = rng.binomial(trials, 0.5), rng.normal(0, 1, 5)
    strengths = client_strengths(wins, trials, (first, second), centre, prior_std=0.8)

    def posterior(row, client):
        margin = row[first] - row[second]
        likelihood = wins[client] @ log_expit(margin) + (trials - wins)[client] @ log_expit(-margin)
        return likelihood - ((row - centre) ** 2).sum() / (2 * 0.8**2)

    for client in range(8):
        margin = strengths[client, first] - strengths[client, second]
        surprise = wins[client] - trials[client] * expit(margin)
        gradient = np.zeros(5)
        np.add.at(gradient, first, surprise)
        np.add.at(gradient, second, -surprise)
        np.testing.assert_allclose(gradient, (strengths[client] - centre) / 0.8**2, atol=1e-9)
        nearby = strengths[client] + rng.normal(0, 0.1, (20, 5))
        assert posterior(strengths[client], client) > max(posterior(row, client) for row in nearby)


def test_a_client_that_judged_nothing_has_the_strengths_of_the_pool_to_the_bit():
    first, second = np.array([0, 0]), np.array([1, 2])
    wins, trials = np.array([[0, 0], [5, 5]]), np.array([[0, 0], [5, 5]])
    centre = np.array([0.3, -0.1, -0.2])
    strengths = client_strengths(wins, trials, (first, second), centre, prior_std=1.0)
    assert strengths[0].tolist() == centre.tolist()
    assert strengths[1, 0] > centre[0]
    assert np.isfinite(strengths).all()  # a model that never lost: the prior holds it


def test_extreme_counts_converge():
    wins = np.array([[0, 100_000, 0], [0, 0, 3], [1, 0, 0]])
    strengths = bradley_terry(wins, prior_std=10.0)
    assert np.isfinite(strengths).all()
    assert strengths[0] > strengths[1] > strengths[2]


def test_a_model_that_no_chain_connects_to_the_others_keeps_the_centre():
    assert bradley_terry(np.array([[0, 3, 0], [2, 0, 0], [0, 0, 0]]), prior_std=3.0)[2] == pytest.approx(0, abs=1e-9)


def test_no_model_and_one_model_have_no_ranking():
    assert bradley_terry(np.zeros((0, 0), np.int64)).tolist() == []
    assert bradley_terry(np.zeros((1, 1), np.int64)).tolist() == [0]
    assert np.isnan(kendall_tau(np.zeros((2, 1)), np.zeros(1))).all()


@pytest.mark.parametrize("seed", range(3))
def test_tau_is_scipys_with_ties_too(seed):
    rng = np.random.default_rng(seed)
    rankings, reference = rng.integers(0, 5, (6, 9)).astype(float), rng.integers(0, 6, 9).astype(float)
    wanted = [kendalltau(row, reference).statistic for row in rankings]
    np.testing.assert_allclose(kendall_tau(rankings, reference), wanted, atol=1e-9)


def test_win_rates_are_compared_with_two_votes_of_the_pool_added():
    # Pool: 3 of 4. Client 1: 2 of 2, (2 + 1.5) / 4 = 0.875, distance 0.125; client 2: 1 of 2, (1 + 1.5) / 4 = 0.625.
    assert win_rate_distance(np.array([[2], [1]]), np.array([[2], [2]])) == pytest.approx([0.125, 0.125])
    assert np.isnan(win_rate_distance(np.array([[1], [0]]), np.array([[1], [0]]))[1])


@pytest.mark.parametrize("prior_std", [0.3, 1.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_proven_order_is_that_of_the_mode_wherever_one_starts(seed, prior_std):
    rng = np.random.default_rng(seed)
    first, second = np.triu_indices(6, 1)
    trials = rng.integers(0, 4, (200, 15)) * (rng.random((200, 15)) < 0.4)
    wins, centre = rng.binomial(trials, rng.random((200, 1))), rng.normal(0, 1, 6)
    modes = client_strengths(wins, trials, (first, second), centre, prior_std=prior_std)
    for start in (None, modes + rng.normal(0, 0.2, modes.shape), modes + rng.normal(0, 5, modes.shape)):
        given = {"prior_std": prior_std, "start_NM": start}
        ordered = client_strengths(wins, trials, (first, second), centre, order_only=True, **given)
        assert np.argsort(ordered, axis=1).tolist() == np.argsort(modes, axis=1).tolist()
        exact = client_strengths(wins, trials, (first, second), centre, **given)
        np.testing.assert_allclose(exact, modes, atol=1e-9)


def test_every_client_may_have_a_centre_of_its_own():
    rng = np.random.default_rng(0)
    first, second = np.triu_indices(4, 1)
    trials = rng.integers(0, 9, (5, 6))
    wins, centre = rng.binomial(trials, 0.4), rng.normal(0, 1, (5, 4))
    together = client_strengths(wins, trials, (first, second), centre, prior_std=1.0)
    for row in range(5):
        part = slice(row, row + 1)
        alone = client_strengths(wins[part], trials[part], (first, second), centre[row], prior_std=1.0)
        np.testing.assert_allclose(together[part], alone, atol=1e-10)
