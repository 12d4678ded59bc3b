"""Spread over clients: by hand, closed forms, and pairwise sums."""

import numpy as np
import pytest

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.spread import client_spread, gini_coefficient, jain_index, worst_decile


def test_spread_by_hand():
    spread = client_spread([1.0, 2.0, 3.0, 6.0], higher_is_better=True)
    # Mean 12 / 4; variance (4 + 1 + 0 + 9) / 4 = 3.5.
    assert spread.mean == 3.0
    assert spread.std == pytest.approx(3.5**0.5)
    assert (spread.worst, spread.best, spread.best_worst_gap, spread.worst_decile) == (1.0, 6.0, 5.0, 1.0)
    # Jain: 12^2 / (4 * 50); Gini: sum over ordered pairs |x - y| = 2 (1 + 2 + 5 + 1 + 4 + 3) = 32, / (2 * 16 * 3).
    assert spread.jain == pytest.approx(144 / 200)
    assert spread.gini == pytest.approx(32 / 96)


def test_losses_are_worst_at_the_high_end():
    spread = client_spread([1.0, 2.0, 6.0], higher_is_better=False)
    assert (spread.worst, spread.best, spread.worst_decile, spread.best_worst_gap) == (6.0, 1.0, 6.0, 5.0)


@pytest.mark.parametrize(("num_clients", "num_worst"), [(1, 1), (9, 1), (10, 1), (19, 1), (20, 2), (105, 10)])
def test_the_worst_decile_holds_a_tenth_rounded_down_and_at_least_one(num_clients, num_worst):
    x = np.random.default_rng(0).permutation(num_clients).astype(float)
    assert worst_decile(x, higher_is_better=True) == np.arange(num_worst).mean()
    assert worst_decile(-x, higher_is_better=False) == -np.arange(num_worst).mean()


def test_gini_equals_the_mean_absolute_difference():
    x = np.random.default_rng(1).gamma(2.0, size=40)
    assert gini_coefficient(x) == pytest.approx(np.abs(x[:, None] - x).mean() / (2 * x.mean()))


def test_jain_is_one_over_one_plus_the_squared_coefficient_of_variation():
    x = np.random.default_rng(2).gamma(2.0, size=40)
    assert jain_index(x) == pytest.approx(1 / (1 + (x.std() / x.mean()) ** 2))


def test_extremes_of_jain_and_gini():
    assert jain_index([3.0] * 5) == pytest.approx(1.0)
    assert gini_coefficient([3.0] * 5) == pytest.approx(0.0)
    assert jain_index([0.0] * 4 + [9.0]) == pytest.approx(1 / 5)
    assert gini_coefficient([0.0] * 4 + [9.0]) == pytest.approx(4 / 5)
    assert jain_index([1e-200, 1e-200]) == pytest.approx(1.0)


def test_one_client_is_its_own_spread():
    spread = client_spread([2.0], higher_is_better=True)
    assert (spread.mean, spread.std, spread.worst_decile, spread.best_worst_gap, spread.jain) == (2.0, 0, 2.0, 0, 1.0)


@pytest.mark.parametrize("x", [[-1.0, 2.0], [0.0, 0.0]])
def test_shares_of_what_cannot_be_shared_are_nan_in_the_spread_and_errors_alone(x):
    spread = client_spread(x, higher_is_better=True)
    assert np.isnan([spread.jain, spread.gini]).all()
    for share in (jain_index, gini_coefficient):
        with pytest.raises(MetricError, match="non-negative"):
            share(x)


@pytest.mark.parametrize(("x", "message"), [([], "at least one client"), ([1.0, float("inf")], "position 1")])
def test_no_clients_or_no_score_is_an_error(x, message):
    with pytest.raises(MetricError, match=message):
        client_spread(x, higher_is_better=True)
