"""Sensitivity under repeated participation, against every admissible pattern."""

import math
from itertools import combinations, pairwise

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_train.privacy.accountants import gaussian_epsilons
from fedllm_train.privacy.sensitivity import (
    heaviest_pattern,
    matrix_sensitivity,
    most_rounds,
    toeplitz_matrix,
    toeplitz_sensitivity,
    tree_sensitivity,
)


def patterns(n, b, k):
    """Every set of at most k rounds that are at least b apart."""
    for size in range(1, k + 1):
        for chosen in combinations(range(n), size):
            if all(later - earlier >= b for earlier, later in pairwise(chosen)):
                yield list(chosen)


def by_all_patterns(matrix, b, k):
    """The largest sum of |G_ij| over all patterns: the sensitivity itself where no entry of G is negative."""
    gram = np.abs(matrix.T @ matrix)
    return math.sqrt(max(gram[np.ix_(each, each)].sum() for each in patterns(gram.shape[0], b, k)))


def tree_matrix(n):
    """A row for every complete node of the binary tree over n rounds."""
    rows, size = [], 1
    while size <= n:
        for start in range(0, n - size + 1, size):
            row = np.zeros(n)
            row[start : start + size] = 1
            rows.append(row)
        size *= 2
    return np.array(rows)


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 5))


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.data())
def test_the_heaviest_pattern_is_that_of_all_patterns(shape, data):
    n, b, k = shape
    weights = np.array(data.draw(st.lists(st.floats(0, 10), min_size=n, max_size=n)))
    largest = max(weights[each].sum() for each in patterns(n, b, k))
    assert float(heaviest_pattern(weights, b, k)) == pytest.approx(largest)


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_toeplitz_that_never_rises_is_exact(shape, ratios):
    n, b, k = shape
    column = np.cumprod(np.array([1.0, *ratios]))[:n]
    column = np.concatenate([column, np.zeros(n - len(column))])
    found = toeplitz_sensitivity(column, n, min_separation=b, max_participations=k)
    assert found == pytest.approx(by_all_patterns(toeplitz_matrix(column), b, k))


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.data())
def test_bands_no_wider_than_the_separation_are_exact_whatever_their_signs(shape, data):
    n, b, k = shape
    values = data.draw(st.lists(st.floats(-2, 2), min_size=n * n, max_size=n * n))
    matrix = np.tril(np.array(values).reshape(n, n))
    matrix = np.where(np.arange(n)[:, None] - np.arange(n) < b, matrix, 0.0)
    found = matrix_sensitivity(matrix, min_separation=b, max_participations=k)
    assert found == pytest.approx(by_all_patterns(matrix, b, k), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(SHAPES, st.data())
def test_no_matrix_is_more_sensitive_than_its_bound_and_one_turn_is_exact(shape, data):
    n, b, k = shape
    values = data.draw(st.lists(st.floats(-2, 2), min_size=n * n, max_size=n * n))
    matrix = np.tril(np.array(values).reshape(n, n))
    found = matrix_sensitivity(matrix, min_separation=b, max_participations=k)
    assert found >= by_all_patterns(matrix, b, k) * (1 - 1e-12)
    once = matrix_sensitivity(matrix, min_separation=b, max_participations=1)
    assert once == pytest.approx(np.linalg.norm(matrix, axis=0).max())


def test_updates_of_any_direction_stay_below_it():
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, b, k = int(rng.integers(2, 9)), int(rng.integers(1, 4)), int(rng.integers(1, 5))
        matrix = np.tril(rng.normal(size=(n, n)))
        bound = matrix_sensitivity(matrix, min_separation=b, max_participations=k)
        every = list(patterns(n, b, k))
        rounds = every[rng.integers(len(every))]
        updates = np.zeros((n, 3))
        updates[rounds] = rng.normal(size=(len(rounds), 3))
        updates[rounds] /= np.linalg.norm(updates[rounds], axis=1, keepdims=True)
        assert np.linalg.norm(matrix @ updates) <= bound + 1e-9


@pytest.mark.parametrize("n", range(1, 14))
@pytest.mark.parametrize("b", [1, 2, 3, 5])
def test_the_tree_is_bounded_and_exact_for_one_turn(n, b):
    matrix = tree_matrix(n)
    for k in (1, 2, 3, most_rounds(n, b, n)):
        found = tree_sensitivity(n, min_separation=b, max_participations=k)
        exact = by_all_patterns(matrix, b, min(k, 4)) if k <= 4 else 0.0
        assert found >= exact - 1e-12
        if k == 1:
            assert found == pytest.approx(exact)
    # Somebody who is in every round: each node counts its own length, squared.
    always = tree_sensitivity(n, min_separation=1, max_participations=n)
    assert always >= np.linalg.norm(matrix.sum(axis=1)) - 1e-12
    if n & (n - 1) == 0:
        assert always == pytest.approx(np.linalg.norm(matrix.sum(axis=1)))


def test_a_tree_of_a_thousand_steps_once_each_is_dp_accountings():
    """The golden value: z 7, 1,000 steps, each client once, delta 1e-10: 2.913."""
    sensitivity = tree_sensitivity(1000, min_separation=1000, max_participations=1)
    assert gaussian_epsilons(7 / sensitivity, 1e-10)["rdp"] == pytest.approx(2.913, abs=5e-4)
    event = dp_accounting.dp_event.SingleEpochTreeAggregationDpEvent(7.0, 1000)
    theirs = RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    assert gaussian_epsilons(7 / sensitivity, 1e-10)["rdp"] == pytest.approx(theirs.compose(event).get_epsilon(1e-10))


def test_no_correlation_is_a_gaussian_a_round():
    # The identity: somebody in all of 100 rounds moves the sum by sqrt(100); golden 91.8 at z 1, delta 1e-5.
    sensitivity = toeplitz_sensitivity(np.ones(1), 100, min_separation=1, max_participations=100)
    assert sensitivity == pytest.approx(10.0)
    assert gaussian_epsilons(1 / sensitivity, 1e-5)["pld"] == pytest.approx(91.8, rel=1e-3)
