"""The sum is exact whoever is lost, masked vectors say nothing, and too few clients open nothing."""

import gc
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from fedllm_train.privacy.secure_sum.client_side import SumRefused
from fedllm_train.privacy.secure_sum.client_state import ClientState
from fedllm_train.privacy.secure_sum.masks import KeyPair
from fedllm_train.privacy.secure_sum.server_side import SumFailed
from tests.train.privacy.secure_sum.parties import SIZE, Parties, spec_of

EXCHANGES = ("keys", "shares", "vector", "unmask")


def outcome(parties: Parties, lost_at: dict[str, str], server):
    """Go through a round in which clients are lost, each before one exchange; return who is in the sum."""
    left = list(parties.names)
    for exchange, go in zip(
        EXCHANGES,
        (parties.with_keys, parties.with_shares, parties.with_vectors, parties.opened_by),
        strict=True,
    ):
        left = [name for name in left if lost_at.get(name) != exchange]
        if server.problem(left) is not None and exchange != "keys":
            return None
        go(server, left)
        if server.problem(left) is not None:
            return None
    return [name for name in parties.names if lost_at.get(name) in (None, "unmask")]


@pytest.mark.parametrize("bits", [32, 64])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_sum_is_exact_in_the_ring_whoever_is_lost(tmp_path_factory, bits, data):
    names = [f"client {number}" for number in range(data.draw(st.integers(3, 8)))]
    lost = data.draw(st.dictionaries(st.sampled_from(names), st.sampled_from(EXCHANGES)))
    spec = spec_of(bits=bits, threshold=data.draw(st.sampled_from([0.51, 0.67, 1.0])))
    parties = Parties(tmp_path_factory.mktemp("round"), spec, names)
    server = parties.server()
    summed = outcome(parties, lost, server)
    num_keys = sum(lost.get(name) != "keys" for name in names)
    num_last = sum(name not in lost for name in names)
    assert (summed is not None) == (num_last >= max(3, spec.threshold_of(num_keys)))
    if summed is not None:
        assert server.total().tolist() == parties.sum_of(summed)


def test_every_loss_of_two_clients_among_seven_comes_out_exact(tmp_path):
    names = list("abcdefg")
    for number, (pair, at) in enumerate(
        itertools.product(itertools.combinations(names, 2), itertools.product(EXCHANGES, repeat=2))
    ):
        if number % 6:
            continue
        parties = Parties(tmp_path / str(number), spec_of(threshold=0.6), names)
        lost, server = dict(zip(pair, at, strict=True)), parties.server()
        summed = outcome(parties, lost, server)
        assert summed is not None, lost
        assert server.total().tolist() == parties.sum_of(summed), lost


def test_below_the_threshold_it_ends_and_the_server_holds_no_secret(parties):
    server = parties.until_vectors(parties.server())
    assert server.threshold == 5
    secrets = {}
    for name in parties.names:
        kept = ClientState(parties.folder / name).round()
        secrets |= {f"{name} {what}": getattr(kept, what) for what in ("seed", "mask_key", "share_key")}
    parties.opened_by(server, parties.names[:4])
    with pytest.raises(SumFailed, match="4 of its clients were left, and a secure sum of this round needs 5"):
        server.total()
    held = [each for each in gc.get_objects() if isinstance(each, dict)]
    held = [value for each in (*held, vars(server)) for value in list(each.values()) if isinstance(value, bytes)]
    for what, secret in secrets.items():
        assert bytes.fromhex(secret) not in held, what
    # Four shares of a polynomial of degree four fit every seed: what was handed out says nothing.
    assert server.threshold == 5


def test_no_client_answers_for_fewer_than_the_threshold(parties):
    server = parties.until_vectors(parties.server(), parties.names[:4])
    for name in parties.names[:4]:
        with pytest.raises(SumRefused, match="a sum of 4 clients is not opened; 5 are needed"):
            parties.client(name).unmask(0, server.unmask_request(name))


@pytest.mark.parametrize("bits", [32, 64])
def test_a_masked_vector_is_uniform(tmp_path, bits):
    # Of a vector of zeros, so that all that is seen is mask; keys of the test's own, the same in every run.
    parties = Parties(tmp_path, spec_of(bits=bits), ["ann", "bob", "cyd"])
    server = parties.server()
    parties.with_keys(server, parties.names)
    parties.with_shares(server, parties.names)
    state = ClientState(tmp_path / "ann")
    kept = state.round()
    pairs = {name: KeyPair.of(bytes([number]) * 32) for number, name in enumerate(parties.names, start=1)}
    kept.seed, kept.mask_key = "11" * 32, pairs["ann"].private.hex()
    kept.keys = {name: [pair.public.hex(), kept.keys[name][1]] for name, pair in pairs.items()}
    kept.attempt = "0" * 32
    state.keep(kept)
    header = server.train_header()
    object.__setattr__(header, "attempt", kept.attempt)
    size = 1 << 18
    masked = parties.client("ann").masked(0, header, np.zeros(size, dtype=parties.spec.dtype))
    for shift in range(0, bits, 8):
        octets = (masked >> parties.spec.dtype.type(shift)).astype(np.uint8)
        assert chisquare(np.bincount(octets, minlength=256)).pvalue > 1e-3
    pairs_of_top = masked[: size // 2 * 2].reshape(-1, 2) >> parties.spec.dtype.type(bits - 4)
    both = (pairs_of_top[:, 0] * parties.spec.dtype.type(16) + pairs_of_top[:, 1]).astype(np.int64)
    assert chisquare(np.bincount(both, minlength=256)).pvalue > 1e-3


def test_one_vector_looks_otherwise_in_every_attempt(parties):
    seen = set()
    for _ in range(3):
        server = parties.server()
        parties.with_keys(server, parties.names)
        parties.with_shares(server, parties.names)
        seen.add(parties.client("ann").masked(0, server.train_header(), parties.vectors["ann"].copy()).tobytes())
    assert len(seen) == 3


def test_keys_are_fresh_in_every_round_and_identities_are_not(parties):
    keys = {}
    for step in range(2):
        server = parties.server(step)
        parties.with_keys(server, parties.names)
        keys[step] = server.shares_request()
    first, second = (type(server).shares_request(server) for server in (server, server))
    assert first == second
    request = {step: _keys_of(content) for step, content in keys.items()}
    for name in parties.names:
        before, after = request[0][name], request[1][name]
        assert before.identity == after.identity
        assert not {before.mask_key, before.share_key, before.seed_digest} & {
            after.mask_key,
            after.share_key,
            after.seed_digest,
        }


def _keys_of(content: bytes):
    from fedllm_train.privacy.secure_sum.exchanges import SharesRequest

    return {name: signed.keys for name, signed in SharesRequest.from_bytes(content).keys.items()}


def test_a_question_that_is_asked_again_gets_the_same_answer_from_another_process(parties):
    server = parties.server()
    parties.with_keys(server, parties.names)
    assert parties.client("ann").keys(0, server.keys_request()) == parties.client("ann").keys(0, server.keys_request())
    ask = server.shares_request()
    assert parties.client("ann").shares(0, ask) == parties.client("ann").shares(0, ask)
    parties.with_shares(server, parties.names)
    vectors = [
        parties.client("ann").masked(0, server.train_header(), parties.vectors["ann"].copy()).tobytes()
        for _ in range(2)
    ]
    assert vectors[0] == vectors[1]
    parties.with_vectors(server, parties.names)
    ask = server.unmask_request("ann")
    assert parties.client("ann").unmask(0, ask) == parties.client("ann").unmask(0, ask)


def test_when_the_sum_is_open_the_clients_secrets_are_gone_from_the_disk(parties):
    server = parties.until_vectors(parties.server())
    before = ClientState(parties.folder / "ann").round()
    parties.opened_by(server, parties.names)
    text = "".join(path.read_text() for path in (parties.folder / "ann").iterdir())
    for secret in (before.seed, before.mask_key, before.share_key, *before.own_shares[1:]):
        assert secret not in text


def test_a_clients_files_are_its_owners_alone(parties):
    parties.until_vectors(parties.server())
    for path in (parties.folder / "ann").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_round_that_is_made_again_after_a_kill_has_the_same_sum(parties):
    for stop in ("keys", "shares", "vectors"):  # the server dies after it, and begins the round anew
        server = parties.server()
        parties.with_keys(server, parties.names)
        if stop != "keys":
            parties.with_shares(server, parties.names)
        if stop == "vectors":
            parties.with_vectors(server, parties.names)
    first = parties.until_vectors(parties.server())
    parties.opened_by(first, parties.names)
    again = parties.until_vectors(parties.server())
    parties.opened_by(again, parties.names)
    assert first.total().tolist() == again.total().tolist() == parties.sum_of(parties.names)


def test_a_vector_of_another_length_is_left_out(parties):
    server = parties.server()
    parties.with_keys(server, parties.names)
    parties.with_shares(server, parties.names)
    assert "its vector has 4 bytes, not 200" in server.take_vector("ann", bytes(4), SIZE)
    parties.with_vectors(server, parties.names[1:])
    parties.opened_by(server, parties.names[1:])
    assert server.total().tolist() == parties.sum_of(parties.names[1:])
