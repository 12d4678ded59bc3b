"""Drawn wires and drawn vectors, for the property tests of this folder."""

import numpy as np
from hypothesis import strategies as st

from fedllm_train.messages.wire_names import LEVELS, WireStages

LARGEST = float(np.finfo(np.float32).max)

_SIZES = st.sampled_from([2, 4, 16, 64, 256])


@st.composite
def wires(draw):
    """Any stages that fit together."""
    quantise = draw(st.sampled_from(["float32", "bfloat16", "int8", "int4", "int3", "sign", "drive"]))
    found = {"quantise": quantise}
    if draw(st.booleans()):
        found |= {"segments": draw(st.integers(2, 7)), "segments_drawn": draw(st.booleans())}
    if draw(st.booleans()):
        found |= {"topk": draw(st.sampled_from([1e-6, 0.01, 0.1, 0.3, 0.7, 1.0])), "golomb": draw(st.booleans())}
    if quantise == "drive" or draw(st.booleans()):
        found["hadamard"] = draw(_SIZES)
    if quantise in LEVELS:
        found |= {"nearest": draw(st.booleans()), "block": draw(st.none() | st.integers(2, 70))}
    if quantise == "sign":
        found["block"] = draw(st.integers(2, 70))
    if quantise == "drive":
        found["biased"] = draw(st.booleans())
    if quantise not in ("sign", "drive"):
        found["huffman"] = draw(st.booleans())
    return WireStages(**found)


@st.composite
def sized_vectors(draw, most=400):
    """A vector in float64, and the sizes of the tensors it is made of, some of them empty."""
    sizes = draw(st.lists(st.sampled_from([0, 1, 2, 3, 7, 64, 65, 130]), max_size=5))
    while sum(sizes) > most:
        sizes.pop()
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.standard_normal(sum(sizes)) * draw(st.sampled_from([0.0, 1e-310, 1e-42, 1e-8, 1.0, 1e30]))
    for _ in range(draw(st.integers(0, 3)) if sum(sizes) else 0):
        values[draw(st.integers(0, sum(sizes) - 1))] = draw(
            st.sampled_from([0.0, -0.0, 5e-324, -1e-45, 1e-30, -1.0, 1e20, LARGEST, -LARGEST])
        )
    return values, sizes
