"""The one-run bound: the paper's numbers, its coverage on mechanisms of known epsilon, and what it must refuse."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

from fedllm_data.errors import MetricError
from fedllm_eval.audit.one_run import guess_grid, one_run_bound
from fedllm_eval.scoring.epsilon_bound import excluded_epsilon, one_run_p_value
from fedllm_eval.scoring.gaussian_bound import gaussian_epsilon, lowest_separation


def rank_scores(is_right, is_in):
    """Scores that call every canary "in" or "out" as told, so that exactly the right ones are right."""
    return np.where(is_right, is_in, ~is_in).astype(float)


def test_the_papers_printed_number():
    # Appendix D, page 46: m = 1000, r = 100, v = 75, delta = 1e-4, error 0.05: epsilon 0.673.
    assert excluded_epsilon(1000, 100, 75, delta=1e-4, error=0.05) == pytest.approx(0.673, abs=5e-4)


def test_the_p_value_by_hand():
    # Two of two right: q^2. With delta the second term is 2 m delta max_i P[2 > W >= 2 - i] / i.
    q = math.e / (1 + math.e)
    assert one_run_p_value(10, 2, 2, 1.0) == pytest.approx(q * q)
    alpha = max(2 * q * (1 - q), (2 * q * (1 - q) + (1 - q) ** 2) / 2)
    assert one_run_p_value(10, 2, 2, 1.0, 1e-3) == pytest.approx(q * q + 2 * 10 * 1e-3 * alpha)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 2.0, 4.0])
def test_randomised_response_is_covered_and_approached(epsilon):
    """Every coin is told right with the chance of epsilon: the worst mechanism there is."""
    rng = np.random.default_rng(int(10 * epsilon))
    chance = 1 / (1 + math.exp(-epsilon))
    num, runs, found = 2000, 400, []
    for _ in range(runs):
        is_in = rng.random(num) < 0.5
        scores = rank_scores(rng.random(num) < chance, is_in)
        # Whoever tells each coin guesses each: as many "in" as it says, which depends on no coin but through it.
        top = int(scores.sum())
        found.append(one_run_bound(scores, is_in, guesses=[(top, num - top)]).epsilon)
    above = sum(value > epsilon for value in found)
    # At most 5 % of runs; 400 runs at 5 % have more than 31 above with a chance of 1 %.
    assert above <= stats.binom.ppf(0.99, runs, 0.05)
    # The bound lies 1.645 standard errors of a logit below, sqrt(1 / (m q (1 - q))).
    assert np.median(found) > epsilon - 2 / math.sqrt(num * chance * (1 - chance))


def test_with_the_grid_it_still_covers():
    """A Laplace-like score whose tails tell most: choosing among guesses must not cost the confidence."""
    epsilon, num, runs = 1.0, 300, 300
    rng = np.random.default_rng(7)
    found = []
    for _ in range(runs):
        is_in = rng.random(num) < 0.5
        # Laplace noise on a coin of size 1 is epsilon-private for each canary by itself.
        found.append(one_run_bound(is_in + rng.laplace(scale=1 / epsilon, size=num), is_in).epsilon)
    assert sum(value > epsilon for value in found) <= stats.binom.ppf(0.99, runs, 0.05)


def test_delta_is_paid_for():
    """A mechanism that tells all coins with chance delta, else none: (0, delta)-private."""
    delta, num, runs = 0.02, 64, 2000
    rng = np.random.default_rng(3)
    above = above_without = 0
    for _ in range(runs):
        is_in = rng.random(num) < 0.5
        scores = is_in.astype(float) if rng.random() < delta else rng.random(num)
        top = int(is_in.sum()) if scores.max() == 1.0 else num // 2
        guesses = [(top, num - top)]
        above += one_run_bound(scores, is_in, delta=delta, guesses=guesses).epsilon > 0
        above_without += one_run_bound(scores, is_in, guesses=guesses).epsilon > 0
    assert above <= stats.binom.ppf(0.99, runs, 0.05)
    assert above < above_without


@settings(max_examples=30, deadline=None)
@given(some.integers(8, 300), some.data())
def test_more_right_guesses_exclude_more_and_more_delta_less(num_units, data):
    guessed = data.draw(some.integers(1, num_units))
    right = data.draw(some.integers(0, guessed))
    delta = data.draw(some.sampled_from([0.0, 1e-6, 1e-3]))
    bound = excluded_epsilon(num_units, guessed, right, delta=delta, error=0.05)
    assert bound >= 0
    if right < guessed:
        assert excluded_epsilon(num_units, guessed, right + 1, delta=delta, error=0.05) >= bound
    assert excluded_epsilon(num_units, guessed, right, delta=delta + 1e-3, error=0.05) <= bound
    assert excluded_epsilon(num_units, guessed, right, delta=delta, error=0.01) <= bound
    if bound > 0:
        assert one_run_p_value(num_units, guessed, right, bound, delta) == pytest.approx(0.05, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(some.integers(1, 200), some.integers(0, 2**32 - 1))
def test_the_order_of_canaries_does_not_matter_and_the_bound_is_finite(num, seed):
    rng = np.random.default_rng(seed)
    scores, is_in = rng.normal(size=num), rng.random(num) < 0.5
    bound, order = one_run_bound(scores, is_in), rng.permutation(num)
    assert one_run_bound(scores[order], is_in[order]) == bound
    assert 0 <= bound.epsilon <= bound.largest_epsilon < math.inf
    assert bound.num_correct <= bound.num_guessed_in + bound.num_guessed_out <= num


def test_all_right_all_wrong_and_no_guess():
    is_in = np.arange(40) % 2 == 0
    perfect = one_run_bound(is_in.astype(float), is_in)
    assert perfect.epsilon == perfect.largest_epsilon > 0
    assert (perfect.num_in, perfect.num_tried) == (20, len(guess_grid(40)))
    assert one_run_bound(-is_in.astype(float), is_in).epsilon == 0.0
    # Too few canaries for a guess: nothing is proved, and nothing could be.
    few = one_run_bound([1.0, 0.0], [True, False])
    assert (few.epsilon, few.largest_epsilon, few.num_tried) == (0.0, 0.0, 0)


def test_equal_scores_tell_nothing_in_whatever_order_they_are_listed():
    is_in = np.repeat([True, False], 500)
    assert one_run_bound(np.zeros(1000), is_in).epsilon == 0.0
    assert one_run_bound(np.zeros(1000), ~is_in).epsilon == 0.0


@pytest.mark.parametrize(
    ("scores", "coins", "options", "named"),
    [
        ([1.0, 2.0], [True], {}, "one of each a canary"),
        ([], [], {}, "one of each a canary"),
        ([1.0, math.nan], [True, False], {}, "not finite"),
        ([1.0, math.inf], [True, False], {}, "not finite"),
        ([1.0, 2.0], [True, False], {"confidence": 1.0}, "confidence"),
        ([1.0, 2.0], [True, False], {"delta": 1.0}, "delta"),
        ([1.0, 2.0], [True, False], {"delta": math.nan}, "delta"),
        ([1.0, 2.0], [True, False], {"guesses": [(2, 1)]}, "once at most"),
        ([1.0, 2.0], [True, False], {"guesses": [(0, 0)]}, "once at most"),
        ([1.0, 2.0], [True, False], {"guesses": [(-1, 2)]}, "once at most"),
    ],
)
def test_what_cannot_be_audited_is_refused(scores, coins, options, named):
    with pytest.raises(MetricError, match=named):
        one_run_bound(scores, coins, **options)


def test_epsilon_of_a_gaussian_mechanism_is_the_accountants():
    # Reference values of exact Gaussian accounting: 100 rounds without amplification at delta 1e-5.
    assert gaussian_epsilon(math.sqrt(100) / 10, 1e-5) == pytest.approx(4.38, abs=5e-3)
    assert gaussian_epsilon(math.sqrt(100) / 1, 1e-5) == pytest.approx(91.8, abs=0.1)
    with pytest.raises(MetricError, match="delta in"):
        gaussian_epsilon(1.0, 0.0)


@pytest.mark.parametrize("mu", [0.0, 0.5, 2.0])
def test_the_separation_of_normal_scores_is_covered(mu):
    rng = np.random.default_rng(11)
    limits = [lowest_separation(rng.normal(mu, 1, 200), rng.normal(0, 1, 180)) for _ in range(400)]
    assert sum(limit > mu for limit in limits) <= stats.binom.ppf(0.99, 400, 0.05)
    assert np.median(limits) >= mu - 0.25


def test_separations_without_a_spread_are_refused():
    with pytest.raises(MetricError, match="all scores of a side are alike"):
        lowest_separation([1.0, 1.0], [0.0, 0.0])
    with pytest.raises(MetricError, match="two finite ones"):
        lowest_separation([1.0], [0.0, 0.0])
