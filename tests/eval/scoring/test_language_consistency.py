"""Answers in their question's language: by hand, with a detector's doubts, and with the project's own detector."""

import pytest

from fedllm_data.errors import MetricError
from fedllm_data.pipeline.language_detection import detect_languages, languages_agree
from fedllm_eval.scoring.language_consistency import language_consistency
from fedllm_eval.scoring.proportion import wilson_interval

QUESTIONS = ["it", "it", "it", "de", "no", "und", "fr", None]
ANSWERS = ["it", "en", "en", "de", "nb", "en", None, "fr"]


def test_shares_by_hand():
    result = language_consistency(QUESTIONS, ANSWERS)
    # Told apart: it 1 of 3, de 1 of 1, no 0 of 1; und, fr without an answer's language and None are left out.
    assert result.overall == wilson_interval(2, 5)
    assert {language: share.fraction for language, share in result.by_language.items()} == {
        "de": 1.0,
        "it": pytest.approx(1 / 3),
        "no": 0.0,
    }
    assert result.macro == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert result.answered_in["it"] == {"en": 2, "it": 1}
    assert result.num_undetermined == 3


def test_one_language_under_two_codes():
    assert language_consistency(QUESTIONS, ANSWERS, languages_agree).by_language["no"].fraction == 1.0


def test_order_changes_nothing():
    assert language_consistency(QUESTIONS[::-1], ANSWERS[::-1]) == language_consistency(QUESTIONS, ANSWERS)


def test_nothing_to_tell_is_an_error():
    for questions, answers in [([], []), (["it"], [None]), (["und"], ["en"])]:
        with pytest.raises(MetricError, match="can be told"):
            language_consistency(questions, answers)
    with pytest.raises(MetricError, match="1 questions but 2"):
        language_consistency(["it"], ["it", "it"])


def test_with_the_shipped_detector():
    answers = [
        "La capitale d'Italia è Roma, una città molto antica e molto bella.",
        "The capital of Italy is Rome, a very old and beautiful city.",
        "42",
    ]
    result = language_consistency(["it"] * 3, detect_languages(answers), languages_agree)
    assert result.answered_in == {"it": {"en": 1, "it": 1}}
    assert result.num_undetermined == 1
