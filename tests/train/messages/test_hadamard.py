"""Rotations: norms and inner products stay, both ends get the same bits, the last block is handled."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import hadamard

from fedllm_train.messages.hadamard import (
    block_sizes,
    hadamard_sums,
    rotate,
    rotate_back,
    rotate_bits_back,
    signs_from,
)

SIZES = st.sampled_from([2, 8, 64, 256])


def drawn(seed, count):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(count), signs_from(rng, count)


@pytest.mark.parametrize("size", [1, 2, 4, 256, 2048])
def test_sums_are_those_of_sylvesters_matrix(size):
    rows = np.random.default_rng(0).standard_normal((70, size))
    expected = rows @ hadamard(size)
    hadamard_sums(rows)
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-11 * size)


def test_four_values_by_hand():
    # D = (1, -1, 1, 1): x = (1, -2, 3, 4). H x = (6, 2, -8, 4), over sqrt(4): (3, 1, -4, 2). |x|^2 = 30 both ways.
    rotated = rotate(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1, -1, 1, 1], dtype=np.int8), 4)
    assert rotated.tolist() == [3, 1, -4, 2]


@given(st.integers(0, 2**32), st.integers(0, 700), SIZES)
def test_norms_and_inner_products_stay_and_values_come_back(seed, count, size):
    values, signs = drawn(seed, count)
    other = np.random.default_rng(seed + 1).standard_normal(count)
    a, b = rotate(values, signs, size), rotate(other, signs, size)
    assert len(a) == sum(block_sizes(count, size))
    assert a @ a == pytest.approx(values @ values)
    assert a @ b == pytest.approx(values @ other, abs=1e-9)
    np.testing.assert_allclose(rotate_back(a, signs, size), values, atol=1e-12)


@given(st.integers(0, 10**6), SIZES)
def test_filling_adds_less_than_the_values_that_are_left_over(count, size):
    blocks = block_sizes(count, size)
    assert 0 <= sum(blocks) - count < max(1, count % size)
    assert all(block == size for block in blocks[:-1])


@given(st.integers(0, 2**32), st.integers(1, 700), SIZES)
def test_sums_of_whole_numbers_are_those_of_floats(seed, count, size):
    _, signs = drawn(seed, count)
    blocks = block_sizes(count, size)
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, sum(blocks), dtype=np.uint8)
    scales = rng.random(len(blocks))
    floats = np.repeat(scales, blocks) * (1.0 - 2.0 * bits)
    got = rotate_bits_back(bits, scales, signs, size)
    np.testing.assert_allclose(got, rotate_back(floats, signs, size), rtol=1e-12, atol=1e-13)


def test_whole_numbers_do_not_overflow_in_large_blocks():
    size = 2**16
    back = rotate_bits_back(np.zeros(size, dtype=np.uint8), np.ones(1), np.ones(size, dtype=np.int8), size)
    assert back[0] == 2**8  # the sum of 2^16 ones, over sqrt(2^16)
    assert not back[1:].any()


def test_signs_are_even_and_follow_from_the_stream_alone():
    signs = signs_from(np.random.default_rng(3), 10_000)
    assert (signs == signs_from(np.random.default_rng(3), 10_000)).all()
    assert (signs[:100] == signs_from(np.random.default_rng(3), 100)).all()
    assert abs(int(signs.astype(int).sum())) < 6 * 100  # six deviations of 10,000 coins
