"""Agreement of labels, against scikit-learn and by hand."""

import math
import warnings

import numpy as np
import pytest

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.judge_agreement import agreement, majority


def test_by_hand():
    #            right: 1 1 2 2 2 0    said: 1 2 2 2 1 2
    result = agreement([1, 1, 2, 2, 2, 0], [1, 2, 2, 2, 1, 2])
    assert result.accuracy == 0.5
    # F1 of 1: 2*1/(2+2) = .5; of 2: 2*2/(4+3) = 4/7; of 0: 0
    assert result.macro_f1 == pytest.approx((0.5 + 4 / 7) / 3)
    # Chance: (2*2 + 3*4 + 1*0) / 36 = 16/36; kappa (1/2 - 4/9) / (5/9)
    assert result.kappa == pytest.approx(0.1)


def test_scikit_learn_agrees():
    from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

    rng = np.random.default_rng(0)
    for seed in range(5):
        labels, said = rng.integers(3, size=50).tolist(), rng.integers(4, size=50).tolist()
        result = agreement(labels, said)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = f1_score(labels, said, average="macro"), cohen_kappa_score(labels, said)
        assert result.accuracy == pytest.approx(accuracy_score(labels, said)), seed
        assert (result.macro_f1, result.kappa) == pytest.approx(expected), seed


def test_ends_of_the_scale_and_errors():
    assert agreement(["a", "b"], ["a", "b"]).kappa == 1.0
    assert math.isnan(agreement(["a", "a"], ["a", "a"]).kappa)
    for labels, said in ([], []), ([1], [1, 2]):
        with pytest.raises(MetricError, match="pair at least one"):
            agreement(labels, said)


def test_majority_needs_more_than_half():
    assert majority([1, 1, 2, 2], otherwise=0) == 0
    assert majority([2, 2, 1], otherwise=0) == 2
    assert majority([], otherwise=0) == 0
