"""Win rate: hand sums, missing verdicts, both orders, intervals; stored AlpacaEval annotations in the slow tests."""

import math

import numpy as np
import pytest

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.proportion import wilson
from fedllm_eval.scoring.win_rate import average_swapped, win_rate


def test_by_hand():
    result = win_rate([1, 1, 0, 0.5, None, float("nan"), 0.25])
    # (1 + 1 + 0 + .5 + .25) / 5
    assert result.win_rate == pytest.approx(0.55)
    assert (result.num_items, result.num_missing) == (5, 2)
    assert (result.win_fraction, result.tie_fraction) == (0.4, 0.2)
    # Deviations .45 .45 -.55 -.05 -.3: squares sum to .8, over 4 gives .2, / 5 = .04, root .2
    assert result.standard_error == pytest.approx(0.2)
    assert 0 <= result.low < 0.55 < result.high <= 1


def test_order_does_not_matter_and_missing_verdicts_do_not_move_it():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=40)
    whole, shuffled = win_rate(p), win_rate(rng.permutation(p))
    padded = win_rate([*p, None, None])
    assert whole.win_rate == pytest.approx(shuffled.win_rate, abs=1e-15)
    assert (padded.win_rate, padded.low, padded.high) == (whole.win_rate, whole.low, whole.high)
    assert padded.num_missing == 2


def test_swapping_sides_mirrors_everything():
    p = np.array([1, 0.5, 0.2, 0.9, 1, 0.4])
    for q in (p, np.round(p)):
        one, other = win_rate(q), win_rate(1 - q)
        assert one.win_rate == pytest.approx(1 - other.win_rate)
        assert (one.low, one.high) == (pytest.approx(1 - other.high), pytest.approx(1 - other.low))


def test_agreeing_verdicts_are_no_certainty():
    result = win_rate([1.0] * 10)
    # Wilson at p = 1: 10 / (10 + 1.96^2) = 10 / 13.8415
    assert (result.win_rate, result.low, result.high) == (1.0, pytest.approx(0.72247, abs=1e-5), 1.0)
    single = win_rate([0.5])
    assert single.low < 0.1
    assert math.isnan(single.standard_error)


def test_wilson_equals_the_roots_of_the_score_equation():
    # |p - pi| = z sqrt(pi (1 - pi) / n) at both bounds.
    z = 1.959963984540054
    for p, n in [(0.3, 20), (0.5, 7), (0.99, 400)]:
        for bound in wilson(p, n):
            assert abs(p - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), rel=1e-9)


def test_the_interval_covers_the_truth():
    # 1,000 data sets of 40 verdicts, hard ones and soft ones; 95 % within 3 standard deviations (2.1 points) or so.
    rng = np.random.default_rng(0)
    hard = [win_rate((rng.random(40) < 0.3).astype(float)) for _ in range(1_000)]
    soft = [win_rate(rng.beta(1.5, 3.5, size=40)) for _ in range(1_000)]
    for results in (hard, soft):
        assert 0.93 <= np.mean([result.low <= 0.3 <= result.high for result in results]) <= 0.97


def test_no_verdict_at_all_is_nan_and_no_item_an_error():
    result = win_rate([None, None])
    assert math.isnan(result.win_rate)
    assert math.isnan(result.low)
    assert (result.num_items, result.num_missing) == (0, 2)
    with pytest.raises(MetricError, match="at least one item"):
        win_rate([])


@pytest.mark.parametrize("bad", [1.5, -0.1, 2])
def test_a_preference_off_the_scale_is_an_error(bad):
    with pytest.raises(MetricError, match=r"position 1 is outside \[0, 1\]"):
        win_rate([0.5, bad])


def test_both_orders_by_hand():
    #                    agree  first  first  tie+win  one order missing
    swapped = average_swapped([1, 1, 0.8, 0.5, 1], [1, 0, 0.4, 1, None])
    assert swapped.preferences_N[:4].tolist() == [1, 0.5, pytest.approx(0.6), 0.75]
    assert math.isnan(swapped.preferences_N[4])
    assert swapped.consistent_fraction == 0.25
    # Preference for what came first: mean of (1+0)/2, (1+1)/2, (.8+.6)/2, (.5+0)/2 = (.5 + 1 + .7 + .25) / 4
    assert swapped.first_position_preference == pytest.approx(0.6125)
    assert swapped.num_incomplete == 1


def test_a_judge_that_always_takes_the_first_comes_out_even():
    swapped = average_swapped([1.0] * 6, [0.0] * 6)
    assert win_rate(swapped.preferences_N).win_rate == 0.5
    assert (swapped.consistent_fraction, swapped.first_position_preference) == (0.0, 1.0)


def test_both_orders_must_pair_up():
    with pytest.raises(MetricError, match="judge every pair twice"):
        average_swapped([1, 0], [1])
    empty = average_swapped([None], [None])
    assert math.isnan(empty.consistent_fraction)
    assert empty.num_incomplete == 0
