"""Exposure: by hand, its mean by chance, extrapolation where it may be made, and extraction of secrets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedllm_data.errors import MetricError
from fedllm_eval.scoring.exposure import (
    chance_exposure,
    exposure,
    exposure_p_value,
    extrapolated_exposure,
    mean_exposure,
)
from fedllm_eval.scoring.extraction import edit_distance, extracted, extraction_similarity


def test_exposure_by_hand():
    # Eighth of 16: log2 16 - log2 8 = 1; first of 16: 4; a tie with one other for first counts as rank 1.5.
    losses = np.arange(1.0, 16.0)
    assert exposure(7.5, losses) == 1.0
    assert exposure(0.0, losses) == 4.0
    assert exposure(1.0, losses) == pytest.approx(4 - np.log2(1.5))
    assert exposure_p_value(0.0, losses) == 1 / 16


def test_a_canary_not_learned_has_chance_exposure():
    rng = np.random.default_rng(0)
    found = [exposure(rng.normal(), rng.normal(size=999)) for _ in range(4000)]
    # Rank uniform in 1..1000: mean log2(1000 / rank) is 1.437; standard error about 1.44 / sqrt(4000) = .023.
    assert np.mean(found) == pytest.approx(chance_exposure([999]), abs=0.08)


@pytest.mark.parametrize("num_candidates", [1, 2, 9, 999])
def test_chance_is_the_mean_over_all_ranks_and_below_the_ceiling(num_candidates):
    ranks = np.arange(1, num_candidates + 2)
    assert chance_exposure([num_candidates]) == pytest.approx(np.log2((num_candidates + 1) / ranks).mean())
    assert chance_exposure([num_candidates] * 3) < mean_exposure([0.0], [num_candidates])[1]


def test_order_of_candidates_does_not_matter():
    losses = np.random.default_rng(1).normal(size=200)
    assert exposure(-1.0, losses) == exposure(-1.0, losses[::-1])
    assert extrapolated_exposure(-1.0, losses).bits == pytest.approx(extrapolated_exposure(-1.0, losses[::-1]).bits)


@pytest.mark.parametrize("shape", [-3.0, 0.0, 4.0])
def test_extrapolation_agrees_with_the_ranking_and_with_the_true_tail(shape):
    truth = stats.skewnorm(shape, 10.0, 2.0)
    losses = truth.rvs(20_000, random_state=0)
    near, far = truth.ppf(0.01), truth.ppf(1e-7)
    assert extrapolated_exposure(near, losses).bits == pytest.approx(exposure(near, losses), abs=0.3)
    assert extrapolated_exposure(far, losses).bits == pytest.approx(-np.log2(1e-7), rel=0.1)


def test_extrapolation_refuses_another_shape():
    losses = np.r_[np.random.default_rng(2).normal(0, 1, 500), np.random.default_rng(3).normal(9, 1, 500)]
    found = extrapolated_exposure(-5.0, losses)
    assert np.isnan(found.bits)
    assert "not skew-normal" in found.reason
    assert extrapolated_exposure(-5.0, np.ones(200)).reason == "all candidates have one loss, to rounding"


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-160, 1e160, 1e300])
def test_extrapolation_has_no_scale(scale):
    losses = np.random.default_rng(4).normal(20.0, 1.0, 400)
    expected = extrapolated_exposure(12.0, losses).bits
    assert extrapolated_exposure(12.0 * scale, losses * scale).bits == pytest.approx(expected, rel=1e-2)


def test_what_is_too_far_out_or_differs_by_rounding_alone_is_refused_with_a_reason():
    losses = np.random.default_rng(5).normal(0.0, 1.0, 400)
    found = extrapolated_exposure(-1e300, losses)
    assert np.isnan(found.bits)
    assert "standard deviations from the candidates" in found.reason
    assert extrapolated_exposure(0.0, 1e12 + losses).reason == "all candidates have one loss, to rounding"
    # Far, and still a number: the tail of a normal falls as z^2 / 2.
    near_normal = stats.norm.ppf((np.arange(5000) + 0.5) / 5000)
    assert extrapolated_exposure(-1e4, near_normal).bits == pytest.approx(5e7 / np.log(2), rel=0.15)


def test_the_interval_of_canaries_ends_at_their_ceiling():
    # Four of four candidates passed by three canaries, one learned nothing: mean (3 x log2 5 + 0) / 4.
    interval, ceiling = mean_exposure([np.log2(5)] * 3 + [0.0], [4, 4, 4, 4])
    assert ceiling == pytest.approx(np.log2(5))
    assert interval.mean == pytest.approx(0.75 * np.log2(5))
    assert (interval.low, interval.high) == (0.0, ceiling)
    # Canaries of unequal ceilings: no interval beyond their mean, though one canary lies above it.
    interval, ceiling = mean_exposure([3.0, 1.0, 3.0], [7, 1, 7])
    assert ceiling == pytest.approx(7 / 3)
    assert interval.high == ceiling
    with pytest.raises(MetricError, match="numbers of candidates"):
        mean_exposure([1.0], [0])


def test_far_beyond_what_a_cdf_can_hold_the_mass_is_still_right():
    losses = stats.norm.ppf((np.arange(5000) + 0.5) / 5000)
    found = extrapolated_exposure(-15.0, losses)
    assert found.bits == pytest.approx(-stats.norm.logcdf(-15.0) / np.log(2), rel=0.15)


@given(st.text("abc", max_size=8), st.text("abc", max_size=8), st.text("abc", max_size=8))
@settings(max_examples=60, deadline=None)
def test_edit_distance_is_a_metric(one, other, third):
    assert edit_distance(one, other) == edit_distance(other, one)
    assert (edit_distance(one, other) == 0) == (one == other)
    assert edit_distance(one, third) <= edit_distance(one, other) + edit_distance(other, third)


def test_edit_distance_and_similarity_by_hand():
    assert edit_distance("", "abc") == 3
    assert edit_distance("flaw", "lawn") == 2  # drop f, add n
    assert extraction_similarity("48213", "48273 is it") == pytest.approx(4 / 5)
    assert extraction_similarity("48213", "") == 0.0
    assert extracted("48213", "\n48213.")
    assert not extracted("48213", "code 48213")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exposure(1.0, []), "at least one finite loss"),
        (lambda: exposure(float("nan"), [1.0]), "loss is nan"),
        (lambda: exposure(1.0, [float("inf")]), "at least one finite loss"),
        (lambda: extrapolated_exposure(1.0, [1.0, 2.0]), "a fit needs 100"),
        (lambda: extraction_similarity("", "a"), "empty secret"),
        (lambda: extracted("", "a"), "empty secret"),
    ],
)
def test_what_makes_no_sense_is_an_error(call, message):
    with pytest.raises(MetricError, match=message):
        call()
