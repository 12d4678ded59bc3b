"""The ring: rounding, the clip, and the bound at which sums would wrap."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError
from fedllm_train.privacy.secure_sum.fixed_point import decoded, encoded, most_fraction_bits
from tests.train.privacy.secure_sum.parties import spec_of


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20),
    st.integers(1, 10),
    st.sampled_from([(32, 10), (32, 20), (64, 30)]),
)
def test_values_are_rounded_to_the_nearest_step_after_weighing(values, weight, sizes):
    bits, fraction = sizes
    spec = spec_of(bits=bits, fraction_bits=fraction)
    ring, was_clipped = encoded(values, weight, spec)
    # round() of a Fraction rounds halves to the even whole number, exactly.
    clipped = [min(max(Fraction(v), Fraction(-1)), Fraction(1)) for v in values]
    assert ring.tolist() == [round(v * weight * 2**fraction) % 2**bits for v in clipped]
    assert was_clipped == any(abs(v) > 1 for v in values)


def test_a_hand_computed_case():
    # 0.3 * 2 * 16 = 9.6 -> 10; -0.3 -> -10 = 2^32 - 10; 2.5 / 32 = a half -> the even 2
    ring, _ = encoded([0.3, -0.3, 2.5 / 32], 2, spec_of(fraction_bits=4))
    assert ring.tolist() == [10, 2**32 - 10, 2]
    assert decoded(ring, 4).tolist() == [0.625, -0.625, 0.125]


@pytest.mark.parametrize("bits", [32, 64])
def test_clients_at_the_clip_do_not_wrap_and_one_more_is_caught(bits):
    fraction = most_fraction_bits(bits=bits, clip=1.0, max_clients=15, max_weight=1)
    if fraction == 40:  # the ring is wider than any precision that is used; make the clip fill it
        clip = 2.0 ** (bits - 1 - 40) / 15
        clip *= 1 - 2**-30
    else:
        clip = 2.0 ** (bits - 1 - fraction) / 15 * (1 - 2**-20)
    spec = spec_of(bits=bits, fraction_bits=fraction, clip=clip, max_clients=15, max_weight=1)
    for sign in (1, -1):
        ring, _ = encoded([sign * clip], 1, spec)
        total = np.zeros(1, dtype=spec.dtype)
        for _ in range(15):
            total += ring
        assert decoded(total, fraction)[0] == pytest.approx(15 * sign * clip, rel=1e-6)
        total += ring  # the sixteenth would turn the sign
        assert np.sign(decoded(total, fraction)[0]) == -sign
    with pytest.raises(ConfigError, match=rf"the ring of {bits} bits wraps at"):
        spec_of(bits=bits, fraction_bits=fraction, clip=clip, max_clients=16, max_weight=1)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([32, 64]),
    st.floats(1e-3, 1e3),
    st.integers(3, 10_000),
    st.integers(1, 10_000),
)
def test_as_many_fraction_bits_as_fit_are_found(bits, clip, max_clients, max_weight):
    found = most_fraction_bits(bits=bits, clip=clip, max_clients=max_clients, max_weight=max_weight)
    sizes = {"bits": bits, "clip": clip, "max_clients": max_clients, "max_weight": max_weight}
    if found >= 0:
        spec_of(**sizes, fraction_bits=found)
    if 0 <= found < 40:
        with pytest.raises(ConfigError, match="wraps at"):
            spec_of(**sizes, fraction_bits=found + 1)


def test_losses_of_all_clients_do_not_wrap_either():
    for bits, clients, weight in ((32, 3, 1), (32, 1000, 10_000), (64, 1000, 10_000)):
        spec = spec_of(bits=bits, fraction_bits=0, clip=0.001, max_clients=clients, max_weight=weight)
        assert clients * weight * 64 * 2.0**spec.loss_bits < 2 ** (bits - 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": 16}, "it must be 32 or 64"),
        ({"fraction_bits": 41}, "between 0 and 40"),
        ({"clip": 0.0}, "it must be positive"),
        ({"max_clients": 2}, "three at least"),
        ({"min_clients": 1}, "three at least"),
        ({"threshold": 0.5}, "more than half"),
        ({"threshold": 1.1}, "more than half"),
        ({"max_weight": 0}, "at least 1"),
        ({"noise": -1.0}, "must be of a variance"),
    ],
)
def test_numbers_that_make_no_sum_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        spec_of(**change)


@pytest.mark.parametrize("num_clients", range(3, 40))
@pytest.mark.parametrize("threshold", [0.501, 0.67, 1.0])
def test_more_than_half_and_at_least_three_are_always_needed(num_clients, threshold):
    needed = spec_of(threshold=threshold).threshold_of(num_clients)
    assert 2 * needed > num_clients
    assert 3 <= needed
    assert needed >= threshold * num_clients - 1e-9


@pytest.mark.parametrize("weight", [0, 11, 1.5])
def test_a_weight_beyond_the_largest_is_refused(weight):
    with pytest.raises(ValueError, match="none from 1 to 10"):
        encoded([0.5], weight, spec_of())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="not finite"):
        encoded([0.0, value], 1, spec_of())
