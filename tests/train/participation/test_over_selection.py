"""How many clients to ask: the rule beside the binomial distribution, and what it is worth in time."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError
from fedllm_train.participation.over_selection import clients_to_ask, probability_of_enough

DROP_OUTS = (0.06, 0.1, 0.2, 0.3, 0.5)


@pytest.mark.parametrize(
    ("wanted", "asked", "expected"),
    [
        (10, 13, (0.994, 0.966, 0.747, 0.421, 0.046)),
        (10, 15, (0.9999, 0.998, 0.939, 0.722, 0.151)),
        (10, 20, (1.0, 1.0, 0.999, 0.983, 0.588)),
        (100, 130, (1.0, 1.0, 0.838, 0.049, 0.0)),
    ],
)
def test_the_chance_of_enough_reports_is_the_known_one(wanted, asked, expected):
    found = [probability_of_enough(asked, wanted, drop_out) for drop_out in DROP_OUTS]
    assert found == pytest.approx(expected, abs=6e-4)


def test_the_chance_is_that_of_counting_every_outcome():
    # 3 asked, 2 wanted, p = 1/4: 3 * 0.75^2 * 0.25 + 0.75^3 = 0.84375
    assert probability_of_enough(3, 2, 0.25) == pytest.approx(0.84375)
    outcomes = itertools.product((False, True), repeat=5)
    chance = sum(0.3 ** (5 - sum(each)) * 0.7 ** sum(each) for each in outcomes if sum(each) >= 3)
    assert probability_of_enough(5, 3, 0.3) == pytest.approx(chance)


@given(st.integers(1, 400), st.floats(0, 0.8))
@settings(max_examples=150, deadline=None)
def test_the_rule_asks_for_enough_in_most_rounds_and_never_for_fewer_than_are_wanted(wanted, drop_out):
    asked = clients_to_ask(wanted, drop_out)
    assert asked >= wanted
    assert probability_of_enough(asked, wanted, drop_out) > 0.93
    # Its mean is less than three deviations too high: nobody is asked for nothing.
    assert asked * (1 - drop_out) <= wanted + 2 * (wanted * drop_out) ** 0.5 + 1


def test_nobody_is_asked_in_vain_where_nobody_drops_out():
    assert [clients_to_ask(wanted, 0.0) for wanted in (1, 7, 100)] == [1, 7, 100]
    with pytest.raises(ConfigError, match="leaves nobody to wait for"):
        clients_to_ask(3, 1.0)


def test_the_first_ten_of_thirteen_halve_a_round():
    """Mean time of a round where clients take log-normal times of median 1 (`sigma` 0.6 and 1)."""
    rng = np.random.default_rng(0)
    for sigma, everybody, first_of_13, first_8 in ((0.6, 2.69, 1.47, 1.53), (1.0, 5.63, 1.95, 2.11)):
        times = np.sort(rng.lognormal(0, sigma, size=(200_000, 13)), axis=1)
        ten = np.sort(rng.lognormal(0, sigma, size=(200_000, 10)), axis=1)
        assert ten[:, 9].mean() == pytest.approx(everybody, rel=0.02)
        assert times[:, 9].mean() == pytest.approx(first_of_13, rel=0.02)
        assert ten[:, 7].mean() == pytest.approx(first_8, rel=0.02)
