"""What a client may send, and how often it may come: it moves the sum by the clip at most, or is left out by name."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_train.adapters.arithmetic import distance
from fedllm_train.aggregation.aggregation import Inbox
from fedllm_train.aggregation.private import ClientPrivacy, PrivateAggregation
from fedllm_train.aggregation.staleness import ServerStates
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.engine import Reply
from fedllm_train.messages import codec
from fedllm_train.messages.wire import ServerWire
from fedllm_train.messages.wire_settings import WireSettings
from fedllm_train.privacy.accounting import Guarantee
from fedllm_train.privacy.adaptive_clip import AdaptiveClip
from fedllm_train.privacy.correlated_noise import CorrelatedNoise
from fedllm_train.privacy.private_memory import PrivateMemory, private_memory
from fedllm_train.privacy.related_noise import related_noise
from fedllm_train.privacy.secret import secret_normals
from fedllm_train.privacy.turns import Turns
from fedllm_train.strategies import STRATEGIES
from fedllm_train.strategy import Federation

SECRET = bytes(range(32))
START = {"adapter": {"a": torch.zeros(4), "b": torch.zeros(2, 2)}}
CLIP = 0.5


def guarantee(**changes):
    given = {"clip": CLIP, "noise_multiplier": 1.0, "sampling_rate": 0.1, "expected_cohort": 10, "delta": 1e-5}
    return Guarantee(**{**given, "num_rounds": 20, **changes})


def privacy(memory=None, **changes):
    made = guarantee(**changes)
    return ClientPrivacy(guarantee=made, secret=SECRET, memory=memory or private_memory(made, {}))


def new_sum(made, step=0, start=START, **wire):
    config = FederatedConfig(output_dir="unused")
    federation = Federation(
        settings=config.method, seed=0, num_clients=2, cohort_size=1, eligible=["ann"], sizes={"ann": 1}
    )
    sent = ServerWire(WireSettings(**wire), seed=0, first=lambda client_id: start["adapter"])
    inbox = Inbox(strategy=STRATEGIES["fedavg"](federation), wire=sent, start_adapter=start["adapter"], max_norm=None)
    return PrivateAggregation(inbox, ServerStates(step=step, newest=start), made, anybody="ann")


def reply(update, client_id="ann", step=0, message=None):
    return Reply(
        step=step, client_id=client_id, message=codec.encode(update) if message is None else message, num_rows=9
    )


def fitting(value, **changes):
    return {"adapter": {"a": torch.full((4,), value), "b": torch.full((2, 2), value), **changes}}


# -- what a client sends --------------------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
REFUSED = {
    "not a number": fitting(NAN),
    "infinite": fitting(INF),
    "infinite the other way": fitting(-INF),
    "one value not a number": fitting(0.1, a=torch.tensor([0.0, 0.0, NAN, 0.0])),
    "an extra tensor": fitting(0.1, c=torch.full((4,), 9.0)),
    "an extra part": {**fitting(0.1), "control": {"a": torch.ones(4)}},
    "a tensor missing": {"adapter": {"a": torch.ones(4)}},
    "no part": {"other": {"a": torch.ones(4)}},
    "another shape": fitting(0.1, a=torch.ones(2, 2)),
    "a longer tensor": fitting(0.1, a=torch.ones(5)),
    "an empty tensor": fitting(0.1, a=torch.ones(0)),
}
CLIPPED = {
    "huge": fitting(3e38),
    "huge with signs": fitting(0.0, a=torch.tensor([3e38, -3e38, 3e38, -3e38])),
    "one huge value": fitting(0.0, a=torch.tensor([1e30, 0.0, 0.0, 0.0])),
    "just above": fitting(CLIP / 8**0.5 * (1 + 1e-6)),
    "negative": fitting(-7.0),
}


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_left_out_with_a_reason_and_moves_nothing(sent):
    total = new_sum(privacy())
    reason = total.add(reply(sent))
    assert reason
    assert "\n" not in reason
    assert all(not tensor.any() for tensor in total.total().values())
    assert total.as_record()["privacy"]["num_clipped"] == 0
    assert total.add(reply(fitting(0.01))) is None  # and what it sends then counts


@pytest.mark.parametrize("sent", CLIPPED.values(), ids=CLIPPED)
def test_what_is_long_moves_the_sum_by_the_clip(sent):
    total = new_sum(privacy())
    assert total.add(reply(sent)) is None
    zero = {name: torch.zeros_like(tensor) for name, tensor in total.total().items()}
    assert distance(total.total(), zero) <= CLIP * (1 + 1e-12)
    assert distance(total.total(), zero) == pytest.approx(CLIP, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_other_precisions_move_no_more_than_the_clip(dtype):
    total = new_sum(privacy())
    top = True if dtype == torch.bool else (torch.finfo if dtype.is_floating_point else torch.iinfo)(dtype).max
    reason = total.add(reply({"adapter": {"a": torch.full((4,), top, dtype=dtype), "b": torch.ones(2, 2)}}))
    zero = {name: torch.zeros_like(tensor) for name, tensor in total.total().items()}
    moved = distance(total.total(), zero)
    assert math.isfinite(moved)
    assert moved <= CLIP * (1 + 1e-12)
    assert (reason is None) or moved == 0


@pytest.mark.parametrize(
    "message", [b"", b"\0" * 7, b"\xff" * 300, b"{}", codec.encode(fitting(1.0))[:-3], b"\x80\x04\x95"]
)
def test_bytes_that_are_no_message_are_left_out(message):
    total = new_sum(privacy())
    assert total.add(reply(None, message=message))
    assert all(not tensor.any() for tensor in total.total().values())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=8, max_size=8),
    st.floats(1e-6, 1e6),
    st.sampled_from([0.25, 1.0]),
)
def test_no_update_moves_the_sum_by_more_than_the_clip(values, clip, weight):
    total = new_sum(privacy(clip=clip))
    update = {"adapter": {"a": torch.tensor(values[:4]), "b": torch.tensor(values[4:]).reshape(2, 2)}}
    if total.add(reply(update)) is None and weight < 1:
        total.add_update(update, weight=weight)
    zero = {name: torch.zeros_like(tensor) for name, tensor in total.total().items()}
    assert distance(total.total(), zero) <= clip * (1 + (weight if weight < 1 else 0)) * (1 + 1e-9)


@pytest.mark.parametrize("wire", ["int8", "int4", "sign", "drive", "topk:0.5"])
def test_a_message_for_another_wire_is_left_out(wire):
    total = new_sum(privacy(), wire=wire)
    assert total.add(reply(fitting(5.0)))
    assert all(not tensor.any() for tensor in total.total().values())


# -- how often it comes ---------------------------------------------------------------------------------------------


def test_a_second_update_to_a_round_is_left_out_by_name_with_every_mechanism():
    turns = related_noise(None, num_rounds=20, min_separation=None, max_participations=None)
    for changes in ({}, {"is_sampled": False}, {"related": turns, "is_sampled": False}):
        made = privacy(**changes)
        total = new_sum(made)
        assert total.add(reply(fitting(9.0))) is None
        once = {name: tensor.clone() for name, tensor in total.total().items()}
        assert "in this round already" in total.add(reply(fitting(9.0)))
        assert distance(total.total(), once) == 0
        assert total.add(reply(fitting(9.0), "bob")) is None
        assert new_sum(made, step=1).add(reply(fitting(9.0), step=1)) is None


def test_who_comes_too_early_or_too_often_is_left_out_by_name():
    related = related_noise(None, num_rounds=20, min_separation=3, max_participations=2)
    made = privacy(related=related, is_sampled=False)
    came = [step for step in range(20) if new_sum(made, step).add(reply(fitting(1.0), step=step)) is None]
    assert came == [0, 3]
    assert "round 4 already" in Turns(related.rule, {"ann": 3}, {"ann": 1}).reason_against("ann", 4)
    assert "as many as the guarantee allows" in new_sum(made, 9).add(reply(fitting(1.0), step=9))


def test_turns_survive_a_stop():
    related = related_noise(None, num_rounds=20, min_separation=5, max_participations=None)
    made = privacy(related=related, is_sampled=False)
    new_sum(made).add(reply(fitting(1.0)))
    again = privacy(private_memory(made.guarantee, made.memory.as_record()), related=related, is_sampled=False)
    assert "already" in new_sum(again, 4).add(reply(fitting(1.0), step=4))
    assert new_sum(again, 5).add(reply(fitting(1.0), step=5)) is None


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.lists(st.sampled_from([0.0, 0.1, 50.0, NAN]), min_size=9, max_size=9))
def test_what_a_client_adds_over_all_rounds_stays_below_the_sensitivity(separation, most, sizes):
    """It comes in every round with whatever it likes; C x moves by no more than sens(C) clips."""
    related = related_noise(None, num_rounds=9, min_separation=separation, max_participations=most)
    made = privacy(related=related, is_sampled=False)
    x = torch.zeros(9, 8, dtype=torch.float64)
    for step, size in enumerate(sizes):
        total = new_sum(made, step)
        total.add(reply(fitting(size), step=step))
        x[step] = torch.cat([tensor.flatten() for tensor in total.total().values()])
    nodes, size = [], 1
    while size <= 9:
        nodes += [x[start : start + size].sum(0) for start in range(0, 9 - size + 1, size)]
        size *= 2
    assert float(torch.stack(nodes).norm()) <= related.sensitivity(9) * CLIP * (1 + 1e-9)


# -- the clip that adapts -------------------------------------------------------------------------------------------

ADAPTIVE = AdaptiveClip(quantile=0.5, learning_rate=0.2, count_noise=5.0, update_noise_multiplier=1.25)


def test_the_clip_moves_by_the_noisy_count_and_is_in_the_record():
    made = privacy(adaptive=ADAPTIVE)
    total = new_sum(made, step=3)
    for client_id, size in (("ann", 0.01), ("bob", 0.01), ("cyd", 9.0)):
        assert total.add(reply(fitting(size), client_id, step=3)) is None
    total.sums()
    noise = 5.0 * float(secret_normals(SECRET, "count noise", round_index=3, name="", shape=(1,))[0])
    # Two of three below the clip: 1/2 + 1/2 - 1/2, over an expected cohort of 10.
    share = 0.5 + (0.5 + noise) / 10
    assert made.memory.clip == pytest.approx(CLIP * math.exp(-0.2 * (share - 0.5)))
    assert total.as_record()["privacy"]["clip"] == CLIP  # that of this round
    assert new_sum(made, step=4).as_record()["privacy"]["clip"] == made.memory.clip


def test_the_next_round_is_clipped_and_noisy_by_the_clip_that_moved():
    made = privacy(PrivateMemory(clip=0.125), adaptive=ADAPTIVE)
    total = new_sum(made, step=1)
    assert total.add(reply(fitting(9.0), step=1)) is None
    zero = {name: torch.zeros_like(tensor) for name, tensor in total.total().items()}
    assert distance(total.total(), zero) == pytest.approx(0.125)
    released = total.release()["adapter"]["a"].double()
    noise = secret_normals(SECRET, "privacy noise", round_index=1, name="a", shape=(4,))
    expected = (total.total()["a"] + torch.from_numpy(noise) * 1.25 * 0.125) / 10
    torch.testing.assert_close(released, expected, rtol=1e-5, atol=1e-7)


def test_a_round_without_clients_moves_the_clip_by_noise_alone():
    made = privacy(adaptive=ADAPTIVE)
    new_sum(made).sums()
    assert made.memory.clip not in (None, CLIP)


# -- related noise --------------------------------------------------------------------------------------------------


def test_the_noise_of_a_round_is_that_of_the_form():
    related = related_noise(None, num_rounds=20, min_separation=None, max_participations=None)
    made = privacy(related=related, is_sampled=False, noise_multiplier=2.0)
    noise = CorrelatedNoise(related.form, SECRET)
    for step in range(4):
        released = new_sum(made, step).release()["adapter"]["a"].double()
        expected = torch.from_numpy(noise.of_round(step, "a", (4,))) * 2.0 * CLIP / 10
        torch.testing.assert_close(released, expected, rtol=1e-5, atol=1e-7)


def test_the_secret_is_in_no_repr():
    related = related_noise(None, num_rounds=20, min_separation=None, max_participations=None)
    made = privacy(related=related, is_sampled=False)
    assert made.related is not None
    assert SECRET.hex() not in repr(made)
    assert repr(SECRET)[2:20] not in repr(made)
