"""Predicted lengths of messages: exact where they can be, near where they cannot."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_train.messages import codec
from fedllm_train.messages.length_estimates import huffman_bits
from fedllm_train.messages.packed_length import message_bytes, packed_bytes, packed_layout
from fedllm_train.messages.pipeline import Pipeline
from fedllm_train.messages.place import Place
from fedllm_train.messages.wire_names import parse_wire
from tests.train.messages.drawn_wires import LARGEST, sized_vectors, wires

PRECISIONS = {
    "F64": torch.float64, "I64": torch.int64, "F32": torch.float32, "I32": torch.int32, "BF16": torch.bfloat16,
    "F16": torch.float16, "I8": torch.int8, "U8": torch.uint8,
}  # fmt: skip
SHAPES = st.lists(st.integers(0, 12), max_size=3).map(tuple)


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=8),
        st.tuples(st.sampled_from(sorted(PRECISIONS)), SHAPES),
        min_size=1,
        max_size=6,
    )
)
def test_a_messages_length_follows_from_names_precisions_and_shapes(tensors):
    parts = {"p": {name: torch.zeros(shape, dtype=PRECISIONS[kind]) for name, (kind, shape) in tensors.items()}}
    assert message_bytes({f"p//{name}": each for name, each in tensors.items()}) == len(codec.encode(parts))


@given(wires(), sized_vectors(), st.integers(0, 9))
@settings(deadline=None)
def test_a_packed_vectors_length_is_the_predicted_one_where_that_is_exact(stages, vector, round_index):
    values, sizes = vector
    place = Place(0, round_index, "ann")
    if np.abs(values).max(initial=0) == LARGEST:
        values = values / 2**10  # so that no scale is beyond float32
    packed = Pipeline(stages).pack(torch.from_numpy(values), sizes, place)
    length = packed_bytes(stages, sizes, place)
    layout, is_exact = packed_layout(stages, sizes, place)
    assert layout.keys() == packed.keys()
    assert is_exact == length.is_exact == (not (stages.golomb or stages.huffman))
    if length.is_exact:
        assert length.bytes == (len(codec.encode({"packed": packed})))
        assert {name: shape for name, (_, shape) in layout.items()} == {n: tuple(t.shape) for n, t in packed.items()}


def test_without_its_place_a_segment_counts_as_the_longest_and_is_not_exact():
    stages, sizes = parse_wire("segments:3+int8"), [11]
    assert packed_bytes(stages, sizes).is_exact is False
    longest = max(packed_bytes(stages, sizes, Place(0, t, "ann")).bytes for t in range(3))
    assert packed_bytes(stages, sizes).bytes == longest


@pytest.mark.parametrize(
    "text",
    [
        *("topk-int8", "topk-int4", "ecolora", "int8+huffman", "int4+huffman", "int3+huffman", "int4:nearest+huffman"),
        *("bf16+huffman", "float32+huffman", "topk:0.1+int4+golomb+huffman", "hadamard:256+int4+huffman"),
        *("topk:0.05+bfloat16+golomb+huffman", "int4:block=64+huffman"),
    ],
)
def test_estimates_are_near_for_values_of_a_gaussian(text):
    stages, sizes, place = parse_wire(text), [8192] * 20, Place(0, 0, "ann")
    values = torch.from_numpy(np.random.default_rng(0).standard_normal(sum(sizes)))
    got = len(codec.encode({"packed": Pipeline(stages).pack(values, sizes, place)}))
    assert packed_bytes(stages, sizes, place).bytes == pytest.approx(got, rel=0.04)


def test_huffman_codes_of_four_symbols_by_hand():
    # 0.4, 0.3, 0.2, 0.1 -> lengths 1, 2, 3, 3: 0.4 + 0.6 + 0.6 + 0.3 = 1.9.
    assert huffman_bits([0.4, 0.3, 0.2, 0.1]) == pytest.approx(1.9)
