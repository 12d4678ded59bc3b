"""Codecs of packed uploads: what is sent of a vector, and what comes back."""

import math

import pytest
import torch

from fedllm_train.messages.packing import codec_of
from fedllm_train.messages.place import Place


def place(round_index=0):
    return Place(0, round_index, "ann")


def vector(*values):
    return torch.tensor(values, dtype=torch.float64)


def round_trip(codec, values, sizes, round_index=0):
    """What comes back of values that are sent in a round."""
    return codec.unpack(codec.pack(values, sizes, place(round_index)), sizes, place(round_index))


def test_topk_sends_the_largest_and_of_equals_the_first():
    # floor(0.5 * 5) = 2 of (1, -3, 2, 2, 0): -3, and of the two 2s the first.
    packed = codec_of("topk:0.5").pack(vector(1, -3, 2, 2, 0), [5], place())
    assert packed["values"].tolist() == [-3, 2]
    assert codec_of("topk:0.5").unpack(packed, [5], place()).tolist() == [0, -3, 2, 0, 0]


@pytest.mark.parametrize("fraction", [0.002, 0.01, 0.1, 0.5, 1.0])
def test_topk_sends_the_stated_number_and_places_the_shorter_way(fraction):
    values = torch.randn(1003, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    packed = codec_of(f"topk:{fraction}").pack(values, [1000, 3], place())
    num_sent = math.floor(fraction * 1003)
    assert len(packed["values"]) == num_sent
    places = packed.get("places", packed.get("bits"))
    assert places.nbytes == min(4 * num_sent, math.ceil(1003 / 8))
    back = codec_of(f"topk:{fraction}").unpack(packed, [1000, 3], place())
    assert int((back != 0).sum()) == num_sent
    kept = back != 0
    assert torch.equal(back[kept], values[kept].float().double())
    if fraction < 1:
        assert values[kept].abs().min() >= values[~kept].abs().max()


@pytest.mark.parametrize(("name", "num_levels"), [("int8", 127), ("int4", 7), ("int3", 3)])
def test_rounding_is_unbiased_and_off_by_less_than_a_level(name, num_levels):
    quantised, values, sizes = codec_of(name), vector(1.0, -0.3, 0.0, 0.04, 5.0, -2.0, 0.7), [4, 3]
    level = vector(1, 1, 1, 1, 5, 5, 5) / num_levels
    draws = torch.stack([round_trip(quantised, values, sizes, i) for i in range(2000)])
    assert ((draws - values).abs() <= level * 1.0001).all()
    # A value between two levels is off by at most half a level of deviation: 4 * 0.5 / sqrt(2000) levels are allowed.
    assert ((draws.mean(dim=0) - values).abs() <= level * 4 * 0.5 / 2000**0.5 + 1e-6).all()
    assert draws[:, 2].eq(0).all()


@pytest.mark.parametrize(("name", "num_bytes"), [("int8", 7), ("int4", 4), ("int3", 3)])
def test_levels_take_as_few_bytes_as_their_bits_need(name, num_bytes):
    packed = codec_of(name).pack(torch.zeros(7, dtype=torch.float64), [4, 3], place())
    assert packed["levels"].nbytes == num_bytes
    assert codec_of(name).unpack(packed, [4, 3], place()).tolist() == [0] * 7


def test_extremes_reach_the_last_level_and_no_further():
    for largest in (1.0, 0.1, 1e-30, 3.3333):
        for name, num_levels in (("int8", 127), ("int4", 7), ("int3", 3)):
            quantised, values = codec_of(name), vector(largest, -largest)
            for seed in range(20):
                back = round_trip(quantised, values, [2], seed)
                torch.testing.assert_close(back, values, rtol=1.01 / num_levels, atol=0)
                assert back.sign().tolist() == [1, -1]
