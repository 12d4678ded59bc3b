"""A walk ends where its scalars say, to the bit, whatever the order, the detours and the names beside it."""

from hashlib import sha256

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_train.adapters.seeded_walk import LARGEST_MOVE, UNIT, SeededWalk, direction, fixed_point

K = 8


def start(dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    return {
        "a": torch.randn(5, 7, generator=generator, dtype=dtype),
        "b": torch.randn(11, generator=generator, dtype=dtype),
    }


def walked(moves, adapter=None):
    walk = SeededWalk(adapter or start(), run_seed=4, num_seeds=K)
    for seed_index, units in moves:
        walk.move(seed_index, units)
    return walk


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


MOVES = st.lists(st.tuples(st.integers(0, K - 1), st.integers(-(2**26), 2**26)), max_size=12)


@settings(max_examples=30, deadline=None)
@given(moves=MOVES, order=st.randoms(use_true_random=False))
def test_a_walk_equals_the_rebuild_from_its_scalars_in_any_order(moves, order):
    walk = walked(moves)
    rebuilt = SeededWalk(start(), run_seed=4, num_seeds=K)
    rebuilt.go_to(walk.scalars)
    shuffled = list(moves)
    order.shuffle(shuffled)
    assert same(walk.place(), rebuilt.place())
    assert same(walk.place(), walked(shuffled).place())


@settings(max_examples=10, deadline=None)
@given(there=MOVES, elsewhere=MOVES)
def test_a_detour_leaves_no_trace(there, elsewhere):
    walk, goal = walked(elsewhere), walked(there)
    walk.go_to(goal.scalars)
    assert same(walk.place(), goal.place())
    walk.go_to(np.zeros(K, dtype=np.int64))
    assert same(walk.place(), start())


def test_the_largest_moves_along_every_direction_do_not_overflow():
    walk = SeededWalk({"a": torch.zeros(64, dtype=torch.float64)}, run_seed=4, num_seeds=K)
    walk.go_to(np.full(K, LARGEST_MOVE))
    z = sum(direction(4, j, "a", 0, 64).astype(object) for j in range(K))  # Python's integers have no end
    expected = [-float(each * LARGEST_MOVE) * UNIT / 4096 for each in z]
    assert walk.place()["a"].tolist() == pytest.approx(expected, rel=1e-12)


def test_a_step_by_hand():
    walk = walked([(2, fixed_point(0.125))])
    z = torch.from_numpy(direction(4, 2, "b", 0, 11).astype(np.float64)) / 4096
    assert torch.equal(walk.place()["b"], (start()["b"].double() - 0.125 * z).float())
    ahead, behind = walk.beside(3, 0.5)
    y = torch.from_numpy(direction(4, 3, "b", 0, 11).astype(np.float64)) / 4096
    assert torch.equal(ahead["b"], (start()["b"].double() - 0.125 * z + 0.5 * y).float())
    assert torch.equal(behind["b"], (start()["b"].double() - 0.125 * z - 0.5 * y).float())
    assert ahead["a"].shape == (5, 7)


def test_other_tensors_and_their_order_change_no_direction():
    both, alone = start(), {"b": start()["b"]}
    turned = {"b": both["b"], "a": both["a"]}
    moves = [(1, 2**20), (5, -(2**22))]
    assert torch.equal(walked(moves, both).place()["b"], walked(moves, alone).place()["b"])
    assert same(walked(moves, both).place(), walked(moves, turned).place())


def test_float64_tensors_stay_so():
    assert walked([(0, 5)], start(torch.float64)).place()["a"].dtype == torch.float64


def test_directions_are_normal_and_apart():
    drawn = np.stack([direction(0, j, "w", 0, 200_000) for j in range(4)]) / 4096
    assert drawn.mean(axis=1) == pytest.approx(np.zeros(4), abs=0.01)
    assert drawn.var(axis=1) == pytest.approx(np.ones(4), abs=0.02)
    assert (drawn**4).mean(axis=1) == pytest.approx(np.full(4, 3.0), abs=0.1)
    others = [direction(1, 0, "w", 0, 200_000) / 4096, direction(0, 0, "v", 0, 200_000) / 4096]
    apart = np.corrcoef(np.stack([*drawn, *others]))
    assert np.abs(apart - np.eye(6)).max() < 0.02


def test_directions_are_those_of_every_machine_and_version():
    z = direction(0, 7, "base_model.model.q_proj.lora_A.weight", 0, 100_000)
    assert z[:6].tolist() == [-3311, -969, -1198, 2703, -2206, 5097]
    assert (
        sha256(z.astype("<i2").tobytes()).hexdigest()
        == "0abaa3ba4b317625e4f8a6ed3495b766404109c5dd770c91d8d600b1137b9c01"
    )
