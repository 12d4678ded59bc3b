"""What a client refuses whoever asks, also after a restart: every client here is made anew for every question."""

from dataclasses import replace

import pytest

from fedllm_data.errors import ResumeError
from fedllm_train.privacy.secure_sum.client_side import SumRefused
from fedllm_train.privacy.secure_sum.client_state import ClientState
from fedllm_train.privacy.secure_sum.exchanges import (
    KeysRequest,
    OpenShares,
    PublicKeys,
    SharesRequest,
    SignedKeys,
    TrainHeader,
    UnmaskRequest,
)
from fedllm_train.privacy.secure_sum.masks import Context, KeyPair, new_secret, public_identity, sign
from tests.train.privacy.secure_sum.parties import RUN, Parties, spec_of

ANN = "ann"


def lie(request: UnmaskRequest, **changes) -> bytes:
    return replace(request, **changes).to_bytes()


def asked(server, name=ANN) -> UnmaskRequest:
    return UnmaskRequest.from_bytes(server.unmask_request(name))


def test_both_kinds_of_shares_are_never_handed_out_even_in_two_requests(parties):
    server = parties.until_vectors(parties.server())
    honest = asked(server)
    parties.client(ANN).unmask(0, honest.to_bytes())
    other = lie(honest, arrived=[name for name in parties.names if name != "fay"], lost=["fay"])
    with pytest.raises(SumRefused, match="has opened its shares of this attempt before"):
        parties.client(ANN).unmask(0, other)


def test_nor_when_the_lie_comes_first(parties):
    server = parties.until_vectors(parties.server())
    honest = asked(server)
    lied = lie(honest, arrived=[name for name in parties.names if name != "fay"], lost=["fay"])
    opened = OpenShares.from_bytes(parties.client(ANN).unmask(0, lied))
    assert "fay" in opened.keys
    assert "fay" not in opened.seeds
    with pytest.raises(SumRefused, match="before, for another request"):
        parties.client(ANN).unmask(0, honest.to_bytes())


def test_a_client_that_is_said_to_have_arrived_and_to_be_lost_is_refused(parties):
    server = parties.until_vectors(parties.server())
    with pytest.raises(SumRefused, match="'fay' is said to have arrived and to be lost"):
        parties.client(ANN).unmask(0, lie(asked(server), lost=["fay"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrived": ["ann", "bob"], "lost": ["cyd", "dan", "eve", "fay"]}, "a sum of 2 clients is not opened; 5 are"),
        ({"arrived": ["ann", "bob", "cyd", "dan"], "lost": ["eve", "fay"]}, "a sum of 4 clients is not opened; 5 are"),
        ({"arrived": ["bob", "cyd", "dan", "eve", "fay"], "lost": ["ann"]}, "a sum that it is not in"),
        ({"arrived": ["ann", "bob", "cyd", "dan", "eve"], "lost": []}, "are not those for whom it was masked"),
        ({"arrived": ["ann", "bob", "cyd", "dan", "eve", "fay", "guy"]}, "are not those for whom it was masked"),
        ({"boxes": {}}, "the boxes are not those of its peers"),
    ],
)
def test_a_sum_of_others_than_it_masked_for_is_not_opened(parties, changes, message):
    server = parties.until_vectors(parties.server())
    with pytest.raises(SumRefused, match=message):
        parties.client(ANN).unmask(0, lie(asked(server), **changes))
    assert ClientState(parties.folder / ANN).round().opened is None


def test_a_name_that_stands_twice_is_refused(parties):
    server = parties.until_vectors(parties.server())
    with pytest.raises(SumRefused, match="arrived names a client twice"):
        parties.client(ANN).unmask(0, lie(asked(server), arrived=[*parties.names, "bob"]))
    twice = server.shares_request().replace(b'"bob": ', b'"ann": ', 1)
    with pytest.raises(SumRefused, match="it names a key twice"):
        parties.client(ANN).shares(0, twice)


def test_nothing_is_opened_before_a_vector_was_masked(parties):
    server = parties.server()
    parties.with_keys(server, parties.names)
    parties.with_shares(server, parties.names)
    parties.with_vectors(server, parties.names[1:])
    request = lie(UnmaskRequest.from_bytes(server.unmask_request(ANN)), arrived=parties.names, lost=[])
    with pytest.raises(SumRefused, match="it has masked no vector in this attempt"):
        parties.client(ANN).unmask(0, request)


def test_a_box_of_another_pair_or_one_that_was_changed_is_refused(parties):
    server = parties.until_vectors(parties.server())
    honest = asked(server)
    swapped = {**honest.boxes, "bob": honest.boxes["cyd"]}
    changed = {**honest.boxes, "bob": honest.boxes["bob"][:-1] + bytes([honest.boxes["bob"][-1] ^ 1])}
    for boxes in (swapped, changed):
        with pytest.raises(SumRefused, match="the box of client 'bob' cannot be opened"):
            parties.client(ANN).unmask(0, lie(honest, boxes=boxes))


def test_a_sum_of_nearly_the_same_clients_is_not_opened_in_a_second_attempt(parties):
    first = parties.until_vectors(parties.server())
    parties.opened_by(first, parties.names)
    again = parties.until_vectors(parties.server(), parties.names[:-1])
    for name in parties.names[:-1]:  # the difference of both sums would be fay's vector
        with pytest.raises(SumRefused, match="has helped to open a sum of other clients in this round before"):
            parties.client(name).unmask(0, again.unmask_request(name))


def test_two_halves_cannot_be_told_of_different_sums(parties):
    # Sums of all and of all but fay, each opened by some: five must answer the same, and there are six.
    server = parties.until_vectors(parties.server())
    answers = {}
    for name in parties.names[:5]:
        honest = asked(server, name)
        for kind, lied in (
            ("all", honest.to_bytes()),
            ("without fay", lie(honest, arrived=parties.names[:5], lost=["fay"])),
        ):
            try:
                parties.client(name).unmask(0, lied)
                answers.setdefault(kind, []).append(name)
            except SumRefused:
                pass
    assert sum(len(names) >= server.threshold for names in answers.values()) == 1


def test_an_old_round_and_an_old_attempt_are_not_answered(parties):
    old = parties.until_vectors(parties.server())
    new = parties.server(1)
    parties.with_keys(new, parties.names)
    for question in (
        lambda: parties.client(ANN).shares(0, old.shares_request()),
        lambda: parties.client(ANN).unmask(0, old.unmask_request(ANN)),
        lambda: parties.client(ANN).masked(0, old.train_header(), parties.vectors[ANN].copy()),
        lambda: parties.client(ANN).shares(1, old.shares_request()),
    ):
        with pytest.raises(SumRefused, match="no keys of this attempt of the round"):
            question()
    with pytest.raises(SumRefused, match="this attempt of the round was made before"):
        parties.client(ANN).keys(0, old.keys_request())


def test_two_vectors_are_never_masked_with_the_same_keys(parties):
    server = parties.server()
    parties.with_keys(server, parties.names)
    parties.with_shares(server, parties.names)
    parties.client(ANN).masked(0, server.train_header(), parties.vectors[ANN].copy())
    with pytest.raises(SumRefused, match="it masked another vector with the same keys before"):
        parties.client(ANN).masked(0, server.train_header(), parties.vectors["bob"].copy())
    fewer = replace(server.train_header(), summed=parties.names[:5])
    with pytest.raises(SumRefused, match="masked its vector in this attempt for other clients before"):
        parties.client(ANN).masked(0, fewer, parties.vectors[ANN].copy())


@pytest.mark.parametrize(
    ("summed", "message"),
    [
        (["ann"], "1 clients would be summed, fewer than the 5"),
        (["ann", "bob", "cyd", "dan"], "4 clients would be summed, fewer than the 5"),
        (["bob", "cyd", "dan", "eve", "fay"], "for clients whose keys it was not told"),
        (["ann", "bob", "cyd", "dan", "eve", "guy"], "for clients whose keys it was not told"),
    ],
)
def test_a_vector_is_not_masked_for_too_few_or_for_strangers(parties, summed, message):
    server = parties.server()
    parties.with_keys(server, parties.names)
    parties.with_shares(server, parties.names)
    with pytest.raises(SumRefused, match=message):
        parties.client(ANN).masked(0, TrainHeader(attempt=server.attempt, summed=summed), parties.vectors[ANN].copy())


def impostor(client_id: str, server, **changes) -> SignedKeys:
    """Keys that the server made itself and signed with an identity of its own."""
    signing = new_secret()
    keys = PublicKeys(
        mask_key=KeyPair.fresh().public,
        share_key=KeyPair.fresh().public,
        seed_digest=new_secret(),
        identity=public_identity(signing),
    )
    keys = replace(keys, **changes)
    context = Context(run=RUN, step=server.step, attempt=server.attempt)
    return SignedKeys(keys=keys, signature=sign(signing, keys.signed_text(context, client_id)))


def test_a_key_of_the_servers_own_in_place_of_a_peers_is_refused_once_the_peer_is_known(parties):
    first = parties.server(0)
    parties.with_keys(first, parties.names)
    parties.with_shares(first, parties.names)  # everybody has pinned everybody
    server = parties.server(1)
    parties.with_keys(server, parties.names)
    request = SharesRequest.from_bytes(server.shares_request())
    forged = replace(request, keys=request.keys | {"bob": impostor("bob", server)})
    with pytest.raises(SumRefused, match="client 'bob' has another identity than before"):
        parties.client(ANN).shares(1, forged.to_bytes())


def test_at_the_first_contact_a_server_that_plays_a_peer_is_not_known(parties):
    """What pinning cannot do, said in docs/secure_sums.md; the identities are in the run folder to be compared."""
    server = parties.server()
    parties.with_keys(server, parties.names)
    request = SharesRequest.from_bytes(server.shares_request())
    forged = replace(request, keys=request.keys | {"bob": impostor("bob", server)})
    parties.client(ANN).shares(0, forged.to_bytes())
    assert ClientState(parties.folder / ANN).peers()["bob"] != parties.server().identities["bob"]


def of_peer(request: SharesRequest, name: str, **changes) -> SharesRequest:
    signed = request.keys[name]
    return replace(request, keys=request.keys | {name: replace(signed, keys=replace(signed.keys, **changes))})


@pytest.mark.parametrize("field", ["mask_key", "share_key", "seed_digest"])
def test_keys_that_their_owner_did_not_sign_are_refused(parties, field):
    server = parties.server()
    parties.with_keys(server, parties.names)
    request = SharesRequest.from_bytes(server.shares_request())
    with pytest.raises(SumRefused, match="'bob' are not signed by its identity for this round"):
        parties.client(ANN).shares(0, of_peer(request, "bob", **{field: new_secret()}).to_bytes())


def test_keys_of_an_earlier_round_are_refused_though_they_were_signed(parties):
    old = parties.server(0)
    parties.with_keys(old, parties.names)
    before = SharesRequest.from_bytes(old.shares_request())
    server = parties.server(1)
    parties.with_keys(server, parties.names)
    request = SharesRequest.from_bytes(server.shares_request())
    replayed = replace(request, keys=request.keys | {"bob": before.keys["bob"]})
    with pytest.raises(SumRefused, match="'bob' are not signed by its identity for this round"):
        parties.client(ANN).shares(1, replayed.to_bytes())


def test_the_keys_of_one_client_under_two_names_are_refused(parties):
    server = parties.server()
    parties.with_keys(server, parties.names)
    request = SharesRequest.from_bytes(server.shares_request())
    for name in ("bob", "guy"):
        double = replace(request, keys=request.keys | {name: request.keys["cyd"]})
        with pytest.raises(SumRefused, match="two clients have one"):
            parties.client(ANN).shares(0, double.to_bytes())


def test_its_own_keys_changed_or_left_out_are_refused(parties):
    server = parties.server()
    parties.with_keys(server, parties.names)
    request = SharesRequest.from_bytes(server.shares_request())
    without = replace(request, keys={name: keys for name, keys in request.keys.items() if name != ANN})
    changed = of_peer(request, ANN, mask_key=new_secret())
    for lied in (without, changed):
        with pytest.raises(SumRefused, match="its own keys are not among those"):
            parties.client(ANN).shares(0, lied.to_bytes())


def test_a_key_with_which_nothing_is_secret_is_refused(parties):
    server = parties.server()
    parties.with_keys(server, parties.names)
    request = SharesRequest.from_bytes(server.shares_request())
    weak = replace(request, keys=request.keys | {"bob": impostor("bob", server, share_key=bytes(32))})
    with pytest.raises(SumRefused, match="'bob' is one with which nothing is secret"):
        parties.client(ANN).shares(0, weak.to_bytes())


def test_too_few_and_too_many_clients_get_no_shares(tmp_path):
    parties = Parties(tmp_path, spec_of(max_clients=5), list("abcdef"))
    server = parties.server()
    parties.with_keys(server, parties.names[:2])
    with pytest.raises(SumRefused, match="there are 2 clients, and a sum is of 3 to 5"):
        parties.client("a").shares(0, server.shares_request())
    parties.with_keys(server, parties.names[2:])
    with pytest.raises(SumRefused, match="there are 6 clients, and a sum is of 3 to 5"):
        parties.client("a").shares(0, server.shares_request())


def test_shares_for_a_second_list_of_peers_are_refused(parties):
    server = parties.server()
    parties.with_keys(server, parties.names)
    parties.client(ANN).shares(0, server.shares_request())
    request = SharesRequest.from_bytes(server.shares_request())
    fewer = replace(request, keys={name: keys for name, keys in request.keys.items() if name != "fay"})
    with pytest.raises(SumRefused, match="it was asked for shares before, for other keys"):
        parties.client(ANN).shares(0, fewer.to_bytes())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"attempt": 3}',
        b'{"attempt": "xyz"}',
        b'{"attempt": "%s", "more": "x"}' % (b"0" * 32),
        b'{"attempt": "%s"' % (b"0" * 32),
        b"[" * 100_000,
        b'{"attempt": 1e999}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_message_is_refused_in_one_line(parties, content):
    for ask in (parties.client(ANN).keys, parties.client(ANN).shares, parties.client(ANN).unmask):
        with pytest.raises(SumRefused, match="what it was sent is no ") as refused:
            ask(0, content)
        assert "\n" not in str(refused.value)


def test_the_server_leaves_out_what_a_lying_client_sends(parties):
    server = parties.server()
    parties.with_keys(server, parties.names)
    answer = parties.client("bob").keys(0, server.keys_request())
    assert "not signed for this round" in server.take_keys("guy", answer)
    assert "cannot be read" in server.take_keys("guy", b"x")
    assert "another identity than before" in server.take_keys("bob", impostor("bob", server).to_bytes())
    shares = parties.client("bob").shares(0, server.shares_request())
    assert "one for each of its peers" in server.take_shares("ann", shares)
    assert "cannot be read" in server.take_shares("ann", b"[]")
    assert "no vector of it is awaited" in server.take_vector("ann", bytes(200), 50)


def test_a_false_share_is_found_out_and_opens_nothing(parties):
    server = parties.until_vectors(parties.server())
    parties.opened_by(server, parties.names[1:])
    opened = OpenShares.from_bytes(parties.client(ANN).unmask(0, server.unmask_request(ANN)))
    false = replace(opened, seeds=opened.seeds | {"cyd": bytes(66)})
    assert server.take_open(ANN, false.to_bytes()) is None
    with pytest.raises(Exception, match="client 'cyd'"):
        server.total()


def test_what_a_client_keeps_is_not_guessed_when_it_was_damaged(parties):
    server = parties.until_vectors(parties.server())
    (parties.folder / ANN / "steps.json").write_text("{")
    with pytest.raises(ResumeError, match="was damaged on disk"):
        parties.client(ANN).unmask(0, server.unmask_request(ANN))


def test_with_noise_a_second_update_of_a_round_and_more_rounds_than_planned_are_refused(tmp_path):
    spec = spec_of(noise=4.0, max_weight=1, num_rounds=1)
    parties = Parties(tmp_path, spec, ["ann", "bob", "cyd"])
    first = parties.until_vectors(parties.server())
    parties.opened_by(first, parties.names)
    again = parties.server()
    parties.with_keys(again, parties.names)
    parties.with_shares(again, parties.names)
    with pytest.raises(SumRefused, match="it gave another update to this round before"):
        parties.client(ANN).masked(0, again.train_header(), parties.vectors["bob"].copy())
    with pytest.raises(SumRefused, match="round 2 is none of the 1 that its noise was sized for"):
        parties.client(ANN).keys(1, KeysRequest(attempt="0" * 32).to_bytes())


def test_with_noise_a_round_that_is_made_again_has_the_same_noise(tmp_path):
    spec = spec_of(noise=100.0, max_weight=1, bits=64)
    parties = Parties(tmp_path, spec, ["ann", "bob", "cyd"])
    totals = []
    for _ in range(2):
        server = parties.until_vectors(parties.server())
        parties.opened_by(server, parties.names)
        totals.append(server.total())
    assert totals[0].tolist() == totals[1].tolist()
    assert totals[0].tolist() != parties.sum_of(parties.names)
