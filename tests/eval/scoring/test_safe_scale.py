"""Scores of any size: the same intervals, spreads and tests in another unit, to the bit for a power of two."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.comparisons import method_difference, two_level_std_error
from fedllm_eval.scoring.intervals import mean_interval, paired_difference
from fedllm_eval.scoring.length_controlled import length_controlled_win_rate
from fedllm_eval.scoring.safe_scale import power_of_two
from fedllm_eval.scoring.spread import client_spread
from fedllm_eval.scoring.tail_interval import worst_decile_interval

X = np.random.default_rng(0).gamma(5.0, 0.5, 60)
Y = X * np.random.default_rng(1).normal(1.1, 0.05, 60)


def summary(x, y, scale):
    """Everything that has the unit of the scores, in that unit."""
    mean, weighted = mean_interval(x), mean_interval(x, y)
    paired, spread = paired_difference(x, y), client_spread(x, higher_is_better=True)
    tail = worst_decile_interval(x, higher_is_better=True, num_resamples=200)
    method = method_difference([x, 1.01 * x], [y, 0.99 * y])
    rows = two_level_std_error(x, y, np.ones(60), np.arange(60) // 4, num_resamples=50)
    amounts = [mean.mean, mean.low, mean.high, weighted.mean, weighted.low, weighted.high, paired.low, paired.high]
    amounts += [spread.mean, spread.std, spread.worst_decile, tail.mean, tail.low, tail.high]
    amounts += [method.difference, method.low, method.high, method.std_error, rows]
    return [amount / scale for amount in amounts] + [paired.p_value, spread.jain, spread.gini, method.p_value]


@pytest.mark.parametrize("exponent", [-1000, -700, -100, 100, 700, 1015])
def test_another_power_of_two_changes_no_bit(exponent):
    scale = 2.0**exponent
    assert summary(X * scale, Y * scale, scale) == summary(X, Y, 1.0)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_huge_and_tiny_scores_have_intervals_with_width_and_end(scale):
    assert summary(X * scale, Y * scale, scale) == pytest.approx(summary(X, Y, 1.0), rel=1e-9)


def test_lengths_have_no_unit():
    preferences = [1.0, 0.0, 1.0, 1.0, 0.0, 0.5]
    ours, theirs = np.array([9.0, 3, 8, 7, 2, 5]), np.array([5.0, 6, 4, 8, 3, 5])
    expected = length_controlled_win_rate(preferences, ours, theirs)
    for scale in (1e-200, 1e200):
        assert length_controlled_win_rate(preferences, ours * scale, theirs * scale).win_rate == pytest.approx(
            expected.win_rate
        )


def test_a_difference_that_no_double_holds_is_refused():
    with np.errstate(over="ignore"), pytest.raises(MetricError, match="has score -inf"):
        paired_difference([1.7e308, 1.0], [-1.7e308, 1.0])


@given(st.lists(st.floats(-1e308, 1e308), min_size=1, max_size=5))
@settings(deadline=None)
def test_what_is_divided_lies_between_one_and_two(values):
    scale = power_of_two(values)
    largest = max(map(abs, values))
    assert largest == 0 or 1 <= largest / scale < 2
    assert all((value / scale) * scale == value for value in values if abs(value) > 1e-300 * largest)
