from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedllm_data.heterogeneity import draws
from fedllm_data.heterogeneity.axes import AXES, measure_axes
from fedllm_data.heterogeneity.divergence import divergence_values
from fedllm_data.heterogeneity.draws import measured, resample
from fedllm_data.heterogeneity.length import intraclass_correlation, wasserstein_to_pool
from fedllm_data.heterogeneity.meta_analysis import stratified_dispersion
from fedllm_data.heterogeneity.profile import CountTable, Stack
from fedllm_data.heterogeneity.quality import anova_icc, mean_differs

LABELS = {
    "rows": ["all"],
    "language": ["de", "en", "fr", "ko"],
    "instruction_length": ["000", "005", "011", "030"],
    "response_length": ["003", "004", "050"],
    "cluster": ["c00", "c01", "c02"],
    "instruction_verb": ["ask", "tell"],
    "preference_choice": [
        *(f"{one}>{two}:{sign}" for one in "abc" for two in "abc" if one != two for sign in "+-"),
        ">:+01",
        ">:-01",
        ">:=",
    ],
    "preference_length": ["+01", "-01", "+09", "-09", "="],
    "preference_same_language": ["no", "yes"],
    "preference_refusal": ["no", "yes"],
    **{f"score:{name}": ["0", "64", "128"] for name in ("heuristics", "repetition", "refusal", "truncation")},
    "score:language_match": ["128"],
}
MAY_BE_EMPTY = ("instruction_verb", "preference_same_language", "preference_refusal", "score:refusal")
"""Tables in which a client that takes part may have no row."""
BATCHED = [axis for axis in AXES.values() if axis.measure_draws]


def some_stack(axis, num_clients, rng, one_label=False):
    """Clients with small tables, a stack in which every shape of a table occurs."""
    tables = {}
    for name in axis.tables:
        labels = LABELS[name][:1] if one_label else LABELS[name]
        counts_KL = rng.integers(0, 4, (num_clients, len(labels))) * (rng.random((num_clients, len(labels))) < 0.6)
        if name not in MAY_BE_EMPTY:
            counts_KL[:, 0] += 2 * (counts_KL.sum(axis=1) < 2)
        tables[name] = CountTable(tuple(labels), counts_KL)
    names = tuple(f"c{index:04d}" for index in range(num_clients))
    return axis.prepare(Stack(names, tables, np.arange(num_clients)))


def some_draws(axis, num_clients, seed, num_draws=7, one_label=False):
    rng = np.random.default_rng(seed)
    stack = some_stack(axis, num_clients, rng, one_label)
    draw = axis.null_sampler(stack)
    return [[draw(rng) for _ in range(num_draws)], [resample(stack, rng) for _ in range(num_draws)]]


def assert_batch_is_one_by_one(axis, stacks):
    together, alone = axis.measure_draws(stacks), [axis.measure(stack) for stack in stacks]
    assert set(together) == set(axis.measures)
    for name, value_R in together.items():
        np.testing.assert_allclose(value_R, [values[name] for values in alone], rtol=1e-10, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("axis", BATCHED, ids=lambda axis: axis.name)
@given(num_clients=st.integers(1, 12), seed=st.integers(0, 2**32), one_label=st.booleans())
def test_a_batch_of_draws_measures_what_they_measure_one_by_one(axis, num_clients, seed, one_label):
    for stacks in some_draws(axis, num_clients, seed, one_label=one_label):
        assert_batch_is_one_by_one(axis, stacks)


@pytest.mark.parametrize("axis", BATCHED, ids=lambda axis: axis.name)
def test_a_batch_of_many_clients_measures_what_they_measure_one_by_one(axis):
    for stacks in some_draws(axis, 2_000, seed=0, num_draws=3):
        assert_batch_is_one_by_one(axis, stacks)


def test_every_axis_but_the_one_that_draws_vectors_measures_in_batches():
    assert {name for name, axis in AXES.items() if axis.measure_draws is None} == {"embedding"}


@pytest.mark.parametrize("cells", [1, 40, 10**9])
def test_the_number_of_draws_at_once_changes_no_figure(make_profiles, mixed_clients, monkeypatch, cells):
    usual = measure_axes(make_profiles(mixed_clients), num_null=23, num_bootstrap=11)
    monkeypatch.setattr(draws, "DRAWN_CELLS", cells)
    found = measure_axes(make_profiles(mixed_clients), num_null=23, num_bootstrap=11)
    for name, result in usual.items():
        for measure, estimate in result.estimates.items():
            for part, number in vars(estimate).items():
                other = vars(found[name].estimates[measure])[part]
                assert other == (
                    number if not isinstance(number, float) else pytest.approx(number, rel=1e-9, abs=1e-12)
                )


@pytest.mark.parametrize("num_draws", [0, 1, 5])
def test_as_many_draws_are_made_as_were_asked_for_and_in_order(num_draws):
    sizes = iter(range(1, 100))
    axis = AXES["quantity"]

    def draw():
        return Stack(("a", "b"), {"rows": CountTable(("all",), np.array([[next(sizes)], [1]]))}, np.arange(2))

    found = measured(axis, draw, num_draws)
    assert found["largest_fraction"].tolist() == [size / (size + 1) for size in range(1, num_draws + 1)]
    assert next(sizes) == num_draws + 1


def test_an_axis_without_batches_is_measured_draw_by_draw():
    axis = replace(AXES["quantity"], measure_draws=None)
    stack = Stack(("a", "b"), {"rows": CountTable(("all",), np.array([[3], [1]]))}, np.arange(2))
    assert measured(axis, lambda: stack, 2)["gini"].tolist() == [0.25, 0.25]


@given(seed=st.integers(0, 2**32), num_clients=st.integers(1, 9), num_labels=st.integers(1, 5))
def test_a_client_without_rows_takes_no_part(seed, num_clients, num_labels):
    rng = np.random.default_rng(seed)
    counts_KL = rng.integers(0, 5, (num_clients, num_labels)) * (rng.random((num_clients, 1)) < 0.7)
    origin_K = np.sort(rng.integers(0, num_clients, num_clients))
    used_K = counts_KL.sum(axis=1) > 0
    with_all, without = (
        divergence_values(counts_KL[rows], origin_K[rows]) for rows in (np.ones(num_clients, bool), used_K)
    )
    for name, value in with_all.items():
        np.testing.assert_allclose(value, without[name], rtol=1e-12, atol=1e-14, err_msg=name)
    score_L = np.arange(num_labels) / 3
    moments = [counts_KL @ score_L**power for power in range(3)]
    np.testing.assert_allclose(anova_icc(*moments), anova_icc(*(part[used_K] for part in moments)), rtol=1e-9)
    assert mean_differs(*moments)[used_K].tolist() == mean_differs(*(part[used_K] for part in moments)).tolist()


@given(seed=st.integers(0, 2**32), num_draws=st.integers(1, 4))
def test_functions_of_counts_take_any_number_of_leading_axes(seed, num_draws):
    rng = np.random.default_rng(seed)
    counts_RKL = rng.integers(0, 5, (num_draws, 2, 3, 4)) + np.eye(3, 4, dtype=int)
    log_L, origin_RK = np.log([1.0, 2.0, 3.0, 5.0]), np.broadcast_to(np.arange(3), (num_draws, 2, 3))
    found = divergence_values(counts_RKL, origin_RK)["bits"], *intraclass_correlation(counts_RKL, log_L)
    found += wasserstein_to_pool(counts_RKL, log_L), stratified_dispersion(counts_RKL // 2, counts_RKL).tau_squared
    for index in np.ndindex(num_draws, 2):
        counts_KL = counts_RKL[index]
        alone = divergence_values(counts_KL, np.arange(3))["bits"], *intraclass_correlation(counts_KL, log_L)
        alone += wasserstein_to_pool(counts_KL, log_L), stratified_dispersion(counts_KL // 2, counts_KL).tau_squared
        for together, one in zip(found, alone, strict=True):
            np.testing.assert_allclose(together[index], one, rtol=1e-10, atol=1e-13)
