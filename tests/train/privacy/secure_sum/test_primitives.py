"""Shares, streams and keys against published vectors and independent calculations."""

import builtins
import importlib.util

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError
from fedllm_train.privacy.secure_sum import masks
from fedllm_train.privacy.secure_sum.masks import Context, KeyPair, KeyStream, add_stream, agreed_key
from fedllm_train.privacy.secure_sum.shamir import PRIME, SHARE_BYTES, combine, split


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=1, max_size=64), st.data())
def test_any_shares_as_many_as_the_threshold_give_the_secret(secret, data):
    number = data.draw(st.integers(1, 12))
    threshold = data.draw(st.integers(1, number))
    shares = split(secret, number, threshold)
    chosen = data.draw(st.permutations(range(1, number + 1)))[: data.draw(st.integers(threshold, number))]
    assert combine({i: shares[i - 1] for i in chosen}, threshold=threshold, length=len(secret)) == secret
    assert all(len(share) == SHARE_BYTES for share in shares)


def test_fewer_shares_fit_every_secret():
    # With t - 1 points, a polynomial of degree t - 1 goes through them and through any value at 0.
    shares = split(b"\x05", 3, 2)
    point = int.from_bytes(shares[0], "big")
    for secret in (0, 5, 200, PRIME - 1):
        slope = (point - secret) % PRIME
        assert (secret + slope) % PRIME == point
    with pytest.raises(ValueError, match="1 shares are fewer than the 2"):
        combine({1: shares[0]}, threshold=2, length=1)


def test_two_sharings_of_one_secret_have_nothing_in_common():
    first, second = split(bytes(32), 5, 3), split(bytes(32), 5, 3)
    assert not set(first) & set(second)


@pytest.mark.parametrize("change", [b"\xff" * SHARE_BYTES, b"\x01" + bytes(SHARE_BYTES - 1)])
def test_a_share_that_is_none_is_refused_or_gives_another_secret(change):
    shares = dict(enumerate(split(b"secret", 3, 2), start=1))
    shares[1] = change
    with pytest.raises(ValueError, match=r"none of this field|no secret of 6 bytes"):
        combine(shares, threshold=2, length=6)


def test_a_secret_that_is_too_long_and_a_threshold_out_of_reach_are_refused():
    with pytest.raises(ValueError, match="longer than 64"):
        split(bytes(65), 3, 2)
    with pytest.raises(ValueError, match="cannot be reached by 3 shares"):
        split(b"x", 3, 4)


def test_the_stream_is_chacha20_of_rfc_8439():
    # Appendix A.1, test vector 1: key and nonce of zeros, block counter 0.
    block = bytes.fromhex(
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    )
    assert KeyStream(bytes(32)).words(16, np.uint32).tobytes() == block
    assert KeyStream(bytes(32)).words(8, np.uint64).tobytes() == block


def test_a_stream_goes_on_where_it_stopped():
    stream, whole = KeyStream(bytes(32)), KeyStream(bytes(32)).words(100, np.uint32)
    assert np.concatenate([stream.words(7, np.uint32), stream.words(93, np.uint32)]).tolist() == whole.tolist()


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_a_long_stream_comes_off_again_whatever_its_pieces(dtype):
    vector = np.arange((1 << 20) + 5, dtype=dtype)
    add_stream(vector, bytes([1]) * 32, 1)
    assert vector[0] != 0
    assert vector[-1] == dtype((1 << 20) + 4) + KeyStream(bytes([1]) * 32).words((1 << 20) + 5, dtype)[-1]
    add_stream(vector, bytes([1]) * 32, -1)
    assert (vector == np.arange((1 << 20) + 5, dtype=dtype)).all()


def test_keys_are_x25519_of_rfc_7748_and_both_ends_agree():
    # Section 6.1, Bob's keys.
    bob = KeyPair.of(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    ann = KeyPair.fresh()
    assert agreed_key(ann.private, bob.public, b"x") == agreed_key(bob.private, ann.public, b"x")
    assert agreed_key(ann.private, bob.public, b"x") != agreed_key(ann.private, bob.public, b"y")


def test_a_key_that_agrees_with_everybody_is_refused():
    with pytest.raises(ValueError, match="shared key"):
        agreed_key(KeyPair.fresh().private, bytes(32), b"x")


def test_what_a_key_is_bound_to_keeps_its_parts_apart():
    context = Context(run="a", step=1, attempt="0")
    assert context.bound_to("mask", "ab", "c") != context.bound_to("mask", "a", "bc")
    assert context.bound_to("mask", "a") != Context(run="a", step=11, attempt="0").bound_to("mask", "a")


def test_a_box_opens_for_its_pair_its_round_and_its_direction_alone():
    ann, bob, eve = KeyPair.fresh(), KeyPair.fresh(), KeyPair.fresh()
    bound = Context(run="a", step=1, attempt="0").bound_to("share", "ann", "bob")
    back = Context(run="a", step=1, attempt="0").bound_to("share", "bob", "ann")
    box = masks.seal_box(agreed_key(ann.private, bob.public, bound), b"two shares", bound)
    assert masks.open_box(agreed_key(bob.private, ann.public, bound), box, bound) == b"two shares"
    for key, to in (
        (agreed_key(eve.private, ann.public, bound), bound),
        (agreed_key(bob.private, ann.public, bound), back),
        (agreed_key(bob.private, ann.public, back), back),
    ):
        with pytest.raises(ValueError, match="another key, or for another round"):
            masks.open_box(key, box, to)


def test_without_cryptography_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"secure_sum needs cryptography, .* pip install 'fedllm-commons\[secure\]'"):
        masks.check_cryptography()


def test_cryptography_is_imported_when_it_is_used_and_not_before(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        assert not name.startswith("cryptography"), name
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    importlib.reload(masks)
