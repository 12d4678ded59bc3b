"""Inputs of a wrong kind are refused by name: `evaluate` itself would cut, group or misread them without a word."""

import evaluate
import pytest

from fedllm_data.errors import MetricError
from fedllm_eval.metrics import METRIC_FOLDERS


def compute(name, config=None, **inputs):
    return evaluate.load(str(METRIC_FOLDERS[name]), config).compute(**inputs)


@pytest.mark.parametrize("wrong", ["False", "no", None, 0])
def test_a_direction_is_true_or_false(wrong):
    with pytest.raises(MetricError, match=r"higher_is_better is .*; give True or False"):
        compute("client_spread", scores=[1.0, 2.0], higher_is_better=wrong)
    with pytest.raises(MetricError, match="higher_is_better is"):
        compute("collaboration_gain", policy_scores=[1.0], baseline_scores=[2.0], higher_is_better=wrong)


def test_a_share_of_membership_is_no_membership():
    with pytest.raises(MetricError, match="other values than 0 and 1"):
        compute("membership_inference", membership_scores=[1.0, 2.0, 3.0], is_member=[0.9, 1, 0])
    found = compute("membership_inference", membership_scores=[3.0, 2.0, 1.0], is_member=[True, True, False])
    assert (found["auc"], found["num_members"]) == (1.0, 2)


@pytest.mark.parametrize("wrong", [2.7, None, float("nan"), float("inf")], ids=str)
def test_a_number_of_tokens_is_whole(wrong):
    with pytest.raises(MetricError, match="num_tokens: item 1 is"):
        compute("heldout_loss", nll_sums=[1.0, 2.0], num_tokens=[2, wrong])
    with pytest.raises(MetricError, match="num_tokens: item 1 is"):
        compute("kl_to_reference", logps=[-1.0, -2.0], ref_logps=[-1.0, -3.0], num_tokens=[2, wrong])
    with pytest.raises(MetricError, match="chosen_tokens: item 1 is"):
        compute(
            "dpo_implicit_reward",
            "reference_free",
            chosen=[-1.0, -2.0],
            rejected=[-1.0, -3.0],
            chosen_tokens=[2, wrong],
            rejected_tokens=[1, 1],
        )


@pytest.mark.parametrize(
    ("name", "config", "inputs", "what"),
    [
        ("judge_rating", None, {"judgments": ["[[7]]", None]}, "judgments"),
        ("judge_rating", "questions", {"judgments": ["[[7]]"] * 3, "question_ids": ["a", None, None]}, "question_ids"),
        ("attack_success", None, {"answers": ["Sure, here is how it is done.", None]}, "answers"),
        ("over_refusal", None, {"answers": ["Sure, here is how it is done.", None]}, "answers"),
        (
            "language_consistency",
            None,
            {"question_languages": ["en"] * 2, "answers": ["Yes, it is.", None]},
            "answers",
        ),
        (
            "heldout_loss",
            "clients",
            {"nll_sums": [1.0, 2.0], "num_tokens": [1, 1], "client_ids": ["a", None]},
            "client_ids",
        ),
    ],
)
def test_a_text_that_is_missing_is_named(name, config, inputs, what):
    with pytest.raises(MetricError, match=rf"{what}: item 1 is None"):
        compute(name, config, **inputs)
