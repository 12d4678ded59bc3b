"""Correlated noise: the recurrences against plain linear algebra, the same bits after a stop, turns."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError
from fedllm_train.privacy.correlated_noise import CorrelatedNoise
from fedllm_train.privacy.noise_forms import Banded, Blt, Toeplitz, Tree, nodes_of_sum
from fedllm_train.privacy.secret import secret_normals
from fedllm_train.privacy.sensitivity import toeplitz_matrix
from fedllm_train.privacy.turns import TurnRule, Turns, check_enough_clients

SECRET = bytes(range(32))
N = 7
ROWS = tuple(tuple(row) for row in np.random.default_rng(3).uniform(0.2, 1.0, size=(N, 3)).tolist())
FORMS = [
    Toeplitz(coefficients=(1.0,)),
    Toeplitz(coefficients=(2.0, 1.0, -0.25)),
    Banded(rows=ROWS),
    Blt(theta=(0.9, 0.3), omega=(0.4, 0.2)),
    Tree(),
]


def matrix_of(form):
    if isinstance(form, Toeplitz):
        return toeplitz_matrix(np.array([*form.coefficients, *[0.0] * N])[:N])
    return form.matrix(N) if isinstance(form, Banded) else toeplitz_matrix(form.column(N))


def ident(form):
    return f"{form.name}-{form.num_buffers}"


@pytest.mark.parametrize("form", FORMS[:-1], ids=ident)
def test_the_recurrence_is_the_inverse_matrix(form):
    """C w = Z, where Z is what the secret gives for each round."""
    noise = CorrelatedNoise(form, SECRET)
    w = np.stack([noise.of_round(step, "a", (2, 3)) for step in range(N)])
    drawn = [secret_normals(SECRET, "matrix noise", round_index=step, name="a", shape=(2, 3)) for step in range(N)]
    np.testing.assert_allclose(np.tensordot(matrix_of(form), w, axes=1), np.stack(drawn), atol=1e-12)


@pytest.mark.parametrize("form", FORMS[:-1], ids=ident)
def test_deviations_are_the_norms_of_rows(form):
    inverse = np.linalg.inv(matrix_of(form))
    np.testing.assert_allclose(form.round_deviations(N), np.linalg.norm(inverse, axis=1))
    summed = np.tril(np.ones((N, N))) @ inverse
    np.testing.assert_allclose(form.sum_deviations(N), np.linalg.norm(summed, axis=1))


def test_a_sum_of_the_tree_holds_the_noise_of_its_nodes():
    noise = CorrelatedNoise(Tree(), SECRET)
    total = np.zeros(4)
    for step in range(12):
        total = total + noise.of_round(step, "a", (4,))
        nodes = [
            secret_normals(SECRET, f"tree noise {level}", round_index=position, name="a", shape=(4,))
            for level, position in nodes_of_sum(step + 1)
        ]
        np.testing.assert_allclose(total, sum(nodes), atol=1e-12)
        assert Tree().sum_deviations(12)[step] ** 2 == pytest.approx(len(nodes))


@pytest.mark.parametrize("form", FORMS, ids=ident)
def test_a_run_that_goes_on_has_the_same_bits(form):
    whole = CorrelatedNoise(form, SECRET)
    rounds = [whole.of_round(step, "a", (5,)) for step in range(N)]
    for step in range(N):  # a process that begins in the middle, asked in any order
        assert (CorrelatedNoise(form, SECRET).of_round(step, "a", (5,)) == rounds[step]).all()
    assert (whole.of_round(N - 1, "a", (5,)) == rounds[N - 1]).all()
    assert (whole.of_round(2, "a", (5,)) == rounds[2]).all()
    assert (whole.of_round(3, "a", (5,)) == rounds[3]).all()
    other = CorrelatedNoise(form, SECRET[::-1])
    assert (other.of_round(0, "a", (5,)) != rounds[0]).all()
    assert (whole.of_round(0, "b", (5,)) != rounds[0]).all()


@pytest.mark.parametrize("form", FORMS, ids=ident)
def test_buffers_are_as_many_as_said(form):
    buffers = []
    if form.name == "tree":
        assert form.num_buffers == 0
        return
    for step in range(N):
        form.next_noise(step, np.ones(2), buffers)
    assert len(buffers) == form.num_buffers


def test_related_noise_leaves_less_in_the_sum_than_independent_noise():
    plain, root = Toeplitz(coefficients=(1.0,)), Toeplitz(coefficients=(1.0, 0.5, 0.375, 0.3125))
    # Each once in 64 rounds: noise that gives one guarantee is in proportion to the sensitivity.
    cost = [form.sensitivity(64, 64, 1) * form.sum_deviations(64)[-1] for form in (plain, root)]
    assert cost[0] == pytest.approx(8.0)
    assert cost[1] < 0.7 * cost[0]


# -- turns ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.lists(st.sampled_from("abc"), max_size=30))
def test_whoever_is_let_in_keeps_to_the_rule(separation, most, callers):
    turns = Turns(TurnRule(min_separation=separation, max_participations=most))
    came = {client_id: [] for client_id in "abc"}
    for step, client_id in enumerate(callers):
        assert (client_id in turns.resting(step)) == (turns.reason_against(client_id, step) is not None)
        if turns.reason_against(client_id, step) is None:
            turns.came(client_id, step)
            came[client_id].append(step)
        turns = Turns.from_record(turns.rule, turns.as_record())
    for steps in came.values():
        assert len(steps) <= most
        assert all(later - earlier >= separation for earlier, later in pairwise(steps))


def test_a_second_update_to_one_step_is_refused_by_any_rule():
    turns = Turns(TurnRule(min_separation=1, max_participations=9))
    turns.came("ann", 3)
    assert "has an update in this round already" in turns.reason_against("ann", 3)
    assert turns.reason_against("ann", 4) is None


@pytest.mark.parametrize(
    ("rule", "counts", "message"),
    [
        ((5, 9), {}, "take 50 clients; there are 40, so choose at most 4"),
        ((4, 2), {}, "take 3 of each; choose 3 or more"),
        ((2, 9), {"wanted": 40, "asked": 40}, "choose at most 1"),
        ((3, 9), {"asked": 25}, "take 45 clients"),
    ],
)
def test_a_rule_that_leaves_nobody_to_ask_is_refused(rule, counts, message):
    given_counts = {"num_clients": 40, "wanted": 10, "asked": 10, "num_rounds": 12} | counts
    made = TurnRule(min_separation=rule[0], max_participations=rule[1])
    with pytest.raises(ConfigError, match=message):
        check_enough_clients(made, **given_counts)
