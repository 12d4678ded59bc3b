"""Epsilon of rows and of people with several: golden values, orders, an independent integral, and sizes of clients."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from fedllm_data.errors import ConfigError
from fedllm_train.clients.local_work import LocalWork
from fedllm_train.privacy.privacy_settings import PrivacySettings
from fedllm_train.privacy.row_accounting import person_epsilon, row_epsilon
from fedllm_train.privacy.row_guarantee import run_row_guarantee

EXAMPLE = {"dp_unit": "example", "dp_clip": 1.0, "dp_delta": 1e-5}
WORK = LocalWork(rule="steps", amount=10, rows_per_step=8, visits=1.0)


@pytest.mark.parametrize(
    ("rows", "z", "epsilon"), [(1, 1.0, 2.125), (8, 1.0, 23.08), (32, 2.0, 41.4)], ids=["K1", "K8", "K32"]
)
def test_golden_values(rows, z, epsilon):
    assert person_epsilon(z, 0.01, 1000, 1e-6, num_rows=rows) == pytest.approx(epsilon, rel=2e-3)


def delta_of_one_step(z, q, rows, epsilon):
    """The larger hockey-stick divergence of a mixture and a Gaussian, by an integral of densities."""
    x = np.linspace(-12 * z, rows + 12 * z, 400_001)
    mixture = sum(binom.pmf(k, rows, q) * norm.pdf(x, k, z) for k in range(rows + 1))
    plain = norm.pdf(x, 0, z)
    one = np.trapezoid(np.maximum(mixture - math.exp(epsilon) * plain, 0), x)
    other = np.trapezoid(np.maximum(plain - math.exp(epsilon) * mixture, 0), x)
    return max(one, other)


@pytest.mark.parametrize(("z", "q", "rows"), [(1.0, 0.1, 3), (2.0, 0.3, 5), (0.8, 0.05, 2), (3.0, 0.5, 12)])
def test_one_step_equals_an_integral_of_densities(z, q, rows):
    delta = 1e-4
    epsilon = person_epsilon(z, q, 1, delta, num_rows=rows)
    assert delta_of_one_step(z, q, rows, epsilon) <= delta * 1.001
    assert delta_of_one_step(z, q, rows, epsilon * 0.97 - 0.01) > delta


@settings(max_examples=12, deadline=None)
@given(z=st.floats(0.7, 5), q=st.floats(0.01, 0.5), steps=st.integers(1, 30), rows=st.integers(2, 12))
def test_a_person_costs_more_than_a_row_and_less_than_all_rows_in_every_step(z, q, steps, rows):
    one, some = row_epsilon(z, q, steps, 1e-5), person_epsilon(z, q, steps, 1e-5, num_rows=rows)
    assert one <= some * 1.001 + 1e-3
    assert some <= person_epsilon(z, 1.0, steps, 1e-5, num_rows=rows) * 1.02 + 0.02
    assert some <= person_epsilon(z, q, steps, 1e-5, num_rows=rows + 1) * 1.001 + 1e-3


def test_the_smallest_client_decides_and_the_spread_is_shown():
    made = run_row_guarantee(
        PrivacySettings(dp_noise_multiplier=2.0, **EXAMPLE),
        WORK,
        {"a": 4, "b": 100, "c": 100, "d": 1000},
        num_rounds=5,
    )
    assert made.epsilon() == pytest.approx(row_epsilon(2.0, 1.0, 50, 1e-5))
    shown = made.spread()
    assert {name: each["num_rows"] for name, each in shown.items()} == {"smallest": 4, "median": 100, "largest": 1000}
    assert shown["smallest"]["epsilon"] > shown["median"]["epsilon"] > shown["largest"]["epsilon"] > 0
    assert made.epsilon(1) < made.epsilon(2) < made.epsilon() <= made.client_epsilon
    record = made.as_record()
    assert record["units"] == {"example": made.epsilon(), "client": made.client_epsilon}
    assert record["epsilon"] == record["by_accountant"]["pld"] <= record["by_accountant"]["rdp"]


@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=30), epochs=st.booleans())
def test_epsilon_bounds_that_of_every_client(sizes, epochs):
    work = LocalWork(rule="epochs", amount=2, rows_per_step=8, visits=1.0) if epochs else WORK
    made = run_row_guarantee(
        PrivacySettings(dp_noise_multiplier=4.0, **EXAMPLE),
        work,
        {str(index): size for index, size in enumerate(sizes)},
        num_rounds=2,
        fits_per_visit=2,
        final_steps=3,
    )
    for size in sizes:
        q, steps = min(1.0, 8 / size), 2 * 2 * work.num_steps(size) + 3
        assert row_epsilon(4.0, q, steps, 1e-5) <= made.epsilon() + 1e-9
        assert person_epsilon(4.0, q, steps, 1e-5, num_rows=size) <= made.client_epsilon * 1.002 + 1e-3


def test_a_wanted_epsilon_gives_the_noise():
    asked = PrivacySettings(dp_epsilon=3.0, dp_rows_per_person=2, **EXAMPLE)
    made = run_row_guarantee(asked, WORK, {"a": 50, "b": 400}, num_rounds=4)
    assert 2.95 < made.epsilon() <= 3.0
    assert made.epsilon() < made.person_epsilon < made.client_epsilon
    assert "a person with 2 rows of a client" in made.spent_in_words(4)
    assert made.as_record()["units"]["person"] == made.person_epsilon


def test_clipping_alone_guarantees_nothing():
    made = run_row_guarantee(PrivacySettings(dp_noise_multiplier=0.0, **EXAMPLE), WORK, {"a": 50}, num_rounds=4)
    assert made.epsilon() is made.client_epsilon is None
    assert made.as_record()["by_client"] == {}
    assert made.first_line(100) == "no epsilon: rows' gradients were clipped, and no noise was added"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dp_delta": 0.1, "dp_noise_multiplier": 1.0}, "publishing one of them whole"),
        ({"dp_noise_multiplier": 0.05}, "means nothing"),
        ({"dp_epsilon": 1e6}, "means nothing"),
    ],
)
def test_what_means_nothing_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        run_row_guarantee(PrivacySettings(**{**EXAMPLE, **changes}), WORK, {"a": 50}, num_rounds=4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dp_unit": "row"}, "dp_unit 'row' is unknown"),
        ({"dp_unit": "client", "dp_rows_per_person": 3}, "dp_rows_per_person"),
        ({"dp_rows_per_person": 0}, "dp_rows_per_person is 0"),
        ({"dp_clip_quantile": 0.5}, "dp_clip_quantile"),
        ({"dp_mechanism": "tree"}, "dp_mechanism"),
        ({"dp_sampling": "without_replacement"}, "dp_sampling"),
        ({"dp_min_separation": 2}, "dp_min_separation"),
        ({"dp_clip": None, "dp_delta": None, "dp_noise_multiplier": None}, "without dp_clip"),
    ],
    ids=str,
)
def test_settings_of_the_other_unit_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        PrivacySettings(**{**EXAMPLE, "dp_noise_multiplier": 1.0, **changes})
