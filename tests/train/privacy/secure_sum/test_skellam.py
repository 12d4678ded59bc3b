"""The noise that clients share: its bound against exact divergences, its sampler against exact probabilities."""

import math

import numpy as np
import pytest
from scipy.stats import chisquare, norm, poisson, skellam

from fedllm_data.errors import ConfigError
from fedllm_train import FederatedConfig
from fedllm_train.privacy.secure_sum.fixed_point import SumSpec, most_fraction_bits
from fedllm_train.privacy.secure_sum.masks import KeyStream
from fedllm_train.privacy.secure_sum.skellam import (
    ORDERS,
    epsilon_of_rdp,
    norm_bounds,
    rounded_at_random,
    skellam_epsilon,
    skellam_noise,
    skellam_rdp,
)
from fedllm_train.privacy.secure_sum.skellam_guarantee import MOST_VALUES, sized, skellam_guarantee
from tests.train.privacy.secure_sum.parties import spec_of

GOLDEN = [(100, 10, 2, 0.99441, 1.009), (400, 20, 4, 1.98508, 2.00456), (50, 3, 8, 0.68984, 0.7353)]


def exact_divergence(mu: float, shift: int, order: int) -> float:
    """Renyi divergence of a Skellam number and the same shifted, summed over all that matters."""
    reach = int(20 * math.sqrt(mu)) + 20 * shift + 50
    k = np.arange(-reach, reach + 1)
    log_p, log_q = skellam.logpmf(k, mu / 2, mu / 2), skellam.logpmf(k - shift, mu / 2, mu / 2)
    kept = np.isfinite(log_p) & np.isfinite(log_q)
    terms = order * log_p[kept] - (order - 1) * log_q[kept]
    return float(np.logaddexp.reduce(terms) / (order - 1))


@pytest.mark.parametrize(("mu", "shift", "order", "exact", "bound"), GOLDEN)
def test_the_bound_and_the_exact_divergence_are_the_golden_ones(mu, shift, order, exact, bound):
    assert skellam_rdp(order, mu=mu, norm_2=shift, norm_1=shift) == pytest.approx(bound, rel=1e-4)
    assert exact_divergence(mu, shift, order) == pytest.approx(exact, rel=2e-4)
    assert exact < bound


@pytest.mark.parametrize("mu", [20, 80, 300])
@pytest.mark.parametrize("shift", [1, 4, 9])
@pytest.mark.parametrize("order", [2, 3, 6])
def test_the_bound_is_never_below_the_exact_divergence(mu, shift, order):
    assert exact_divergence(mu, shift, order) <= skellam_rdp(order, mu=mu, norm_2=shift, norm_1=shift)


def test_epsilon_of_a_renyi_curve_is_dp_accountings():
    rdp = pytest.importorskip("dp_accounting").rdp.rdp_privacy_accountant
    curve = {order: 0.7 * order for order in ORDERS}
    theirs, _ = rdp.compute_epsilon([*curve], [*curve.values()], 1e-6)
    assert epsilon_of_rdp(curve, 1e-6) == pytest.approx(theirs, rel=1e-9)


def test_with_fine_steps_the_noise_costs_what_a_gaussian_does_in_renyi_accounting():
    gaussian = epsilon_of_rdp({order: 10 * order / (2 * 2.0**2) for order in ORDERS}, 1e-5)
    ours = skellam_epsilon(2.0, clip=0.5, fraction_bits=25, num_values=MOST_VALUES, num_rounds=10, delta=1e-5)
    assert gaussian <= ours < 1.001 * gaussian


def test_coarse_steps_cost_more_and_no_noise_is_no_guarantee():
    settings = {"clip": 1.0, "num_values": 10_000, "num_rounds": 5, "delta": 1e-5}
    spent = [skellam_epsilon(1.0, fraction_bits=bits, **settings) for bits in (4, 6, 10)]
    assert spent == sorted(spent, reverse=True)
    assert spent[0] > 1.5 * spent[2]
    assert skellam_epsilon(0.0, fraction_bits=10, **settings) == math.inf
    assert skellam_epsilon(1.0, fraction_bits=10, **(settings | {"num_rounds": 0})) == 0.0


@pytest.mark.parametrize("mean", [0.5, 3.0, 9.9, 10.0, 12.3, 50.0, 2000.0])
def test_the_sampler_has_the_probabilities_of_a_difference_of_poissons(mean):
    drawn = skellam_noise(200_000, 2 * mean, KeyStream(b"s" * 32))
    values = np.arange(drawn.min(), drawn.max() + 1)
    expected = skellam.pmf(values, mean, mean) * len(drawn)
    kept = expected > 20
    seen = np.bincount(drawn - drawn.min(), minlength=len(values))
    rest = (len(drawn) - seen[kept].sum(), len(drawn) - expected[kept].sum())
    assert chisquare([*seen[kept], rest[0]], [*expected[kept], rest[1]]).pvalue > 1e-3


@pytest.mark.parametrize("mu", [2.0**20, 2.0**34, 2.0**48])
def test_at_large_variances_it_is_a_rounded_normal_to_within_what_a_sample_shows(mu):
    drawn = skellam_noise(200_000, mu, KeyStream(b"t" * 32)) / math.sqrt(mu)
    edges = norm.ppf(np.linspace(0, 1, 51))
    assert chisquare(np.histogram(drawn, edges)[0]).pvalue > 1e-3


def test_two_clients_noises_add_up_in_variance_and_the_same_key_draws_the_same():
    first, second = (skellam_noise(100_000, 50.0, KeyStream(bytes([n]) * 32)) for n in (1, 2))
    assert (first + second).var() == pytest.approx(100.0, rel=0.03)
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0.0, abs=0.02)
    assert (skellam_noise(100_000, 50.0, KeyStream(bytes([1]) * 32)) == first).all()


def test_no_noise_is_zeros():
    assert not skellam_noise(10, 0.0, KeyStream(bytes(32))).any()


def test_rounding_keeps_the_mean_and_the_norm_within_its_bound():
    values = np.full(400, 0.3)
    bound, _ = norm_bounds(float(np.linalg.norm(values)), 0, len(values))
    rounded = [rounded_at_random(values, norm_2=bound, stream=KeyStream(bytes([n]) * 32)) for n in range(50)]
    assert {int(value) for each in rounded for value in each} == {0, 1}
    assert all(np.linalg.norm(each) <= bound for each in rounded)
    assert np.mean(rounded) == pytest.approx(0.3, abs=0.02)


def test_a_change_that_no_rounding_brings_within_the_bound_is_refused():
    with pytest.raises(ValueError, match="longer than its bound, however it is rounded"):
        rounded_at_random(np.full(9, 5.0), norm_2=3.0, stream=KeyStream(bytes(32)))


def test_the_norm_bounds_are_kairouz_liu_and_steinkes():
    # c = 2, f = 3 (16 steps), d = 64: 256 + 16 + 1 * (16 + 4) = 292 < (16 + 8)^2 = 576; D1 = min(8 sqrt 292, 292)
    assert norm_bounds(2.0, 3, 64) == pytest.approx((math.sqrt(292), 8 * math.sqrt(292)))


def settings_of(**changes) -> FederatedConfig:
    private = {"dp_clip": 0.5, "dp_delta": 1e-5, "dp_epsilon": 8.0, "secure_sum": True, "secure_sum_skellam": True}
    return FederatedConfig(output_dir="run", **private | changes)


def guarantee_of(config: FederatedConfig, *, bits: int = 32, num_clients: int = 10):
    fraction = most_fraction_bits(bits=bits, clip=config.dp_clip, max_clients=num_clients, max_weight=1)
    spec = spec_of(bits=bits, fraction_bits=fraction, clip=config.dp_clip, max_clients=num_clients, max_weight=1)
    return spec, skellam_guarantee(config, num_rounds=10, num_clients=100, spec=spec)


def test_the_noise_is_sized_for_the_fewest_clients_that_are_summed():
    spec, guarantee = guarantee_of(settings_of())
    whole = sized(spec, guarantee)
    assert whole.min_clients == guarantee.least_clients == 7
    steps = guarantee.clip * 2.0**guarantee.fraction_bits
    assert 7 * whole.noise == pytest.approx((guarantee.noise_multiplier * steps) ** 2)
    # A lost client takes its noise along, and no sum of fewer than seven is opened.
    assert whole.threshold_of(8) == whole.threshold_of(4) == 7


def test_a_wanted_epsilon_is_kept_from_below():
    _, guarantee = guarantee_of(settings_of())
    assert 7.9 < guarantee.epsilon(10) <= 8.0
    assert guarantee.epsilon(1) < guarantee.epsilon(5) < guarantee.epsilon(10)
    record = guarantee.as_record()
    assert record["unit"] == "client"
    assert record["epsilon"] == record["by_accountant"]["rdp"] == guarantee.epsilon(10)
    assert "epsilon 7.9" in guarantee.spent_in_words(10)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("num_clients", [3, 10, 300])
def test_the_sum_and_its_noise_fit_the_ring(bits, num_clients):
    spec, guarantee = guarantee_of(settings_of(), bits=bits, num_clients=num_clients)
    whole: SumSpec = sized(spec, guarantee)
    assert whole.largest_sum < 2 ** (bits - 1)
    assert whole.noise <= 2.0**48


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dp_delta": 0.01}, "a delta of 1/100 allows"),
        ({"dp_epsilon": None, "dp_noise_multiplier": 0.01}, "below 0.1 the guarantee means nothing"),
        ({"dp_epsilon": 1e9}, "such a guarantee means nothing"),
        ({"dp_epsilon": 1e-9}, "cannot be reached|does not fit a ring"),
    ],
)
def test_guarantees_that_cannot_be_given_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        guarantee_of(settings_of(**changes))


def test_poisson_numbers_of_a_small_mean_are_exact():
    drawn = skellam_noise(100_000, 0.02, KeyStream(b"u" * 32))
    none = poisson.pmf(0, 0.01) ** 2 + poisson.pmf(1, 0.01) ** 2
    assert (drawn == 0).mean() == pytest.approx(none, abs=0.002)
