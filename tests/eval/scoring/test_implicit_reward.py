"""Implicit rewards: by hand, ties, and TRL's own loss and reward metrics."""

import numpy as np
import pytest
import torch

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.implicit_reward import implicit_reward, margins, ranking_accuracy, reward_loss


def test_rewards_by_hand():
    reward = implicit_reward([-10.0, -20.0], [-12.0, -18.0], [-11.0, -19.0], [-11.0, -19.0], beta=0.5)
    # Pair 0: .5 (-10 + 11) - .5 (-12 + 11) = 1; pair 1: .5 (-20 + 19) - .5 (-18 + 19) = -1.
    assert (reward.accuracy, reward.margin) == (0.5, 0.0)
    # -log sigmoid(1) = .3133, -log sigmoid(-1) = 1.3133.
    assert reward.loss == pytest.approx((0.3132617 + 1.3132617) / 2)
    # Chosen: .5 (1) and .5 (-1); rejected: .5 (-1) and .5 (1).
    assert (reward.chosen_reward, reward.rejected_reward) == (0.0, 0.0)


def test_equals_the_formula_of_dpo_in_torch():
    rng = np.random.default_rng(0)
    chosen, rejected, ref_chosen, ref_rejected = rng.normal(-50, 9, size=(4, 200))
    reward = implicit_reward(chosen, rejected, ref_chosen, ref_rejected, beta=0.1)
    logits = torch.tensor((chosen - rejected) - (ref_chosen - ref_rejected))
    assert reward.loss == pytest.approx(-torch.nn.functional.logsigmoid(0.1 * logits).mean().item())
    assert reward.accuracy == (logits > 0).double().mean().item()
    assert reward.margin == pytest.approx(0.1 * logits.mean().item())


def test_a_policy_equal_to_its_reference_has_accuracy_zero_and_ties_say_why():
    logps = np.random.default_rng(0).normal(-50, 9, size=(2, 20))
    reward = implicit_reward(*logps, *logps)
    assert (reward.accuracy, reward.margin, reward.tie_fraction) == (0.0, 0.0, 1.0)
    assert reward.loss == pytest.approx(np.log(2))


def test_swapping_the_answers_turns_wins_into_losses():
    chosen, rejected, ref_chosen, ref_rejected = np.random.default_rng(3).normal(size=(4, 51))
    a = implicit_reward(chosen, rejected, ref_chosen, ref_rejected)
    b = implicit_reward(rejected, chosen, ref_rejected, ref_chosen)
    assert a.accuracy + b.accuracy == pytest.approx(1.0)
    assert a.margin == pytest.approx(-b.margin)


def test_beta_scales_margins_and_leaves_accuracy_alone():
    logps = np.random.default_rng(4).normal(-50, 9, size=(4, 30))
    assert margins(*logps, beta=0.4) == pytest.approx(4 * margins(*logps, beta=0.1))
    assert implicit_reward(*logps, beta=0.4).accuracy == implicit_reward(*logps, beta=0.1).accuracy


def test_the_loss_does_not_overflow():
    assert reward_loss([-1e4, 1e4]).tolist() == [1e4, 0.0]


def test_ranking_is_strict_and_per_token_ranking_does_not_favour_short_answers():
    # Summed: -4 > -6 wins, -5 against -5 ties. Per token: -4 / 1 < -6 / 3; -5 / 5 > -5 / 1.
    summed = ranking_accuracy([-4.0, -5.0], [-6.0, -5.0])
    assert (summed.accuracy, summed.tie_fraction) == (0.5, 0.5)
    assert ranking_accuracy([-4.0, -5.0], [-6.0, -5.0], [1, 5], [3, 1]).accuracy == 0.5


@pytest.mark.parametrize(
    ("columns", "beta", "message"),
    [
        (([], [], [], []), 0.1, "no pairs"),
        (([-1.0], [-1.0, -2.0], [-1.0], [-1.0]), 0.1, "one length"),
        (([-1.0], [float("nan")], [-1.0], [-1.0]), 0.1, "pair 0 has value nan"),
        (([-1.0], [-1.0], [-1.0], [-1.0]), 0.0, "beta is 0.0"),
        (([-1.0], [-1.0], [-1.0], [-1.0]), float("inf"), "beta is inf"),
    ],
)
def test_what_cannot_be_scored_is_an_error(columns, beta, message):
    with pytest.raises(MetricError, match=message):
        implicit_reward(*columns, beta=beta)


def test_token_counts_come_in_pairs_and_are_positive():
    with pytest.raises(MetricError, match="one side only"):
        ranking_accuracy([-1.0], [-2.0], [1], None)
    with pytest.raises(MetricError, match="no tokens"):
        ranking_accuracy([-1.0], [-2.0], [1], [0])
