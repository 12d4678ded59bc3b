"""The interval of the worst-served tenth: symmetry, ties, few clients; how often it holds is in test_coverage.py."""

import numpy as np
import pytest
from scipy import stats

from fedllm_data.errors import MetricError
from fedllm_eval.scoring import tail_interval
from fedllm_eval.scoring.tail_interval import sorted_tail, worst_decile_interval


def test_the_standard_error_is_that_of_the_delete_one_jackknife_for_a_smooth_tail():
    x = np.sort(np.random.default_rng(0).gamma(3.0, size=(1, 4000)))
    _, std_error = sorted_tail(x)
    # An independent value: the spread of the tail mean over fresh samples.
    fresh = np.sort(np.random.default_rng(1).gamma(3.0, size=(2000, 4000)))
    assert std_error[0] == pytest.approx(fresh[:, -400:].mean(axis=1).std(), rel=0.1)


def test_losses_and_gains_mirror_each_other():
    x = np.random.default_rng(2).normal(size=80)
    loss = worst_decile_interval(x, higher_is_better=False)
    gain = worst_decile_interval(-x, higher_is_better=True)
    assert (gain.mean, gain.low, gain.high) == pytest.approx((-loss.mean, -loss.high, -loss.low))


def test_order_and_chunks_change_nothing(monkeypatch):
    x = np.random.default_rng(3).normal(size=80)
    whole = worst_decile_interval(x, higher_is_better=True)
    assert worst_decile_interval(x[::-1], higher_is_better=True) == whole
    monkeypatch.setattr(tail_interval, "CHUNK", 500)
    assert worst_decile_interval(x, higher_is_better=True) == whole


def test_a_tail_of_ties_is_itself():
    interval = worst_decile_interval([0.0] * 30 + [0.5] * 70, higher_is_better=True)
    assert (interval.mean, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_bounds_are_finite_where_ties_leave_resamples_without_a_standard_error():
    interval = worst_decile_interval([0.0] * 9 + [0.5] * 11 + [1.0] * 80, higher_is_better=True)
    assert np.isfinite([interval.low, interval.high]).all()
    assert interval.low <= interval.mean == 0.05 <= interval.high <= 1.0


def test_large_samples_agree_with_the_normal_approximation():
    x = np.random.default_rng(4).normal(size=20_000)
    interval = worst_decile_interval(x, higher_is_better=False, num_resamples=400)
    # E[Z | Z > z.9] = phi(z.9) / .1 = 1.755.
    assert interval.low < stats.norm.pdf(stats.norm.ppf(0.9)) / 0.1 < interval.high


def test_few_clients_have_no_interval_and_none_is_an_error():
    interval = worst_decile_interval(np.arange(49.0), higher_is_better=False)
    assert interval.mean == np.arange(45.0, 49.0).mean()
    assert np.isnan([interval.low, interval.high]).all()
    with pytest.raises(MetricError, match="at least one client"):
        worst_decile_interval([], higher_is_better=True)
    with pytest.raises(MetricError, match="between 0 and 1"):
        worst_decile_interval([1.0], higher_is_better=True, confidence=95)
