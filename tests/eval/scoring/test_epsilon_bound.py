"""The lower bound on epsilon: by hand, against other ways to calculate it, and never above the truth too often."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.epsilon_bound import audit_epsilon, excluded_epsilon, one_run_p_value
from fedllm_eval.scoring.proportion import clopper_pearson


def right_guesses(num_guesses, chance):
    """Distribution of the number of right guesses, coin by coin: no binomial formula."""
    distribution = np.array([1.0])
    for _ in range(num_guesses):
        distribution = np.convolve(distribution, [1 - chance, chance])
    return distribution


def theorem(num_units, num_guesses, num_correct, epsilon, delta):
    """Theorem 5.2 as it is written, over every i from 1 to m."""
    w = right_guesses(num_guesses, np.exp(epsilon) / (1 + np.exp(epsilon)))
    beta = w[num_correct:].sum()
    alpha = max(w[max(0, num_correct - i) : num_correct].sum() / i for i in range(1, num_units + 1))
    return min(1.0, beta + 2 * num_units * delta * alpha)


@given(
    st.integers(1, 30).flatmap(
        lambda m: st.tuples(st.just(m), st.integers(0, m)).flatmap(
            lambda mr: st.tuples(st.just(mr[0]), st.just(mr[1]), st.integers(0, mr[1]))
        )
    ),
    st.floats(0, 5),
    st.floats(0, 0.05),
)
@settings(deadline=None)
def test_the_p_value_is_the_theorems(counts, epsilon, delta):
    assert one_run_p_value(*counts, epsilon, delta) == pytest.approx(theorem(*counts, epsilon, delta), abs=1e-12)


def test_without_delta_it_is_clopper_pearsons_bound_as_a_logit():
    for correct, guesses in ((100, 100), (80, 100), (37, 40), (600, 1000)):
        interval = stats.binomtest(correct, guesses, alternative="greater").proportion_ci(0.97, method="exact")
        expected = np.log(interval.low / (1 - interval.low))
        assert excluded_epsilon(2000, guesses, correct, error=0.03) == pytest.approx(expected)


def test_the_bound_by_hand():
    # 20 right of 20: q^20 = .05, q = .86089, ln(.86089 / .13911) = 1.8227.
    assert excluded_epsilon(20, 20, 20, error=0.05) == pytest.approx(1.8227, abs=1e-4)
    # Half right proves nothing, and neither do three guesses: 1/8 is above the allowed error.
    assert excluded_epsilon(100, 100, 50, error=0.05) == 0.0
    assert excluded_epsilon(100, 3, 3, error=0.05) == 0.0
    assert excluded_epsilon(100, 0, 0, error=0.05) == 0.0


def test_delta_takes_something_away_and_the_bound_is_where_the_p_value_is_the_error():
    pure, approximate = (excluded_epsilon(1000, 200, 190, delta=delta, error=0.05) for delta in (0.0, 1e-4))
    assert 0 < approximate < pure
    assert one_run_p_value(1000, 200, 190, approximate, 1e-4) == pytest.approx(0.05, rel=1e-6)
    assert excluded_epsilon(1000, 200, 190, delta=0.5, error=0.05) == 0.0


def test_a_perfect_attack_shows_all_that_so_many_units_can_and_more_units_show_more():
    bounds = [audit_epsilon(np.arange(n) + n, np.arange(n)) for n in (10, 100, 1000)]
    for bound, n in zip(bounds, (10, 100, 1000), strict=True):
        assert bound.epsilon == bound.largest_epsilon > 0
        assert (bound.num_guesses, bound.num_correct) == (2 * n, 2 * n)
    assert bounds[0].epsilon < bounds[1].epsilon < bounds[2].epsilon
    # The halves of before, with Clopper-Pearson on either side: ln(.025^(1/50) / (1 - .025^(1/50))) = 2.57.
    assert bounds[1].epsilon > np.log(0.025**0.02 / (1 - 0.025**0.02))


interval = functools.cache(clopper_pearson)


def halves_bound(members, nonmembers, seed):
    """The bound this one replaced: a threshold from one half, Clopper-Pearson on either side of the other half."""
    rng = np.random.default_rng(seed)
    halves = []
    for values in (members, nonmembers):
        shuffled = rng.permutation(np.sort(values))
        halves.append((shuffled[: values.size // 2], shuffled[values.size // 2 :]))

    def proven(inside, outside, threshold):
        low, _ = interval(int((inside > threshold).sum()), inside.size)
        _, high = interval(int((outside > threshold).sum()), outside.size)
        return max(0.0, np.log(max(low, 1e-300) / high), np.log(max(1 - high, 1e-300) / (1 - low)))

    (one, held_one), (other, held_other) = halves
    candidates = np.quantile(np.concatenate([one, other]), np.linspace(0, 0.99, 25))
    best = max(candidates, key=lambda threshold: proven(one, other, threshold))
    return proven(held_one, held_other, best)


@pytest.mark.parametrize("shape", ["shifted", "a tenth stands out", "far apart"])
def test_it_proves_more_than_two_halves_did(shape):
    before, now = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        members, nonmembers = rng.normal(size=200), rng.normal(size=200)
        if shape == "a tenth stands out":
            members[:20] += 10
        else:
            members += 1 if shape == "shifted" else 20
        before.append(halves_bound(members, nonmembers, seed))
        now.append(audit_epsilon(members, nonmembers, seed=seed).epsilon)
    assert np.mean(now) > np.mean(before) + 0.1


def test_the_side_that_stands_out_is_named():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=400)
    few = np.r_[scores[:160], scores[160:200] + 10]
    assert audit_epsilon(few, scores[200:]).direction == "members"
    assert audit_epsilon(scores[200:], np.r_[scores[:160], scores[160:200] - 10]).direction == "non-members"
    assert audit_epsilon(scores[:200] + 20, scores[200:]).direction == "both"
    nothing = audit_epsilon(scores[:200], scores[:200])
    assert (nothing.direction, nothing.epsilon, nothing.num_guesses) == ("neither", 0.0, 0)
    assert nothing.largest_epsilon > 3


def test_many_units_of_randomised_response_give_nearly_its_epsilon():
    num, epsilon = 200_000, 2.0
    true = round(num * np.exp(epsilon) / (1 + np.exp(epsilon)))
    found = excluded_epsilon(num, num, true, error=0.05)
    assert 1.97 < found < epsilon


def test_the_bound_exceeds_the_truth_in_at_most_one_run_of_twenty():
    # Laplace noise of scale 1 / epsilon on a value of 0 or 1 is epsilon-private and audits of it are tight.
    above, bounds = 0, []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        bound = audit_epsilon(1 + rng.laplace(0, 1, 400), rng.laplace(0, 1, 400), seed=seed)
        bounds.append(bound.epsilon)
        above += bound.epsilon > 1.0
    assert above <= 0.05 * 200
    assert np.mean(bounds) > 0.5  # and it is no empty bound


@pytest.mark.parametrize(("num_members", "num_nonmembers"), [(5, 5), (12, 12), (100, 100), (90, 12)])
def test_where_no_member_differs_it_claims_something_in_at_most_one_run_of_twenty(num_members, num_nonmembers):
    above = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        bound = audit_epsilon(rng.normal(size=num_members), rng.normal(size=num_nonmembers), seed=seed)
        above += bound.epsilon > 0
    # 5 % of 200 are 10; three standard errors are 9.
    assert above <= 19


def test_ties_prove_nothing_and_units_that_are_left_out_are_counted():
    assert audit_epsilon(np.zeros(50), np.zeros(50)).epsilon == 0.0
    rng = np.random.default_rng(1)
    members, nonmembers = rng.normal(2, 1, 400), rng.normal(0, 1, 60)
    bound = audit_epsilon(members, nonmembers, unit="client", delta=1e-5)
    assert audit_epsilon(rng.permutation(members), rng.permutation(nonmembers), unit="client", delta=1e-5) == bound
    assert (bound.unit, bound.num_nonmembers, bound.delta) == ("client", 60, 1e-5)
    # Each of 400 stays with chance 60 / 400: 60 on average, standard deviation 7.
    assert 35 <= bound.num_members <= 85


@pytest.mark.parametrize(
    ("num_hits", "num_trials", "low", "high"),
    [
        (0, 10, 0.0, 1 - 0.05 ** (1 / 10)),
        (10, 10, 0.05 ** (1 / 10), 1.0),
        (1, 1, 0.05, 1.0),
    ],
)
def test_clopper_pearson_at_the_ends_by_hand(num_hits, num_trials, low, high):
    # P[no hit] = (1 - p)^n, which is 5 % where the bound is.
    assert clopper_pearson(num_hits, num_trials, confidence=0.9) == pytest.approx((low, high))


@pytest.mark.parametrize(("num_hits", "num_trials"), [(3, 10), (17, 500)])
def test_clopper_pearson_is_where_the_tails_of_the_binomial_are_five_percent(num_hits, num_trials):
    low, high = clopper_pearson(num_hits, num_trials, confidence=0.9)
    assert stats.binom.sf(num_hits - 1, num_trials, low) == pytest.approx(0.05)
    assert stats.binom.cdf(num_hits, num_trials, high) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clopper_pearson(0, 0), "no proportion"),
        (lambda: clopper_pearson(1, 2, confidence=95), "between 0 and 1"),
        (lambda: one_run_p_value(2, 3, 1, 0.0), "each counts the former"),
        (lambda: one_run_p_value(3, 3, 1, -1.0), "epsilon is 0 or more"),
        (lambda: excluded_epsilon(3, 3, 1, error=5), "allowed error of 5"),
        (lambda: audit_epsilon([1.0] * 9, [2.0] * 9, delta=1.0), "delta is 1.0"),
        (lambda: audit_epsilon([1.0] * 3, [1.0] * 9), "4 or more finite scores"),
        (lambda: audit_epsilon([1.0] * 9, [float("nan")] * 9), "4 or more finite scores"),
    ],
)
def test_what_makes_no_sense_is_an_error(call, message):
    with pytest.raises(MetricError, match=message):
        call()


@pytest.mark.parametrize("delta", [1e-300, 1e-18, 1e-15])
@pytest.mark.parametrize("num_correct", [7, 8])
def test_a_delta_that_is_lost_in_rounding_is_none(delta, num_correct):
    found = excluded_epsilon(8, 8, num_correct, delta=delta, error=0.05)
    assert found == pytest.approx(excluded_epsilon(8, 8, num_correct, error=0.05), abs=1e-6)
