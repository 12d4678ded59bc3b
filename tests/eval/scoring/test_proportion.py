"""Wilson's interval by hand, against its roots, and what a simulation covers."""

import numpy as np
import pytest
from scipy.stats import norm

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.proportion import wilson, wilson_interval


@pytest.mark.parametrize(
    ("hits", "items", "low", "high"),
    [
        # z^2 = 3.841459; n / (n + z^2) and z^2 / (n + z^2) at the ends.
        (0, 1, 0.0, 0.793451),
        (1, 1, 0.206549, 1.0),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        # (x + z^2/2 -+ z sqrt(x (n - x) / n + z^2/4)) / (n + z^2): (4.920729 -+ 3.428741) / 13.841459.
        (3, 10, 0.107791, 0.603222),
        (100, 800, 0.103860, 0.149725),
        (260, 520, 0.457183, 0.542817),
    ],
)
def test_by_hand(hits, items, low, high):
    got = wilson_interval(hits, items)
    assert (got.low, got.high) == pytest.approx((low, high), abs=1e-6)
    assert 0 <= got.low <= got.fraction <= got.high <= 1
    assert got.low < got.high


def test_a_share_of_whole_items_has_the_same_bounds_and_a_half_lies_between():
    for hits in range(11):
        whole = wilson_interval(hits, 10)
        assert wilson(hits / 10, 10) == pytest.approx((whole.low, whole.high), abs=1e-12)
    below, half, above = (wilson(hits / 10, 10) for hits in (3, 3.5, 4))
    assert below[0] < half[0] < above[0]
    assert below[1] < half[1] < above[1]


def test_bounds_are_where_the_score_test_turns():
    # Wilson: the bounds solve |p - x| = z sqrt(x (1 - x) / n).
    got = wilson_interval(7, 40, confidence=0.9)
    z = norm.ppf(0.95)
    for bound in (got.low, got.high):
        assert abs(7 / 40 - bound) == pytest.approx(z * np.sqrt(bound * (1 - bound) / 40))


def test_covers_the_truth_95_times_in_100():
    draws = np.random.default_rng(0).binomial(60, 0.15, size=4000)
    counts, times = np.unique(draws, return_counts=True)
    intervals = [wilson_interval(int(hits), 60) for hits in counts]
    inside = [interval.low <= 0.15 <= interval.high for interval in intervals]
    assert 0.93 < np.average(inside, weights=times) < 0.97


@pytest.mark.parametrize(("hits", "items", "confidence"), [(0, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_errors(hits, items, confidence):
    with pytest.raises(MetricError):
        wilson_interval(hits, items, confidence=confidence)
