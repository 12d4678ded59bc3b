"""Methods compared over clients, rows and seeds: by hand, against SciPy, and how often the interval holds."""

import numpy as np
import pytest
from scipy import stats

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.comparisons import holm, method_difference, two_level_std_error
from fedllm_eval.scoring.intervals import mean_interval, paired_difference


def test_one_seed_each_is_the_paired_difference():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 25))
    found, paired = method_difference([a], [b]), paired_difference(a, b)
    assert (found.difference, found.low, found.high) == pytest.approx((paired.difference, paired.low, paired.high))
    assert (found.p_value, found.higher_fraction) == (paired.p_value, paired.higher_fraction)
    assert not found.covers_seeds
    assert found.bounds(0.95) == pytest.approx((found.low, found.high))


def test_seeds_and_clients_by_hand():
    # Client differences 1, 3: mean 2, variance 2, over clients 2 / 2 = 1. Seed means of b - a: 1 and 3
    # (paired), variance 2, over seeds 1. Each has one degree of freedom: t(.975, 1) = 12.7062, and
    # sqrt(12.7062^2 + 12.7062^2) = 17.9693.
    found = method_difference([[0.0, 0.0], [0.0, 0.0]], [[0.0, 2.0], [2.0, 4.0]], paired_seeds=True)
    assert found.difference == 2.0
    assert [source.num_degrees for source in found.sources] == [1, 1]
    assert [source.std_error for source in found.sources] == pytest.approx([1.0, 1.0])
    assert found.std_error == pytest.approx(np.sqrt(2))
    assert found.high - found.difference == pytest.approx(17.9693, abs=1e-4)
    # With one degree of freedom each, the half-width is that of one source of variance 2: t = 2 / sqrt(2).
    assert found.p_value == pytest.approx(2 * stats.t.sf(np.sqrt(2), 1), rel=1e-6)
    assert found.covers_seeds


def test_seeds_of_one_method_alone_are_students_test():
    rng = np.random.default_rng(1)
    b = rng.normal(1, 2, (6, 1))
    # Two clients with equal differences from a base model: nothing but the method's seeds is uncertain.
    found = method_difference(np.zeros((1, 2)), np.repeat(b, 2, axis=1), a_fixed=True)
    expected = stats.ttest_1samp(b[:, 0], 0.0)
    assert found.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_unpaired_seeds_promise_no_more_than_welchs_test():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, (4, 1)), rng.normal(1, 2, (6, 1))
    found = method_difference(np.repeat(a, 2, axis=1), np.repeat(b, 2, axis=1))
    expected = stats.ttest_ind(b[:, 0], a[:, 0], equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.std_error == pytest.approx((b.mean() - a.mean()) / expected.statistic)
    assert found.low < interval.low < interval.high < found.high
    assert found.p_value > expected.pvalue


def test_the_p_value_is_where_the_interval_ends_at_zero():
    rng = np.random.default_rng(7)
    for shift in (0.01, 0.3, 3.0):
        found = method_difference(rng.normal(0, 0.1, (2, 9)), shift + rng.normal(0, 0.1, (3, 9)))
        low, high = found.bounds(1 - found.p_value)
        assert min(abs(low), abs(high)) == pytest.approx(0.0, abs=1e-8)


CELLS = [
    # Seeds of both, paired, baseline fixed, sd between seeds of either.
    ((2, 2), True, False, (0.05, 0.05)),
    ((2, 2), False, False, (0.05, 0.05)),
    ((2, 2), False, False, (0.0, 0.05)),
    ((2, 5), False, False, (0.05, 0.01)),
    ((3, 3), True, False, (0.05, 0.05)),
    ((1, 2), False, True, (0.0, 0.05)),
]


@pytest.mark.parametrize(("num_seeds", "paired", "fixed", "spreads"), CELLS)
def test_what_says_it_covers_other_seeds_does(num_seeds, paired, fixed, spreads):
    covered = 0
    for draw in range(600):
        rng = np.random.default_rng(draw)
        clients = rng.normal(0, 1, 50)
        a = clients + rng.normal(0, 1, (num_seeds[0], 1)) * spreads[0]
        b = clients + rng.normal(0, 0.1, 50) + rng.normal(0, 1, (num_seeds[1], 1)) * spreads[1]
        found = method_difference(a, b, paired_seeds=paired, a_fixed=fixed)
        assert found.covers_seeds
        covered += found.low <= 0 <= found.high
    # 95 % less two standard errors at 600 draws; Satterthwaite's degrees of freedom cover 86 to 91 %.
    assert covered / 600 >= 0.932


@pytest.mark.parametrize("num_seeds", [(1, 1), (1, 2), (3, 1)])
def test_one_seed_of_a_trained_method_makes_no_claim_of_other_seeds(num_seeds):
    rng = np.random.default_rng(8)
    found = method_difference(rng.normal(size=(num_seeds[0], 9)), rng.normal(size=(num_seeds[1], 9)))
    assert not found.covers_seeds
    # One estimate that serves for both methods is one source: 1 against 2 by hand is s^2 (1 / 1 + 1 / 2).
    assert len(found.sources) == (1 if num_seeds == (1, 1) else 2)


def test_rounding_decides_for_neither_method():
    a = np.random.default_rng(9).gamma(4, 1, (3, 20))
    found = method_difference(a, a * (1 + 2e-7))
    assert (found.difference, found.higher_fraction, found.lower_fraction) == (0.0, 0.0, 0.0)
    assert found.p_value == 1.0


def test_a_base_model_does_not_vary_between_seeds():
    rng = np.random.default_rng(2)
    base, method = rng.normal(size=(1, 30)), rng.normal(size=(3, 30)) + rng.normal(0, 1, (3, 1))
    fixed, trained = (method_difference(base, method, a_fixed=a_fixed) for a_fixed in (True, False))
    assert fixed.covers_seeds
    assert fixed.std_error < trained.std_error


def test_the_interval_holds_over_clients_and_seeds():
    covered = []
    for draw in range(600):
        rng = np.random.default_rng(draw)
        clients = rng.normal(0.3, 1, 40)
        a = rng.normal(0, 0.3, (4, 1)) + rng.normal(0, 0.3, (4, 40))
        b = clients + rng.normal(0, 0.3, (4, 1)) + rng.normal(0, 0.3, (4, 40))
        found = method_difference(a, b)
        covered.append(found.low <= 0.3 <= found.high)
    # Three standard errors at 600 draws are .027; the sum of variances errs on the wide side.
    assert 0.923 <= np.mean(covered) <= 0.985


def test_the_minimum_detectable_difference_is_shown_four_times_in_five():
    rng = np.random.default_rng(3)
    shown, size = [], method_difference([np.zeros(50)], [rng.normal(size=50)])
    true = size.detectable() / size.std_error / np.sqrt(50)
    for draw in range(400):
        d = np.random.default_rng(draw).normal(true, 1, 50)
        shown.append(mean_interval(d).low > 0)
    assert 0.74 <= np.mean(shown) <= 0.86


def test_two_levels_add_up_to_what_clients_and_rows_vary():
    rng = np.random.default_rng(4)
    clients = np.repeat(np.arange(120), 6)
    d = np.repeat(rng.normal(0, 1, 120), 6) + rng.normal(0, 2, 720)
    found = two_level_std_error(np.zeros(720), d, np.ones(720), clients, num_resamples=600)
    # Variance of a client's mean 1 + 4/6, and the 4/6 once more (times 5/6 for six rows) of the second level.
    assert found == pytest.approx(np.sqrt((1 + 4 / 6 + 4 / 6 * 5 / 6) / 120), rel=0.15)
    order = rng.permutation(720)
    shuffled = two_level_std_error(np.zeros(720), d[order], np.ones(720), clients[order], num_resamples=600)
    assert shuffled == pytest.approx(found, rel=1e-9)


def test_clients_of_one_row_have_one_level():
    d = np.random.default_rng(5).normal(size=80)
    found = two_level_std_error(np.zeros(80), d, np.ones(80), np.arange(80), num_resamples=2000)
    assert found == pytest.approx(d.std(ddof=1) / np.sqrt(80), rel=0.05)


def test_sign_flips_of_binary_items_are_mcnemars_exact_test():
    a, b = np.array([1.0] * 9 + [0.0] * 4 + [1.0] * 2), np.array([0.0] * 9 + [1.0] * 2 + [0.0] * 2 + [1.0] * 2)
    # 9 items lost, 2 won: two-sided binomial on 11 discordant items.
    assert method_difference([a[:14]], [b[:14]]).p_value == pytest.approx(stats.binomtest(2, 11).pvalue)


def test_holm_by_hand_and_its_order():
    # Sorted .005 x 4, .01 x 3, .03 x 2, .04 x 1 -> .02, .03, .06, .06 (never below an earlier one).
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []
    with_nan = holm([0.02, float("nan"), 0.5])
    assert with_nan[0] == 0.04
    assert np.isnan(with_nan[1])


def test_equal_methods_differ_by_nothing():
    x = np.random.default_rng(6).normal(size=(1, 10))
    found = method_difference(x, x)
    assert (found.difference, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_one_client_says_nothing():
    found = method_difference([[1.0]], [[2.0]])
    assert found.difference == 1.0
    assert np.isnan([found.low, found.high, found.p_value, found.detectable()]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: method_difference([[]], [[]]), "seeds by clients"),
        (lambda: method_difference([[1.0, 2.0]], [[1.0]]), "2 clients against 1"),
        (lambda: method_difference([[1.0]], [[float("nan")]]), "no finite score"),
        (lambda: method_difference([[1.0, 2.0]], [[1.0, 2.0]] * 2, paired_seeds=True), "cannot be paired"),
        (lambda: holm([1.5]), "lie in"),
        (lambda: two_level_std_error([], [], [], []), "shapes"),
        (lambda: two_level_std_error([1.0], [1.0], [0.0], ["a"]), "positive weights"),
    ],
)
def test_what_makes_no_sense_is_an_error(call, message):
    with pytest.raises(MetricError, match=message):
        call()
