"""Wilson's interval against its roots, SciPy's own, and what a simulation covers."""

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.proportion import wilson_interval


@pytest.mark.parametrize(
    ("hits", "items"),
    [
        (0, 1),
        (1, 1),
        (0, 10),
        (3, 10),
        (10, 10),
        (0, 20),
        (3, 20),
        (15, 20),
        (20, 20),
        (100, 800),
        (260, 520),
        (1, 10_000),
    ],
)
def test_equals_scipy(hits, items):
    got = wilson_interval(hits, items)
    want = binomtest(hits, items).proportion_ci(0.95, method="wilson")
    assert (got.low, got.high) == (pytest.approx(want.low, abs=1e-12), pytest.approx(want.high, abs=1e-12))
    assert 0 <= got.low <= got.fraction <= got.high <= 1
    assert got.low < got.high


def test_bounds_are_where_the_score_test_turns():
    # Wilson: the bounds solve |p - x| = z sqrt(x (1 - x) / n).
    got = wilson_interval(7, 40, confidence=0.9)
    z = norm.ppf(0.95)
    for bound in (got.low, got.high):
        assert abs(7 / 40 - bound) == pytest.approx(z * np.sqrt(bound * (1 - bound) / 40))


def test_covers_the_truth_95_times_in_100():
    draws = np.random.default_rng(0).binomial(60, 0.15, size=4000)
    intervals = [wilson_interval(int(hits), 60) for hits in draws]
    assert 0.93 < np.mean([interval.low <= 0.15 <= interval.high for interval in intervals]) < 0.97


@pytest.mark.parametrize(("hits", "items", "confidence"), [(0, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_errors(hits, items, confidence):
    with pytest.raises(MetricError):
        wilson_interval(hits, items, confidence=confidence)
