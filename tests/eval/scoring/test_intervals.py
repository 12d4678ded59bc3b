"""Intervals and paired tests: by hand, against SciPy, and their coverage on simulated clients."""

import numpy as np
import pytest
from scipy import stats

from fedllm_data.errors import MetricError
from fedllm_eval.scoring import intervals
from fedllm_eval.scoring.intervals import mean_interval, paired_difference, sign_flip_p


def test_a_weighted_mean_is_a_ratio_of_sums():
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=50), rng.integers(1, 30, size=50).astype(float)
    assert mean_interval(x, w).mean == pytest.approx((x * w).sum() / w.sum())


def test_equal_weights_are_no_weights():
    x = np.random.default_rng(3).normal(size=20)
    a, b = mean_interval(x, np.full(20, 4.0)), mean_interval(x)
    assert (a.mean, a.low, a.high) == pytest.approx((b.mean, b.low, b.high))


def test_the_interval_of_equal_clients_is_students():
    x = np.random.default_rng(10).gamma(2.0, size=23)
    interval = mean_interval(x)
    expected = stats.ttest_1samp(x, 0.0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_students_interval_by_hand():
    # Mean 2, s = 1, K = 3: 2 -+ t(.975, 2) / sqrt(3) = 2 -+ 4.302653 / 1.732051.
    interval = mean_interval([1.0, 2.0, 3.0])
    assert (interval.low, interval.high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)


def test_a_weighted_interval_is_the_jackknifes_with_degrees_between_kish_and_satterthwaite():
    rng = np.random.default_rng(11)
    x, w = rng.normal(size=12), rng.integers(1, 20, size=12).astype(float)
    interval = mean_interval(x, w)
    left_out = np.array([np.average(np.delete(x, k), weights=np.delete(w, k)) for k in range(12)])
    std_error = np.sqrt(11 / 12 * ((left_out - interval.mean) ** 2).sum())
    p = w / w.sum()
    centring = np.eye(12) - np.outer(np.ones(12), p)
    form = centring.T @ np.diag(p**2 / (1 - p)) @ centring
    satterthwaite = np.trace(form) ** 2 / np.trace(form @ form)
    kish = 1 / (p @ p) - 1
    num_degrees = kish + (satterthwaite - kish) / 3
    half = std_error * stats.t.ppf(0.975, num_degrees)
    assert (interval.low, interval.high) == pytest.approx((interval.mean - half, interval.mean + half), rel=1e-9)


def test_weights_scale_freely_and_the_order_of_clients_does_not_matter():
    rng = np.random.default_rng(12)
    x, w = rng.normal(size=30), rng.integers(1, 50, size=30).astype(float)
    expected = mean_interval(x, w)
    order = rng.permutation(30)
    for other in (mean_interval(x, 7 * w), mean_interval(x[order], w[order])):
        assert (other.mean, other.low, other.high) == pytest.approx((expected.mean, expected.low, expected.high))


def test_equal_scores_have_an_interval_of_width_zero():
    interval = mean_interval([2.0, 2.0, 2.0])
    assert (interval.mean, interval.low, interval.high) == (2.0, 2.0, 2.0)


def test_a_single_client_has_no_interval():
    interval = mean_interval([2.0])
    assert interval.mean == 2.0
    assert np.isnan([interval.low, interval.high]).all()


def test_paired_difference_by_hand():
    paired = paired_difference([1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 2.0, 7.0])
    # Differences 1, 0, -1, 3: mean .75; two clients higher, one lower.
    assert paired.difference == 0.75
    assert (paired.higher_fraction, paired.lower_fraction) == (0.5, 0.25)
    # The sum is 3. Of the sign patterns of 1, 1, 3 (the zero doubles each), 3+1+1, 3+1-1, 3-1+1 and their mirrors
    # reach 3 in size, 3-1-1 and its mirror do not: 6 of 8.
    assert paired.p_value == 0.75


@pytest.mark.parametrize("num_clients", [5, 9, 12])
def test_the_exact_sign_flip_test_equals_scipys_permutation_test(num_clients):
    rng = np.random.default_rng(num_clients)
    a, b = rng.normal(size=num_clients), rng.normal(0.4, size=num_clients)
    expected = stats.permutation_test(
        (b - a,), lambda d, axis=-1: d.mean(axis=axis), permutation_type="samples", n_resamples=np.inf, vectorized=True
    ).pvalue
    assert paired_difference(a, b).p_value == pytest.approx(expected)


def test_random_sign_flips_agree_with_the_exact_test(monkeypatch):
    rng = np.random.default_rng(7)
    a, b = rng.normal(size=13), rng.normal(0.5, size=13)
    exact = paired_difference(a, b).p_value
    monkeypatch.setattr(intervals, "MAX_EXACT_CLIENTS", 0)
    assert paired_difference(a, b).p_value == pytest.approx(exact, abs=0.02)


def test_many_clients_give_nearly_the_p_value_of_the_t_test():
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=200), rng.normal(0.15, size=200)
    assert paired_difference(a, b).p_value == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.02)


def test_no_difference_gives_p_one():
    paired = paired_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (paired.difference, paired.low, paired.high, paired.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_swapping_the_sides_mirrors_the_result():
    rng = np.random.default_rng(9)
    a, b = rng.normal(size=(2, 30))
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.difference == pytest.approx(-back.difference)
    assert there.p_value == back.p_value
    assert there.low == pytest.approx(-back.high)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "at least one client"),
        (lambda: mean_interval([1.0, float("nan")]), "client at position 1"),
        (lambda: mean_interval([1.0, 2.0], [1.0]), "positive weights"),
        (lambda: mean_interval([1.0, 2.0], [1.0, 0.0]), "positive weights"),
        (lambda: mean_interval([1.0, 2.0], confidence=95), "between 0 and 1"),
        (lambda: sign_flip_p([]), "at least one client"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), "2 clients against 1"),
    ],
)
def test_what_makes_no_sense_is_an_error(call, message):
    with pytest.raises(MetricError, match=message):
        call()


def test_an_interval_is_cut_where_no_score_can_be():
    x = [1.0, 1.0, 1.0, 0.5, 0.9]
    free, cut = mean_interval(x), mean_interval(x, bounds=(0.0, 1.0))
    assert free.high > 1.0
    assert (cut.mean, cut.low, cut.high) == (free.mean, free.low, 1.0)
    assert np.isnan(mean_interval([1.0], bounds=(0.0, 1.0)).high)


def test_a_score_beyond_its_bounds_is_no_score():
    with pytest.raises(MetricError, match=r"from 0\.5 to 1\.5, beyond their bounds 0\.0 and 1\.0"):
        mean_interval([0.5, 1.5], bounds=(0.0, 1.0))
