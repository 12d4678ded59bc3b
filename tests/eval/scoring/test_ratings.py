"""Reading judges: every shape of a rating, every way to fail, and means that hide no failure."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.intervals import mean_interval
from fedllm_eval.scoring.ratings import mean_rating, parse_rating, parse_verdict


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Rating: [[5]]", 5),
        ("Rating: [[8.5]]", 8.5),
        ("[[10]]", 10),
        ("[[1]]", 1),
        ("rated [7] of ten", 7),
        ("see [3], but Rating: [[9]]", 9),  # double brackets go first
        ("[[6]] ... on reflection [[8]]", 6),  # the first counts, as in FastChat
        ("[[5.]]", 5),
        ("<think>[[2]] perhaps</think> [[7]]", 7),
        ("As [1] and [2] say, it is right. Rating: [9]", 9),  # a citation before the rating
        ("I would rate this response a [6].", 6),
        ("**Score:** [8]/10", 8),
        ("Bewertung: [8]", 8),
        ("评分：[9]\n", 9),
        ("It agrees with [3].\n\n[7]", 7),
        ("[4]", 4),
        ("[[3]](https://a.b) says so. [[5]]", 5),  # a link is no rating
    ],
)
def test_ratings_are_read(text, value):
    assert parse_rating(text).value == value
    assert parse_rating(text).failure is None


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("", "empty judgment"),
        (" \n", "empty judgment"),
        ("Rating: 7", "no rating"),
        ("As [1] shows, the answer is wrong.", "no rating"),
        ("It is told in [12] in text.", "no rating"),
        ("Good [1][2].\n\nSources:\n[1] Smith\n[2] Doe", "no rating"),
        ("Sources: [3]", "no rating"),
        ("array[0] and x[3] are read", "no rating"),
        ("[[3]](https://a.b) says so.", "no rating"),
        ("<think>is it [[2]] or", "empty judgment"),
        ("<think>[[2]]</think> fine", "no rating"),
        ("[[seven]]", "no rating"),
        ("[[N]]", "no rating"),
        ("[[7/10]]", "no rating"),
        ("[[-3]]", "no rating"),
        ("[[0]]", "rating 0 is outside 1 to 10"),
        ("[[11]]", "rating 11 is outside 1 to 10"),
        ("[[85]] not [7]", "rating 85 is outside 1 to 10"),
    ],
)
def test_failures_have_a_reason_and_no_number(text, failure):
    rating = parse_rating(text)
    assert math.isnan(rating.value)
    assert rating.failure == failure


def test_ratings_that_contradict_one_another_are_flagged():
    assert parse_rating("[[6]] or [[8]]").ambiguous
    assert not parse_rating("[[6]] and again [[6.0]]").ambiguous


@given(st.text(alphabet="abc .,\n", max_size=30), st.integers(1, 10), st.text(alphabet="abc .,", max_size=30))
@settings(deadline=None)
def test_a_number_in_the_middle_of_words_is_no_rating_and_double_brackets_are(before, number, after):
    words = f"{before} word [{number}] word {after}"
    assert parse_rating(words).failure == "no rating"
    assert parse_rating(f"{words} [[{number}]]").value == number


def test_other_scales_are_read_and_what_is_no_scale_is_refused():
    assert parse_rating("[[-3]]", -5, 5).value == -3
    assert parse_rating("Rating: [-4.5]", -5, 5).value == -4.5
    assert parse_rating("[[0.5]]", 0, 1).value == 0.5
    for lowest, highest in ((10, 1), (1, 1), (0, math.inf), (math.nan, 1)):
        with pytest.raises(MetricError, match="a scale from"):
            parse_rating("[[1]]", lowest, highest)
        with pytest.raises(MetricError, match="a scale from"):
            mean_rating([parse_rating("[[1]]")], lowest=lowest, highest=highest)


def test_verdicts():
    assert parse_verdict("<think>[[A]]</think>[[B]]") == 0.0
    assert [parse_verdict(text) for text in ("[[A]]", "so [[B]].", "[[C]]", "A", "", "[[D]]")] == [
        1,
        0,
        0.5,
        *[None] * 3,
    ]


def test_means_by_hand_with_failures_counted():
    result = mean_rating([parse_rating(text) for text in ("[[4]]", "[[9]]", "[[5]]", "?", "[[77]]", "!")])
    # (4 + 9 + 5) / 3; bounds (18 + 3 * 1) / 6 and (18 + 3 * 10) / 6
    assert (result.mean, result.lowest, result.highest) == (6.0, 3.5, 8.0)
    assert (result.num_items, result.num_failed) == (3, 3)
    assert result.failures == {"no rating": 2, "rating 77 is outside 1 to 10": 1}
    assert 1 <= result.low < 6 < result.high <= 10


def test_turns_of_one_question_count_as_one_in_the_interval():
    rng = np.random.default_rng(0)
    level = rng.integers(2, 10, size=30)
    ratings = [parse_rating(f"[[{x}]]") for x in level for _ in range(2)]
    questions = [index for index in range(30) for _ in range(2)]
    grouped = mean_rating(ratings, questions)
    # Both turns of each question are rated alike, so the interval is that of 30 ratings, not of 60.
    alone = mean_interval(level.astype(float), np.full(30, 2.0))
    assert (grouped.mean, grouped.low, grouped.high) == pytest.approx((alone.mean, alone.low, alone.high))
    apart = mean_rating(ratings)
    assert apart.mean == pytest.approx(grouped.mean)
    assert apart.high - apart.low < 0.8 * (grouped.high - grouped.low)


def test_a_question_with_one_readable_turn_weighs_half():
    ratings = [parse_rating(text) for text in ("[[2]]", "[[4]]", "[[9]]", "?")]
    assert mean_rating(ratings, ["a", "a", "b", "b"]).mean == 5.0  # (2 + 4 + 9) / 3


def test_nothing_readable_is_nan_and_nothing_at_all_an_error():
    result = mean_rating([parse_rating("?"), parse_rating("")])
    assert math.isnan(result.mean)
    assert math.isnan(result.low)
    assert (result.num_items, result.num_failed, result.lowest, result.highest) == (0, 2, 1.0, 10.0)
    with pytest.raises(MetricError, match="at least one"):
        mean_rating([])
    with pytest.raises(MetricError, match="2 ratings in 1 groups"):
        mean_rating([parse_rating("[[1]]")] * 2, ["a"])


@pytest.mark.parametrize(
    ("judgment", "value"),
    [
        ("`scores[2]` is read before it is set.\nRating: [8]", 8.0),
        ("See the rating [1](https://example.org) of others.\nRating: [6]", 6.0),
        ("**Rating** [7]", 7.0),
    ],
)
def test_an_index_in_code_and_a_link_are_no_ratings(judgment, value):
    found = parse_rating(judgment)
    assert (found.value, found.ambiguous) == (value, False)


@pytest.mark.parametrize("judgment", ["The loop reads marks[3].", "as rated [4](https://example.org)", "dp = [5]"])
def test_code_and_links_alone_give_no_rating(judgment):
    assert parse_rating(judgment).failure == "no rating"
