"""Agreement of labels, by hand."""

import math

import pytest

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.judge_agreement import agreement


def test_by_hand():
    #            right: 1 1 2 2 2 0    said: 1 2 2 2 1 2
    result = agreement([1, 1, 2, 2, 2, 0], [1, 2, 2, 2, 1, 2])
    assert result.accuracy == 0.5
    # F1 of 1: 2*1/(2+2) = .5; of 2: 2*2/(4+3) = 4/7; of 0: 0
    assert result.macro_f1 == pytest.approx((0.5 + 4 / 7) / 3)
    # Chance: (2*2 + 3*4 + 1*0) / 36 = 16/36; kappa (1/2 - 4/9) / (5/9)
    assert result.kappa == pytest.approx(0.1)


def test_a_label_that_one_side_never_uses_counts_as_zero():
    # Right: a a b; said: a c b. F1 of a: 2*1/(2+1) = 2/3; of b: 1; of c: 0. Chance: (2*1 + 1*1) / 9 = 1/3.
    result = agreement(["a", "a", "b"], ["a", "c", "b"])
    assert (result.accuracy, result.macro_f1) == pytest.approx((2 / 3, 5 / 9))
    assert result.kappa == pytest.approx((2 / 3 - 1 / 3) / (1 - 1 / 3))


def test_labels_of_mixed_types_and_their_names_change_nothing():
    assert agreement([1, "tie", None, 1], [1, None, None, "tie"]) == agreement([7, 8, 9, 7], [7, 9, 9, 8])


def test_no_more_than_chance_is_kappa_zero_and_worse_is_below():
    # Both say a and b half the time, and agree half the time: (1/2 - 1/2) / (1/2).
    assert agreement("aabb", "abab").kappa == pytest.approx(0.0)
    assert agreement("ab", "ba").kappa == pytest.approx(-1.0)


def test_ends_of_the_scale_and_errors():
    assert agreement(["a", "b"], ["a", "b"]).kappa == 1.0
    assert math.isnan(agreement(["a", "a"], ["a", "a"]).kappa)
    for labels, said in ([], []), ([1], [1, 2]):
        with pytest.raises(MetricError, match="pair at least one"):
            agreement(labels, said)
