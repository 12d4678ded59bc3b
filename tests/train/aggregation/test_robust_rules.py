"""Rules in place of the mean: numbers calculated by hand elsewhere, and what must hold for any numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import minimize

from fedllm_train.aggregation.robust_rules import (
    bulyan_coordinates,
    bulyan_selection,
    centred_clip_weights,
    fltrust_weights,
    geometric_median_weights,
    krum_scores,
    krum_selection,
    median_coordinates,
    norm_bound_weights,
    trimmed_coordinates,
)
from fedllm_train.aggregation.update_products import gram_of_changes, gram_of_products

U = np.array([(1, 0), (1.2, 0.1), (0.8, -0.1), (1.1, 0.2), (0.9, 0), (-8, 8), (10, -9)], dtype=float)
ZERO = np.zeros((1, 2))


def gram(vectors):
    return vectors @ vectors.T


def near(found, *wanted, digits=4):
    assert [round(float(each), digits) for each in np.asarray(found).ravel()] == list(wanted)


# -- numbers by hand ------------------------------------------------------------------------------------------------


def test_rules_by_coordinates():
    stacked = torch.from_numpy(U)
    near(median_coordinates(stacked).values, 1, 0)
    near(trimmed_coordinates(stacked, 1).values, 1, 0.04)
    near(trimmed_coordinates(stacked, 2).values, 1, 0.0333)
    near(median_coordinates(stacked[:4]).values, 1.05, 0.05)  # the mean of the two in the middle


def test_krum_and_multi_krum():
    near(krum_scores(gram(U), 2), 0.11, 0.17, 0.25, 0.15, 0.11, 429.91, 486.06, digits=2)
    assert krum_selection(gram(U), 2) == [0]
    chosen = krum_selection(gram(U), 2, keep=5)
    near(U[chosen].mean(axis=0), 1, 0.04)


def test_geometric_median():
    found = geometric_median_weights(gram(U)) @ U
    best = minimize(lambda v: np.linalg.norm(U - v, axis=1).sum(), [1, 0], method="Nelder-Mead", tol=1e-9)
    assert np.allclose(found, best.x, atol=1e-6)
    near(found, 0.99885, 0.00162, digits=5)
    near(geometric_median_weights(gram(U), steps=3) @ U, 0.9879, 0.0116)


def test_centred_clipping_and_norm_bounds():
    from_zero = gram(np.vstack([ZERO, U]))
    every = np.vstack([ZERO, U])
    near(centred_clip_weights(from_zero, 1.0, steps=1) @ every, 0.6738, 0.0286)
    near(centred_clip_weights(from_zero, 1.0, steps=3) @ every, 0.9675, 0.0329)
    near(norm_bound_weights(gram(U), 1.0) @ U, 0.6738, 0.0286)
    near(norm_bound_weights(gram(U)) @ U, 0.7078, 0.0336)


def test_fltrust():
    root = np.array([[1, 0.05]])
    weights = fltrust_weights(gram(np.vstack([root, U])))
    near(weights @ U, 0.9644, -0.0592)
    cosines = (U @ root[0]) / (np.linalg.norm(U, axis=1) * np.linalg.norm(root))
    near(np.maximum(cosines, 0), 0.9988, 0.9994, 0.9848, 0.9916, 0.9988, 0, 0.709)
    assert weights[5] == 0
    assert fltrust_weights(gram(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]))).tolist() == [0.0, 0.0]


def test_bulyan_leaves_out_what_lies_apart():
    chosen = bulyan_selection(gram(U), 1)  # n = 4 f + 3
    assert len(chosen) == 5
    found = bulyan_coordinates(torch.from_numpy(U[chosen]), 1)
    honest = U[:5]
    assert (found.values.numpy() >= honest.min(axis=0)).all()
    assert (found.values.numpy() <= honest.max(axis=0)).all()


# -- what holds for any numbers -------------------------------------------------------------------------------------

finite = st.floats(-100, 100, allow_nan=False, width=32)
cohorts = arrays.arrays(np.float64, st.tuples(st.integers(7, 9), st.integers(1, 5)), elements=finite)

COMBINED = {
    "mean": lambda x: np.full(len(x), 1 / len(x)) @ x,
    "median": lambda x: median_coordinates(torch.from_numpy(x)).values.numpy(),
    "trimmed": lambda x: trimmed_coordinates(torch.from_numpy(x), 2).values.numpy(),
    "geometric": lambda x: geometric_median_weights(gram(x - x[0]), 3) @ x,
}


@pytest.mark.parametrize("rule", COMBINED.values(), ids=COMBINED)
@given(x=cohorts, order=st.randoms(use_true_random=False), shift=finite)
def test_order_does_not_matter_and_a_shift_goes_through(rule, x, order, shift):
    places = list(range(len(x)))
    order.shuffle(places)
    shuffled = rule(x[places] + shift)
    if rule is not COMBINED["geometric"]:  # whose weights depend on the smoothing where points coincide
        assert np.allclose(shuffled, rule(x) + shift, atol=1e-6)
    assert (shuffled <= x.max(axis=0) + shift + 1e-6).all()
    assert (shuffled >= x.min(axis=0) + shift - 1e-6).all()


@given(x=cohorts)
def test_without_bad_clients_the_trimmed_mean_is_the_mean_and_shares_are_even(x):
    found = trimmed_coordinates(torch.from_numpy(x), 0)
    assert np.allclose(found.values.numpy(), x.mean(axis=0))
    assert np.allclose(found.shares.numpy() / x.shape[1], 1 / len(x))


@given(x=cohorts, bad=st.integers(0, 2))
def test_shares_sum_to_one_a_coordinate(x, bad):
    assert trimmed_coordinates(torch.from_numpy(x), bad).shares.sum() == pytest.approx(x.shape[1])
    assert geometric_median_weights(gram(x)).sum() == pytest.approx(1)


@given(x=cohorts, bad=st.integers(0, 2))
def test_krum_is_what_brute_force_finds(x, bad):
    squares = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    scores = [sorted(np.delete(squares[i], i))[: len(x) - bad - 2] for i in range(len(x))]
    assert np.allclose(krum_scores(gram(x), bad), [sum(each) for each in scores], atol=1e-6 * (1 + squares.max()))


@given(x=cohorts, far=st.floats(1e3, 1e6))
def test_two_of_seven_cannot_move_a_robust_rule_beyond_the_honest(x, far):
    x[:2] = far
    honest = x[2:]
    low, high = honest.min(axis=0) - 1e-6, honest.max(axis=0) + 1e-6
    for found in (COMBINED["median"](x), COMBINED["trimmed"](x), x[krum_selection(gram(x), 2)[0]]):
        assert (found >= low).all()
        assert (found <= high).all()
    assert np.linalg.norm(norm_bound_weights(gram(x), 1.0) @ x) <= 1 + 1e-9


@given(x=cohorts, centre=st.integers(0, 4), clip=st.floats(0.1, 10))
def test_centred_clipping_moves_its_centre_by_no_more_than_the_clip(x, centre, clip):
    every = np.vstack([np.full((1, x.shape[1]), float(centre)), x])
    moved = centred_clip_weights(gram(every), clip) @ every - every[0]
    assert np.linalg.norm(moved) <= clip * (1 + 1e-6) + 1e-4
    within = centred_clip_weights(gram(every), 1e9) @ every
    assert np.allclose(within, x.mean(axis=0), atol=1e-6)


def test_no_change_at_all_is_no_change():
    still = np.zeros((7, 7))
    for weights in (geometric_median_weights(still), norm_bound_weights(still), norm_bound_weights(still, 1.0)):
        assert np.isfinite(weights).all()
    assert np.isfinite(centred_clip_weights(np.zeros((8, 8)))).all()
    assert fltrust_weights(np.zeros((8, 8))).tolist() == [0.0] * 7


# -- products -------------------------------------------------------------------------------------------------------


def factors(seed, *, rank=2, sign=1.0):
    torch.manual_seed(seed)
    return {
        "q.lora_A.weight": sign * torch.randn(rank, 5),
        "q.lora_B.weight": sign * torch.randn(4, rank),
        "head.weight": torch.randn(3),
    }


def products(adapters, start):
    def vector(adapter):
        return torch.cat(
            [
                (adapter["q.lora_B.weight"].double() @ adapter["q.lora_A.weight"].double()).flatten(),
                adapter["head.weight"].double(),
            ]
        )

    rows = torch.stack([vector(each) - vector(start) for each in adapters])
    return (rows @ rows.mT).numpy()


@given(seeds=st.lists(st.integers(0, 1000), min_size=2, max_size=4), first=st.integers(0, 1000))
def test_inner_products_are_those_of_the_matrices(seeds, first):
    adapters, start = [factors(each) for each in seeds], factors(first)
    assert np.allclose(gram_of_products(adapters, start), products(adapters, start))


def test_both_factors_turned_round_are_the_same_client():
    start, one = factors(0), factors(1)
    turned = {name: -tensor if "lora" in name else tensor for name, tensor in one.items()}
    same = gram_of_products([one, turned], start)
    assert same[0, 0] + same[1, 1] - 2 * same[0, 1] == pytest.approx(0, abs=1e-9)
    changes = [{name: each[name] - start[name] for name in start} for each in (one, turned)]
    apart = gram_of_changes(changes)
    assert apart[0, 0] + apart[1, 1] - 2 * apart[0, 1] > 1


def test_a_frozen_factor_counts_though_it_is_not_sent():
    start, one, two = factors(0), factors(1), factors(2)
    a = start["q.lora_A.weight"]
    whole = [{**each, "q.lora_A.weight": a} for each in (one, two)]
    sent = [{name: tensor for name, tensor in each.items() if "lora_A" not in name} for each in whole]
    begun = {name: tensor for name, tensor in start.items() if "lora_A" not in name}
    assert np.allclose(gram_of_products(sent, begun, {"q.lora_A.weight": a}), products(whole, start))
