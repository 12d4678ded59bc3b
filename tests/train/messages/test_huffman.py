"""Symbols as Huffman codes: both ways, near the entropy, damage."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedllm_train.messages.huffman import read_symbols, write_symbols


@given(st.integers(0, 2**32), st.integers(0, 4), st.integers(0, 3000), st.integers(1, 256))
def test_symbols_come_back(seed, num_planes, count, kinds):
    planes = np.random.default_rng(seed).integers(0, kinds, (num_planes, count)).astype(np.uint8)
    assert (read_symbols(write_symbols(planes), num_planes, count) == planes).all()


@pytest.mark.parametrize(("num_levels", "most"), [(127, 1.01), (7, 1.03), (3, 1.11)])
def test_levels_of_a_gaussian_take_little_more_than_their_entropy(num_levels, most):
    values = np.random.default_rng(0).standard_normal(200_000)
    levels = np.rint(values / np.abs(values).max() * num_levels).astype(int) + num_levels
    share = np.bincount(levels) / len(levels)
    entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
    bits = 8 * len(write_symbols(levels.astype(np.uint8)[None])) / len(levels)
    assert entropy < bits < most * entropy


def test_each_plane_has_tables_of_its_own():
    rng = np.random.default_rng(0)
    flat, even = np.zeros(30_000, dtype=np.uint8), rng.integers(0, 256, 30_000).astype(np.uint8)
    # One bit a symbol of the first plane, eight of the second, and the tables.
    assert len(write_symbols(np.stack([flat, even]))) < 30_000 * 9 / 8 + 500


@given(st.binary(max_size=400), st.integers(0, 300))
def test_what_is_no_code_is_refused(text, count):
    codes = np.frombuffer(text, dtype=np.uint8)
    try:
        found = read_symbols(codes, 1, count)
    except ValueError:
        return
    assert found.shape == (1, count)


def test_codes_that_claim_more_than_they_may_are_refused_before_memory_is_taken():
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = np.frombuffer(coder.compress(bytes(10**8)) + coder.flush(), dtype=np.uint8)
    assert len(bomb) < 10**6
    with pytest.raises(ValueError, match="there are not as many codes as values"):
        read_symbols(bomb, 1, 100)


def test_codes_with_something_behind_them_are_refused():
    codes = write_symbols(np.zeros((1, 50), dtype=np.uint8))
    with pytest.raises(ValueError, match="there are not as many codes as values"):
        read_symbols(np.append(codes, np.uint8(1)), 1, 50)
