"""Places as Golomb-Rice codes: the golden table, both ways, damage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedllm_train.messages.golomb import golomb_parameter, mean_place_bits, read_gaps, write_gaps


@st.composite
def placed(draw):
    num_values = draw(st.integers(2, 3000))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, num_values - 1))
    return np.sort(rng.choice(num_values, count, replace=False)), num_values


@pytest.mark.parametrize(
    ("fraction", "b", "bits"),
    [(0.25, 1, 3.29), (0.1, 3, 4.76), (0.05, 4, 5.79), (0.01, 6, 8.11), (0.001, 9, 11.49)],
)
def test_parameters_and_mean_bits_are_those_of_the_paper(fraction, b, bits):
    assert golomb_parameter(fraction) == b
    assert mean_place_bits(fraction) == pytest.approx(bits, abs=0.005)
    entropy = -(fraction * np.log2(fraction) + (1 - fraction) * np.log2(1 - fraction)) / fraction
    assert entropy < mean_place_bits(fraction) < entropy + 0.1


@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.1, 0.01, 0.001])
def test_real_places_take_the_mean_bits(fraction):
    chosen = np.flatnonzero(np.random.default_rng(0).random(500_000) < fraction)
    bits = 8 * len(write_gaps(chosen, 500_000)) / len(chosen)
    assert bits == pytest.approx(mean_place_bits(fraction), rel=0.03)


def test_codes_by_hand():
    # p = 2/16: b = 2. Gaps 0 and 8: quotients 0 and 2, remainders 0 and 0: 1, 001 | 00, 00.
    assert write_gaps(np.array([0, 9]), 16).tolist() == [0b10010000, 0]
    assert read_gaps(np.array([0b10010000, 0], dtype=np.uint8), 2, 16).tolist() == [0, 9]


@given(placed())
def test_places_come_back(drawn):
    places, num_values = drawn
    codes = write_gaps(places, num_values)
    assert (read_gaps(codes, len(places), num_values) == places).all()


@pytest.mark.parametrize("places", [[0], [99], [0, 99], list(range(99)), list(range(1, 100))])
def test_the_first_and_the_last_place_come_back(places):
    assert read_gaps(write_gaps(np.array(places), 100), len(places), 100).tolist() == places


@given(placed(), st.data())
def test_damaged_codes_are_refused_or_name_places_inside_the_vector(drawn, data):
    places, num_values = drawn
    codes = write_gaps(places, num_values).copy()
    kind = data.draw(st.sampled_from(["flip", "cut", "more", "other"]))
    if kind == "flip":
        codes[data.draw(st.integers(0, len(codes) - 1))] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        codes = codes[: data.draw(st.integers(0, len(codes) - 1))]
    elif kind == "more":
        codes = np.append(codes, np.zeros(data.draw(st.integers(1, 5000)), dtype=np.uint8))
    else:
        codes = np.frombuffer(data.draw(st.binary(max_size=300)), dtype=np.uint8)
    try:
        found = read_gaps(codes, len(places), num_values)
    except ValueError:
        return
    assert len(found) == len(places)
    assert found[0] >= 0
    assert found[-1] < num_values
    assert (np.diff(found) > 0).all()
