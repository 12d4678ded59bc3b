from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import poisson

from fedllm_data.heterogeneity import measure_axes
from fedllm_data.heterogeneity.profile import stack_profiles
from fedllm_data.heterogeneity.quantity import QUANTITY, gini, lorenz_curve, quantity_values, truncated_poisson

FED_AYA_SIZES = np.fromstring(
    "421 1576 5016 418 1555 365 783 935 1223 795 516 476 447 614 361 1363 298 1418 809 192 493 289 194 139 235 209 347"
    " 713 533 417 175 492 271 418 293 223 270 221",
    dtype=np.int64,
    sep=" ",
)
"""Rows of the 38 clients of Fed-Aya, as logged by the released code of FedLLM-Bench (arXiv 2406.04845)."""


def test_fed_aya_gives_its_published_and_recomputed_figures():
    values = quantity_values(FED_AYA_SIZES)
    assert (len(FED_AYA_SIZES), FED_AYA_SIZES.sum()) == (38, 25_513)
    assert FED_AYA_SIZES.std() == pytest.approx(814.81, abs=0.005)  # "671 ± 815" in Table 1: the population formula
    assert values["gini"] == pytest.approx(0.45805, abs=5e-6)
    assert values["coefficient_of_variation"] == pytest.approx(1.21361, abs=5e-6)
    assert values["jain"] == pytest.approx(0.40439, abs=5e-6)
    assert values["effective_clients_simpson"] == pytest.approx(15.3668, abs=5e-5)
    assert values["effective_clients_entropy"] == pytest.approx(24.9967, abs=5e-5)
    assert values["normalised_entropy"] == pytest.approx(0.88486, abs=5e-6)
    assert values["largest_fraction"] == pytest.approx(0.1966, abs=5e-5)


def test_gini_by_hand():
    # Sorted 1, 1, 4: sum (2i - K - 1) n = -2 + 0 + 8 = 6; K sum n = 18; 6 / 18.
    assert gini(np.array([4, 1, 1])) == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(5))
def test_identities_hold_for_any_sizes(seed):
    sizes = np.random.default_rng(seed).integers(1, 500, 37)
    values = quantity_values(sizes)
    assert values["jain"] == pytest.approx(1 / (1 + values["coefficient_of_variation"] ** 2))
    assert values["effective_clients_simpson"] == pytest.approx(37 * values["jain"])
    assert values["gini"] == pytest.approx(np.abs(sizes[:, None] - sizes).mean() / (2 * sizes.mean()))
    curve = lorenz_curve(sizes)
    area = (curve[1:] + curve[:-1]).sum() / (2 * len(sizes))
    assert values["gini"] == pytest.approx(1 - 2 * area)  # twice the area between equality and the Lorenz curve
    assert values["top_tenth_fraction"] == pytest.approx(1 - curve[-5])  # 3.7 clients, rounded up to 4


def test_equal_clients_are_equal_and_one_holder_is_the_extreme():
    equal, alone = quantity_values(np.full(8, 5)), quantity_values(np.array([0, 0, 0, 9]))
    assert (equal["gini"], equal["coefficient_of_variation"]) == (0, 0)
    assert (equal["jain"], equal["normalised_entropy"]) == (pytest.approx(1), pytest.approx(1))
    assert alone["gini"] == pytest.approx(3 / 4)
    assert (alone["jain"], alone["effective_clients_entropy"], alone["largest_fraction"]) == (0.25, 1, 1)


def test_null_of_large_clients_is_the_multinomial_of_equally_active_ones(make_profiles):
    profiles = make_profiles({f"c{index}": {"language": ["en"] * 50} for index in range(40)})
    draw = QUANTITY.null_sampler(stack_profiles(profiles, QUANTITY.tables))
    rng = np.random.default_rng(0)
    ours = [gini(draw(rng).tables["rows"].sizes_K) for _ in range(500)]
    multinomial = [gini(rng.multinomial(2000, np.full(40, 1 / 40))) for _ in range(500)]
    assert np.mean(ours) == pytest.approx(np.mean(multinomial), rel=0.02)
    assert np.std(ours) == pytest.approx(np.std(multinomial), rel=0.1)


@pytest.mark.parametrize(("mean", "floor"), [(1.3, 1), (3.2, 2), (50.0, 1), (21.0, 20), (900.0, 100)])
def test_truncated_poisson_has_the_mean_and_the_shape(mean, floor):
    values, cumulative = truncated_poisson(mean, floor)
    p = np.diff(cumulative, prepend=0)
    assert values[0] == floor
    assert (p @ values) == pytest.approx(mean, rel=1e-6)
    rate = p[1] / p[0] * (floor + 1)  # P(x + 1) / P(x) = rate / (x + 1)
    wanted = poisson.pmf(values, rate) / poisson.sf(floor - 1, rate)
    np.testing.assert_allclose(p, wanted, atol=1e-9)


def test_null_draws_no_client_that_the_dataset_cannot_hold(make_profiles):
    sizes = [2, 2, 2, 2, 3, 3, 3, 9]
    profiles = make_profiles({f"c{index}": {"language": ["en"] * size} for index, size in enumerate(sizes)})
    stack = stack_profiles(profiles, QUANTITY.tables)
    rng = np.random.default_rng(0)
    smallest = {}
    for floor in (1, 2):
        draw = QUANTITY.null_sampler(replace(stack, min_client_rows=floor))
        draws = np.array([draw(rng).tables["rows"].sizes_K for _ in range(500)])
        assert draws.mean() == pytest.approx(np.mean(sizes), abs=0.1)
        smallest[floor] = draws.min()
    assert smallest == {1: 1, 2: 2}


def test_a_floor_above_the_smallest_client_is_lowered_to_it(make_profiles):
    profiles = make_profiles({"a": {"language": ["en"] * 3}, "b": {"language": ["en"] * 5}})
    facts = measure_axes(profiles, min_client_rows=10, num_null=9, num_bootstrap=9)["quantity"].facts
    assert facts["min_client_rows"] == 3


def test_equally_active_clients_lie_inside_the_null_in_most_seeds(make_profiles):
    rng = np.random.default_rng(2)
    extreme = 0
    for seed in range(20):
        sizes = rng.poisson(2.5, 80)
        sizes = sizes[sizes >= 2]
        profiles = make_profiles({f"c{index:02d}": {"language": ["en"] * size} for index, size in enumerate(sizes)})
        result = measure_axes(profiles, seed=seed, min_client_rows=2, num_null=99, num_bootstrap=9)["quantity"]
        extreme += result.estimates["gini"].p <= 0.05
    assert extreme <= 4
