"""Differences that are rounding are none, wherever a sign is counted; real ones stay as they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_eval.scoring.collaboration import collaboration_gain, recovered_fraction
from fedllm_eval.scoring.forgetting import forgetting
from fedllm_eval.scoring.implicit_reward import ranking_accuracy
from fedllm_eval.scoring.intervals import paired_difference
from fedllm_eval.scoring.rounding import RELATIVE, difference_beyond_rounding
from fedllm_eval.scoring.transfer import transfer_matrix
from fedllm_eval.scoring.win_rate import average_swapped, win_rate


@pytest.fixture
def five_of_35():
    """Losses of 35 clients before and after: five gain, for thirty the sum was made in another order."""
    rng = np.random.default_rng(0)
    before = rng.gamma(6.0, 0.4, 35)
    after = before * (1 + rng.choice([-1, 1], 35) * 2e-7)
    after[:5] = before[:5] - 0.05
    return before, after


def test_five_of_35_that_trained_are_the_ones_better_off(five_of_35):
    before, after = five_of_35
    gain = collaboration_gain(after, before, higher_is_better=False)
    # 5 / 35 = 14 % and none, where the signs of the raw differences would say 51 % and 49 %.
    assert (gain.better_off.fraction, gain.worse_off.fraction) == (5 / 35, 0.0)
    assert (gain.gain_K == 0).sum() == 30
    assert gain.worst_decile_gain == 0.0


def test_differences_that_are_all_rounding_give_no_p_value_and_no_interval(five_of_35):
    before, after = (scores[5:] for scores in five_of_35)
    found = paired_difference(before, after)
    assert (found.difference, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)
    assert (found.higher_fraction, found.lower_fraction) == (0.0, 0.0)


def test_items_are_neither_forgotten_nor_won_by_rounding(five_of_35):
    before, after = five_of_35
    found = forgetting(before, after, higher_is_better=False)
    assert (found.lost.fraction, found.won.fraction) == (0.0, 5 / 35)


def test_the_best_source_and_the_gap_do_not_hang_on_rounding():
    up = 2.0 * (1 + 1e-7)
    matrix = transfer_matrix([2.0, up, up, 2.0], ["de", "de", "it", "it"], ["de", "it", "de", "it"],
                             higher_is_better=True)  # fmt: skip
    assert matrix.best_source == {"de": "de", "it": "de"}
    assert matrix.transfer_gap == 0.0
    # Pooling that changes the last digit leaves no gap to close.
    assert np.isnan(recovered_fraction(1.0, 2.0, up))


def test_verdicts_that_average_to_a_half_are_ties():
    # .1 + .2 is .30000000000000004: one of these averages is above a half by 1e-17.
    soft = average_swapped([0.1 + 0.2, 0.5 + 1e-16], [0.7, 0.5 - 1e-16])
    found = win_rate(soft.preferences_N)
    assert (found.tie_fraction, found.win_fraction) == (1.0, 0.0)
    assert soft.consistent_fraction == 0.5


scores = st.floats(-1e6, 1e6, allow_nan=False, width=32)


@given(st.lists(scores, min_size=1, max_size=20), st.floats(-0.9, 0.9))
@settings(deadline=None)
def test_whatever_the_scores_rounding_moves_nobody(values, share):
    values = np.array(values)
    moved = values * (1 + share * RELATIVE)
    assert (difference_beyond_rounding(values, moved) == 0).all()


@given(scores, scores)
@settings(deadline=None)
def test_what_is_no_rounding_stays_to_the_bit(a, b):
    found = float(difference_beyond_rounding(a, b))
    assert found in (0.0, b - a)
    assert (found == 0.0) == (abs(b - a) <= RELATIVE * max(abs(a), abs(b)))
    # Neither the direction of better nor the order of the two turns rounding into a gain.
    assert float(difference_beyond_rounding(-b, -a)) == found


def test_two_answers_of_one_text_are_a_tie_whatever_their_batches():
    found = ranking_accuracy([-300.0, -300.0, -299.0], [-300.0 * (1 + 2e-7), -300.0 * (1 - 2e-7), -300.0])
    assert (found.accuracy, found.tie_fraction) == (1 / 3, 2 / 3)
