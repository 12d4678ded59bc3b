"""Quantisers: golden rates and errors by formula, what their mean is, how long what comes back is."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fedllm_train.messages import codec
from fedllm_train.messages.hadamard import block_sizes, rotate, rotate_bits_back, signs_from
from fedllm_train.messages.packing import codec_of
from fedllm_train.messages.place import Place
from fedllm_train.messages.quantisers import as_bfloat16, from_bfloat16, pack_drive, pack_sign, unpack_sign

NUM_VALUES = 163_840
"""An adapter of rank 16 of the tiny base model."""
SIZES = [8192] * 20


@pytest.fixture(scope="module")
def gaussian():
    return torch.from_numpy(np.random.default_rng(0).standard_normal(NUM_VALUES))


@pytest.fixture(scope="module")
def laplacian():
    return torch.from_numpy(np.random.default_rng(1).laplace(size=NUM_VALUES))


def sent(text, values, sizes=SIZES, round_index=0):
    """Bits a value of a message, and the values that come back."""
    place = Place(0, round_index, "ann")
    packed = codec_of(text).pack(values, sizes, place)
    return 8 * len(codec.encode({"packed": packed})) / len(values), codec_of(text).unpack(packed, sizes, place)


def relative_error(text, values):
    return float((sent(text, values)[1] - values).norm() / values.norm())


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("topk", 4.2),
        ("topk-int8", 1.28),
        ("topk-int4", 0.87),
        ("topk:0.25+int8+golomb", 2.82),
        ("sign", 1.25),
        ("drive", 1.13),
        ("int4:block=64", 4.25),
        ("bf16", 16),
    ],
)
def test_bits_a_value_are_those_known_of_real_updates(gaussian, text, bits):
    assert sent(text, gaussian)[0] == pytest.approx(bits, rel=0.02)


def test_drive_sends_the_bytes_that_were_measured_on_real_runs(gaussian):
    assert len(codec.encode({"packed": codec_of("drive").pack(gaussian, SIZES, Place(0, 0, "ann"))})) == 23_200


# -- errors of a Gaussian and a Laplacian, by formula ---------------------------------------------------------------


def test_drives_error_on_a_gaussian_is_the_one_of_theory(gaussian):
    # |decoded - x|^2 = |x|^2 (d |x|_2^2 / |x|_1^2 - 1), and |x|_1 = d sqrt(2 / pi): sqrt(pi / 2 - 1) = 0.7555.
    assert relative_error("drive", gaussian) == pytest.approx(math.sqrt(math.pi / 2 - 1), abs=0.003)


def test_drives_error_does_not_depend_on_the_distribution(laplacian):
    assert relative_error("drive", laplacian) == pytest.approx(math.sqrt(math.pi / 2 - 1), abs=0.01)


def test_biased_drives_error_is_the_least_that_one_bit_has(gaussian):
    # 1 - (2 / pi): the scale |x|_1 / d minimises the error.
    assert relative_error("drive:biased", gaussian) == pytest.approx(math.sqrt(1 - 2 / math.pi), abs=0.003)


def test_signs_error_follows_from_the_mean_size(gaussian, laplacian):
    # 1 - E|x|^2 / E x^2 for blocks that are large: 1 - 2 / pi, and 1 - 1 / 2 for a Laplacian.
    assert relative_error("sign:4096", gaussian) == pytest.approx(math.sqrt(1 - 2 / math.pi), abs=0.002)
    assert relative_error("sign:4096", laplacian) == pytest.approx(math.sqrt(1 / 2), abs=0.004)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25])
def test_topks_error_is_what_the_distribution_has_below_its_threshold(gaussian, laplacian, fraction):
    t = stats.norm.isf(fraction / 2)  # E[x^2; |x| < t] = 1 - f - 2 t phi(t)
    assert relative_error(f"topk:{fraction}", gaussian) == pytest.approx(
        math.sqrt(1 - fraction - 2 * t * stats.norm.pdf(t)), abs=0.003
    )
    t = -math.log(fraction)  # E[x^2; |x| > t] = f (t^2 + 2 t + 2) of 2
    assert relative_error(f"topk:{fraction}", laplacian) == pytest.approx(
        math.sqrt(1 - fraction * (t**2 + 2 * t + 2) / 2), abs=0.005
    )


@pytest.mark.parametrize(("name", "num_levels"), [("int8", 127), ("int4", 7)])
def test_levels_errors_follow_from_their_step(gaussian, name, num_levels):
    # A step s leaves s^2 / 12 when rounded to the nearest, s^2 / 6 when drawn, as long as it is finer than the values.
    steps = torch.stack([tensor.abs().max() / num_levels for tensor in gaussian.split(SIZES)])
    step = float(steps.square().mean().sqrt())
    assert relative_error(name, gaussian) == pytest.approx(step / math.sqrt(6), rel=0.02)
    assert relative_error(f"{name}:nearest", gaussian) == pytest.approx(step / math.sqrt(12), rel=0.02)


def test_blocks_of_levels_err_less_and_a_rotation_makes_int4_worse_on_flat_values():
    # AdamW's first step: values of nearly one size, which a rotation spreads out to a Gaussian.
    rng = np.random.default_rng(2)
    flat = torch.from_numpy(np.sign(rng.standard_normal(NUM_VALUES)) * (1 + 0.1 * rng.random(NUM_VALUES)))
    assert relative_error("hadamard:256+int4", flat) > 1.1 * relative_error("int4", flat)


def test_bfloat16_keeps_eight_bits_of_every_value(gaussian):
    back = sent("bf16", gaussian)[1]
    assert float(((back - gaussian) / gaussian).abs().max()) <= 2**-8
    assert torch.equal(back.float(), gaussian.float().to(torch.bfloat16).float())  # torch's own rounding


# -- what the mean is -----------------------------------------------------------------------------------------------


def decoded(values, signs, size):
    rotated = rotate(values, signs, size)
    packed = pack_drive(rotated, block_sizes(len(values), size), biased=False)
    bits = np.unpackbits(packed["signs"], count=len(rotated))
    return rotate_bits_back(bits, packed["scales"].astype(float), signs, size)


def over_all_signs(values):
    """The mean of what DRIVE decodes, over all sign patterns of one block."""
    every = itertools.product((1, -1), repeat=len(values))
    return np.mean([decoded(np.array(values), np.array(s, dtype=np.int8), len(values)) for s in every], axis=0)


def test_drive_by_hand():
    # (4, -2): |x|^2 = 20, |x|_1 = 6: 10 / 3 and a scale of 3 that errs least.
    assert pack_drive(np.array([4.0, -2.0]), [2], biased=False)["scales"].tolist() == [np.float32(10 / 3)]
    packed = pack_drive(np.array([4.0, -2.0]), [2], biased=True)
    assert (packed["scales"].tolist(), packed["signs"].tolist()) == ([3.0], [0b01000000])


def test_drives_mean_over_all_signs_is_exact_for_even_vectors_and_not_for_two_values():
    assert over_all_signs([1.0, 1.0, -1.0, 1.0]) == pytest.approx([1, 1, -1, 1])
    assert over_all_signs([1.0, 1.0, 1.0, 0.0]) == pytest.approx([1, 1, 1, 0])
    assert over_all_signs([3.0, 0.0]) == pytest.approx([3, 0])
    assert over_all_signs([2.0, 1.0]) == pytest.approx([2.5, 0])  # what quantisers.py warns of


@given(st.integers(0, 2**32), st.integers(1, 300))
def test_drive_is_exact_in_the_direction_of_the_vector_in_every_draw(seed, count):
    values = np.random.default_rng(seed).standard_normal(count)
    back = decoded(values, signs_from(np.random.default_rng(seed + 1), count), 256)
    assert back @ values == pytest.approx(values @ values, rel=1e-6)


def test_drives_mean_over_rotations_of_all_kinds_is_the_vector():
    """Theorem of Vargaftik et al.: with rotations drawn from all there are, the mean is exact in every direction."""
    rng = np.random.default_rng(0)
    values, num_draws = np.array([2.0, 1.0, -0.5, 0.1]), 4000
    draws = np.empty((num_draws, 4))
    for draw in draws:
        rotation = stats.ortho_group.rvs(4, random_state=rng)
        packed = pack_drive(rotation @ values, [4], biased=False)
        signs = 1.0 - 2.0 * np.unpackbits(packed["signs"], count=4)
        draw[:] = rotation.T @ (signs * packed["scales"])
    assert (np.abs(draws.mean(axis=0) - values) < 6 * draws.std(axis=0) / math.sqrt(num_draws)).all()


def test_with_a_hadamard_matrix_the_mean_is_off_by_less_than_a_hundredth():
    values, num_draws = np.random.default_rng(1).standard_normal(256), 4000
    rng = np.random.default_rng(2)
    mean = np.mean([decoded(values, signs_from(rng, 256), 256) for _ in range(num_draws)], axis=0)
    norm = np.linalg.norm(values)
    # A draw is 0.7555 of the norm away, so this mean would be 0.0119 away if it were exact.
    by_chance = math.sqrt((math.pi / 2 - 1) / num_draws)
    assert np.linalg.norm(mean - values) / norm < math.hypot(1.2 * by_chance, 0.01)


def test_drawn_levels_of_blocks_have_the_value_as_their_mean():
    values = torch.tensor([1.0, -0.3, 0.02, 0.0, 5.0, -2.0, 0.7], dtype=torch.float64)
    draws = torch.stack([sent("int4:block=4", values, [7], t)[1] for t in range(3000)])
    step = torch.tensor([1.0] * 4 + [5.0] * 3) / 7 * 1.001
    assert ((draws.mean(dim=0) - values).abs() <= 6 * 0.5 * step / math.sqrt(3000)).all()
    assert ((draws - values).abs() <= step).all()


# -- how long what comes back is ------------------------------------------------------------------------------------


def test_drives_norm_grows_and_the_biased_scales_does_not(gaussian):
    for text in ("drive", "drive:biased"):
        growth = float(sent(text, gaussian)[1].norm() / gaussian.norm())
        expected = math.sqrt(math.pi / 2) if text == "drive" else math.sqrt(2 / math.pi)
        assert growth == pytest.approx(expected, abs=0.002)
        assert growth <= codec_of(text).norm_growth


@given(st.integers(0, 2**32), st.integers(1, 300), st.sampled_from(["sign", "sign:2", "drive:biased", "topk:0.3"]))
def test_these_never_return_a_longer_vector(seed, count, text):
    rng = np.random.default_rng(seed)
    values = torch.from_numpy(np.sign(rng.standard_normal(count)) * rng.choice([0.1, 0.1, 0.3], count))
    back = sent(text, values, [count])[1]
    assert float(back.norm()) <= float(values.norm()) * (1 + 1e-6)


def test_sign_by_hand():
    # Blocks (1, -3) and (0): means 2 and 0; zero counts as positive and comes back as zero, since its scale is zero.
    packed = pack_sign(np.array([1.0, -3.0, 0.0]), 2)
    assert packed["signs"].tolist() == [0b01000000]
    assert unpack_sign(packed, [2, 1]).tolist() == [2, -2, 0]
    assert unpack_sign(pack_sign(np.array([2.0, 0.0]), 2), [2]).tolist() == [1, 1]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_bfloat16_is_the_nearest_finite_one(value):
    values = np.array([value], dtype=np.float32)
    back = from_bfloat16(as_bfloat16(values))
    assert np.isfinite(back).all()
    expected = torch.from_numpy(values).to(torch.bfloat16).float()
    if expected.isfinite().all():
        assert back.tobytes() == expected.numpy().tobytes()
