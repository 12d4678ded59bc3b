"""Pipelines of drawn stages: what comes back, odd values and sizes, what is refused, damaged messages."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from fedllm_train.messages import codec
from fedllm_train.messages.packing import codec_of
from fedllm_train.messages.pipeline import Pipeline
from fedllm_train.messages.place import Place
from fedllm_train.messages.segments import segment_bounds, segment_of
from fedllm_train.messages.vector_cut import cut_of
from fedllm_train.messages.wire_names import PRESETS, parse_wire
from tests.train.messages.drawn_wires import LARGEST, sized_vectors, wires

ANN = Place(0, 3, "ann")
WIRES = [name for name in PRESETS if name != "none"] + ["drive:biased", "int3:nearest:block=5", "bf16+huffman"]


def through_a_message(pipeline, values, sizes, place=ANN):
    """What comes back of a vector that goes through bytes."""
    message = codec.encode({"packed": pipeline.pack(values, sizes, place)})
    return pipeline.unpack(codec.decode(message)["packed"], sizes, place)


@given(wires(), sized_vectors(), st.integers(0, 20))
@settings(deadline=None)
def test_what_comes_back_is_finite_and_zero_where_nothing_was_sent(stages, vector, round_index):
    values, sizes = torch.from_numpy(vector[0]), vector[1]
    place = Place(0, round_index, "ann")
    pipeline = Pipeline(stages)
    try:
        back = through_a_message(pipeline, values, sizes, place)
    except ValueError as error:
        if "beyond float32" in str(error) and float(values.abs().max()) > 1e37:
            return
        raise
    assert back.shape == values.shape
    assert back.dtype == torch.float64
    assert back.isfinite().all()
    segment = None if stages.segments is None else segment_of(place, stages.segments, drawn=stages.segments_drawn)
    cut = cut_of(stages, sizes, segment)
    outside = torch.cat([back[: cut.start], back[cut.stop :]])
    assert not outside.any()
    if stages.topk is not None and stages.hadamard is None:
        assert int((back != 0).sum()) <= cut.num_chosen
    if not values.any():
        assert not back.any()
    assert torch.equal(back, through_a_message(pipeline, values, sizes, place))  # both ends, any time


@given(wires(), sized_vectors())
@settings(deadline=None)
def test_levels_are_off_by_less_than_one_and_numbers_by_their_precision(stages, vector):
    if stages.bits == 1 or stages.segments is not None or stages.topk is not None or stages.hadamard is not None:
        return
    values, sizes = vector
    back = through_a_message(Pipeline(stages), torch.from_numpy(values), sizes).numpy()
    if stages.levels is None:
        tolerance = np.abs(values) * (2.0**-8 if stages.quantise == "bfloat16" else 2.0**-24) + 1e-38
    else:
        groups = cut_of(stages, sizes).groups()
        largest = [np.abs(part).max(initial=0) for part in np.split(values, np.cumsum(groups)[:-1])] if groups else []
        step = np.repeat(np.array(largest), groups) / stages.levels
        # Block scales are rounded up to a float16 share of the largest: 2^-10 of it, or the least one, 2^-24.
        step = step * (1 + 2**-9) + (0 if stages.block is None else 2.0**-23 * np.abs(values).max(initial=0)) + 1e-44
        tolerance = step / 2 * (1 + 1e-6) if stages.nearest else step
    assert (np.abs(back - values) <= tolerance).all()


@pytest.mark.parametrize("text", WIRES)
@pytest.mark.parametrize(
    "values",
    [[], [0.0], [3.0], [-0.0, 0.0, 0.0], [5e-324, -1e-310], [1e-45, -1e-40, 2e-44], [1e37, -1e37, 1.0]],
    ids=["none", "zero", "one", "zeros", "below float32", "denormals", "huge"],
)
def test_odd_vectors_come_back_as_near_as_they_can(text, values):
    back = through_a_message(codec_of(text), torch.tensor(values, dtype=torch.float64), [len(values)])
    assert back.shape == (len(values),)
    assert back.isfinite().all()
    assert float(back.norm()) <= 2 * float(torch.tensor(values, dtype=torch.float64).norm()) + 1e-44


def test_one_value_comes_back_whole_from_drive():
    assert through_a_message(codec_of("drive"), torch.tensor([-3.0], dtype=torch.float64), [1]).tolist() == [-3]


@pytest.mark.parametrize("text", WIRES)
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused_before_it_is_coded(text, odd):
    values = torch.tensor([1.0, odd, 2.0], dtype=torch.float64)
    with pytest.raises(ValueError, match="a value is not finite"):
        codec_of(text).pack(values, [3], ANN)


@pytest.mark.parametrize("text", WIRES)
def test_what_is_beyond_float32_is_refused_and_the_largest_float32_is_not_made_infinite(text):
    with pytest.raises(ValueError, match=r"a value is beyond the largest float32 \(1e\+39\)"):
        codec_of(text).pack(torch.tensor([1e39], dtype=torch.float64), [1], ANN)
    for value in (LARGEST, -LARGEST):
        assert through_a_message(codec_of(text), torch.tensor([value], dtype=torch.float64), [1]).isfinite().all()


def test_a_rotation_whose_scale_is_beyond_float32_is_refused():
    # All of the norm comes into one of two values: sqrt(2) times the largest float32.
    values = torch.full((2,), LARGEST, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"the values need a scale of 4.81e\+38, which is beyond float32"):
        codec_of("drive").pack(values, [2], ANN)


@given(sized_vectors(), st.sampled_from(["topk:1", "topk:1+golomb", "float32", "float32+huffman", "topk:1+huffman"]))
@settings(deadline=None)
def test_a_density_of_one_in_the_adapters_precision_is_the_vector_to_the_bit(vector, text):
    values = torch.from_numpy(vector[0]).float().double()
    back = through_a_message(codec_of(text), values, vector[1])
    assert back.numpy().tobytes() == values.numpy().tobytes()  # minus zero, too


@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([0.1, 0.5, 0.9]))
def test_topk_chooses_as_a_stable_sort_does(seed, count, fraction):
    values = torch.from_numpy(np.random.default_rng(seed).integers(-3, 4, count).astype(float))
    places = torch.sort(values.abs(), descending=True, stable=True).indices[: int(fraction * count)]
    expected = torch.zeros(count, dtype=torch.float64)
    expected[places] = values[places]
    assert torch.equal(through_a_message(codec_of(f"topk:{fraction}"), values, [count]), expected)


# -- rotations and segments -----------------------------------------------------------------------------------------


def test_the_rotation_is_fresh_for_each_round_client_and_direction_and_never_sent():
    values = torch.from_numpy(np.random.default_rng(0).standard_normal(256))
    places = [ANN, Place(0, 4, "ann"), Place(0, 3, "bob"), Place(1, 3, "ann"), Place(0, 3, "ann", "down")]
    packed = [codec_of("drive").pack(values, [256], place) for place in places]
    assert len({tuple(each["signs"].tolist()) for each in packed}) == len(places)
    assert all(set(each) == {"signs", "scales"} for each in packed)
    wrong = codec_of("drive").unpack(packed[0], [256], places[1])
    right = codec_of("drive").unpack(packed[0], [256], places[0])
    assert abs(float(wrong @ values)) < 0.5 * float(right @ values)


def test_a_client_sends_every_segment_in_as_many_rounds_and_clients_differ():
    names = [f"client {i}" for i in range(200)]
    for name in names[:20]:
        assert sorted(segment_of(Place(0, 9 + t, name), 5, drawn=False) for t in range(5)) == [0, 1, 2, 3, 4]
    in_one_round = np.bincount([segment_of(Place(0, 0, name), 5, drawn=False) for name in names], minlength=5)
    assert in_one_round.min() >= 40 - 6 * np.sqrt(200 * 0.2 * 0.8)


def test_drawn_segments_depend_on_seed_round_and_client_and_are_even():
    drawn = [segment_of(Place(0, t, "ann"), 4, drawn=True) for t in range(400)]
    assert np.bincount(drawn, minlength=4).min() >= 100 - 6 * np.sqrt(400 * 0.25 * 0.75)
    # Every fourth round: in turn it would be one segment for ever.
    assert len(set(drawn[::4])) == 4
    assert drawn != [segment_of(Place(1, t, "ann"), 4, drawn=True) for t in range(400)]


@given(st.integers(0, 1000), st.integers(2, 255))
def test_segments_cover_the_vector_once(num_values, count):
    bounds = [segment_bounds(num_values, count, segment) for segment in range(count)]
    assert [stop for _, stop in bounds[:-1]] == [start for start, _ in bounds[1:]]
    assert (bounds[0][0], bounds[-1][1]) == (0, num_values)
    assert max(stop - start for start, stop in bounds) - min(stop - start for start, stop in bounds) <= 1


def test_five_rounds_of_segments_are_the_whole_vector():
    values = torch.arange(1.0, 24.0, dtype=torch.float64)
    pieces = [through_a_message(codec_of("segments:5"), values, [20, 3], Place(0, t, "ann")) for t in range(5)]
    assert torch.equal(torch.stack(pieces).sum(dim=0), values)
    assert all(int((piece != 0).sum()) in (4, 5) for piece in pieces)


def test_the_message_says_which_segment_it_holds():
    pipeline, values = codec_of("segments:5"), torch.arange(1.0, 24.0, dtype=torch.float64)
    packed = pipeline.pack(values, [23], ANN)
    assert packed["segment"].tolist() == [segment_of(ANN, 5, drawn=False)]
    with pytest.raises(ValueError, match="the message names no segment below 5"):
        pipeline.unpack(packed | {"segment": torch.tensor([5], dtype=torch.uint8)}, [23], ANN)


# -- damage ---------------------------------------------------------------------------------------------------------


@given(wires(), sized_vectors(), st.data())
@settings(deadline=None)
def test_a_damaged_message_is_refused_or_gives_finite_values(stages, vector, data):
    values, sizes = torch.from_numpy(np.clip(vector[0], -1e30, 1e30)), vector[1]
    pipeline = Pipeline(stages)
    message = bytearray(codec.encode({"packed": pipeline.pack(values, sizes, ANN)}))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        message = message[: data.draw(st.integers(0, len(message)))]
    try:
        packed = codec.decode(bytes(message))["packed"]
    except (SafetensorError, KeyError, ValueError):
        return  # what messages/wire.py catches
    try:
        back = pipeline.unpack(packed, sizes, ANN)
    except ValueError:
        return
    assert back.shape == values.shape
    assert back.isfinite().all()


def test_a_message_that_claims_another_number_of_values_is_refused():
    values = torch.ones(100, dtype=torch.float64)
    for text in WIRES:
        packed = codec_of(text).pack(values, [100], ANN)
        for sizes in ([10], [100, 700], [10**12]):
            with pytest.raises(ValueError, match=r"message|places|codes|beyond"):
                codec_of(text).unpack(packed, sizes, ANN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": None}, "the message lacks tensor levels"),
        ({"more": torch.ones(1)}, "the message has an unexpected tensor more"),
        ({"levels": torch.zeros(3)}, "tensor levels of the message is float32 of shape"),
        ({"levels": torch.zeros(3, dtype=torch.float8_e4m3fn)}, "values in torch.float8_e4m3fn, which no wire sends"),
        ({"scales": torch.tensor([float("nan")])}, "a scale is no finite number"),
        ({"scales": torch.tensor([-1.0])}, "a scale is no finite number from 0 on"),
        ({"levels": torch.tensor([1, -128, 0], dtype=torch.int8)}, "a level lies beyond 127"),
    ],
)
def test_what_is_wrong_with_a_message_is_said(changes, message):
    packed = codec_of("int8").pack(torch.ones(3, dtype=torch.float64), [3], ANN) | changes
    with pytest.raises(ValueError, match=message):
        codec_of("int8").unpack({name: tensor for name, tensor in packed.items() if tensor is not None}, [3], ANN)


def test_every_preset_can_be_made():
    for name in PRESETS:
        assert (codec_of(name) is None) == (name == "none")
        if name != "none":
            assert codec_of(name).is_unbiased == parse_wire(name).is_unbiased
