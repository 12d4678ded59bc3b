"""The clip that follows the clients: golden values of the noise split, its fixed point, cohorts that are too small."""

import json
import math

import pytest

from fedllm_data.errors import ConfigError
from fedllm_train.config import FederatedConfig
from fedllm_train.privacy.accounting import run_guarantee
from fedllm_train.privacy.adaptive_clip import AdaptiveClip, noise_on_updates, split_noise


@pytest.mark.parametrize(("z", "cohort", "split"), [(1.0, 100, 1.005038), (1.0, 1000, 1.00005), (0.5, 50, 0.502519)])
def test_the_golden_values_of_the_split(z, cohort, split):
    sigma, on_updates = split_noise(z, None, cohort)
    assert sigma == cohort / 20
    assert on_updates == pytest.approx(split, abs=1e-6)
    # Both together are one Gaussian of noise z: 1 / z^2 = 1 / z_Delta^2 + (1/2)^2 / sigma_b^2.
    assert on_updates**-2 + 0.25 / sigma**2 == pytest.approx(z**-2)


@pytest.mark.parametrize(("z", "cohort", "needed"), [(1.0, 10, 11), (1.0, 3, 11), (2.5, 25, 26), (0.97, 9, 10)])
def test_small_cohorts_are_refused_with_the_cohort_that_would_do(z, cohort, needed):
    with pytest.raises(ConfigError, match=f"use a cohort_size of {needed} or more"):
        split_noise(z, None, cohort)
    assert split_noise(z, None, needed)[1] > z
    with pytest.raises(ConfigError, match="use a cohort_size"):
        split_noise(z, None, needed - 1)


def test_too_little_noise_on_the_count_is_refused_and_more_is_taken():
    with pytest.raises(ConfigError, match=r"dp_count_noise is 0.5, .* must be above 0.5"):
        split_noise(1.0, 0.5, 10)
    assert split_noise(1.0, 0.6, 10) == (0.6, noise_on_updates(1.0, 0.6))


def test_the_clip_goes_to_the_quantile():
    """Norms 1 to 100: a clip that follows the quantile of 0.5 ends near 50, from above and from below."""
    rule = AdaptiveClip(quantile=0.5, learning_rate=0.2, count_noise=0.0, update_noise_multiplier=0.0)
    for clip in (0.1, 1e4):
        for _ in range(200):
            below = sum(norm <= clip for norm in range(1, 101))
            clip = rule.next_clip(clip, below - 50, 100)
        assert clip == pytest.approx(50, abs=2)


def test_one_step_by_hand():
    # 8 of 10 below the clip, gamma .5, eta .2: C exp(-.2 (.8 - .5)) = C exp(-.06).
    rule = AdaptiveClip(quantile=0.5, learning_rate=0.2, count_noise=0.0, update_noise_multiplier=0.0)
    assert rule.next_clip(2.0, 8 * 0.5 - 2 * 0.5, 10) == pytest.approx(2 * math.exp(-0.06))


@pytest.mark.parametrize("votes", [1e300, -1e300, float("inf"), -float("inf")])
def test_no_count_throws_the_clip_away(votes):
    rule = AdaptiveClip(quantile=0.5, learning_rate=10.0, count_noise=1e9, update_noise_multiplier=1.0)
    clip = 1.0
    for _ in range(1000):
        clip = rule.next_clip(clip, votes, 10)
        assert 0 < clip < math.inf


def settings(**changes):
    given = {"dp_clip": 0.1, "dp_delta": 1e-5, "dp_noise_multiplier": 1.0, "cohort_rule": "poisson"}
    return FederatedConfig(output_dir="run", **{**given, "dp_clip_quantile": 0.5, **changes})


def guarantee_of(**changes):
    return run_guarantee(settings(**changes), num_rounds=100, num_clients=1000, cohort_size=100)


def test_the_record_says_how_the_clip_moves_and_epsilon_counts_z():
    made = guarantee_of()
    record = json.loads(json.dumps(made.as_record()))
    assert record["adaptive_clip"] == {
        "quantile": 0.5,
        "learning_rate": 0.2,
        "count_noise": 5.0,
        "update_noise_multiplier": pytest.approx(1.005038, abs=1e-6),
    }
    fixed = run_guarantee(settings(dp_clip_quantile=None), num_rounds=100, num_clients=1000, cohort_size=100)
    assert record["epsilon"] == fixed.epsilon(100)
    assert any("counts of clients" in each for each in record["assumptions"])
    assert "adaptive_clip" not in fixed.as_record()


def test_clipping_alone_adapts_without_noise():
    made = guarantee_of(dp_noise_multiplier=0.0)
    assert made.epsilon(100) is None
    assert (made.adaptive.count_noise, made.update_noise_multiplier) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dp_clip_quantile": 0.0}, "dp_clip_quantile is 0.0"),
        ({"dp_clip_quantile": 1.0}, "dp_clip_quantile is 1.0"),
        ({"dp_clip_quantile": float("nan")}, "dp_clip_quantile is nan"),
        ({"dp_clip_learning_rate": 0.0}, "dp_clip_learning_rate is 0.0"),
        ({"dp_clip_learning_rate": 1e6}, "at most 10"),
        ({"dp_count_noise": 0.0}, "dp_count_noise is 0.0"),
        ({"dp_count_noise": 3.0, "dp_noise_multiplier": 0.0}, "dp_noise_multiplier is 0"),
        ({"dp_clip_quantile": None, "dp_count_noise": 3.0}, "without dp_clip_quantile"),
        ({"dp_clip_quantile": None, "dp_clip_learning_rate": 0.3}, "without dp_clip_quantile"),
        ({"dp_mechanism": "tree", "cohort_rule": "uniform"}, "the clip must stay"),
        ({"dp_clip": None, "dp_delta": None, "dp_noise_multiplier": None}, "without dp_clip"),
    ],
)
def test_settings_that_adapt_to_nothing_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        settings(**changes)
