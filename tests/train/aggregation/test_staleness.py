"""Old updates: changes with less weight, by hand; punctual ones left alone; methods that cannot take old ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import adapter_sha256
from fedllm_train.aggregation.aggregation import Inbox
from fedllm_train.aggregation.plain import PlainAggregation
from fedllm_train.aggregation.private import ClientPrivacy, PrivateAggregation
from fedllm_train.aggregation.staleness import ServerStates, as_of_today, check_asynchronous_method, staleness_weight
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.engine import Reply
from fedllm_train.messages import codec
from fedllm_train.messages.wire import ServerWire
from fedllm_train.participation.participation_settings import ParticipationSettings
from fedllm_train.privacy.accounting import Guarantee
from fedllm_train.strategies import STRATEGIES
from fedllm_train.strategy import Federation


def state(*values):
    return {"adapter": {"w": torch.tensor(values)}}


def inbox(name="fedavg", **changes):
    config = FederatedConfig(output_dir="unused", strategy=name, **changes)
    sizes = {"a": 1, "b": 3}
    federation = Federation(
        settings=config.method, seed=0, num_clients=2, cohort_size=2, eligible=["a", "b"], sizes=sizes
    )
    wire = ServerWire(config, seed=0, first=lambda client_id: {})
    return Inbox(
        strategy=STRATEGIES[name](federation), wire=wire, start_adapter=state(0.0, 0.0)["adapter"], max_norm=None
    )


def reply(client_id, step, *values, num_rows=1):
    return Reply(step=step, client_id=client_id, message=codec.encode(state(*values)), num_rows=num_rows)


def states(exponent=0.5):
    """Step 5 is being made; at step 2 the adapter was another."""
    return ServerStates(step=5, newest=state(10.0, 20.0), earlier={2: state(1.0, 1.0)}, staleness_exponent=exponent)


def step_of(server, box, *replies):
    made = PlainAggregation(box, server, min_clients=1)
    for each in replies:
        assert made.add(each) is None
    return box.strategy.server_step(server.newest, made.sums(), server.step)["adapter"]["w"].tolist()


def test_an_old_update_moves_todays_adapter_by_half_its_change():
    # tau = 3, (1 + 3) ** -1/2 = 1/2; the change from (1, 1) to (3, 1) is (2, 0): (10 + 1, 20)
    assert step_of(states(), inbox(), reply("a", 2, 3.0, 1.0)) == [11.0, 20.0]
    # with exponent 0 it counts whole, with 1 a quarter
    assert step_of(states(0.0), inbox(), reply("a", 2, 3.0, 1.0)) == [12.0, 20.0]
    assert step_of(states(1.0), inbox(), reply("a", 2, 3.0, 1.0)) == [10.5, 20.0]


def test_it_is_divided_by_the_number_of_updates_and_not_by_their_weights():
    """Nguyen et al. 2022, Algorithm 1: Delta / K."""
    box = inbox(uniform_weights=True)
    # The punctual one's change is (4, 2), the old one's (2, 0) counts half: (10 + (4 + 1) / 2, 20 + (2 + 0) / 2)
    made = step_of(states(), box, reply("a", 2, 3.0, 1.0), reply("b", 5, 14.0, 22.0))
    assert made == [12.5, 21.0]


def test_rows_weigh_beside_staleness():
    # (1 * (10 + 1) + 3 * 14) / 4 = 13.25 and (1 * 20 + 3 * 22) / 4 = 21.5
    made = step_of(states(), inbox(), reply("a", 2, 3.0, 1.0), reply("b", 5, 14.0, 22.0, num_rows=3))
    assert made == [13.25, 21.5]


def test_momentum_takes_the_mean_as_ever():
    # m = 0.9 * 1 + (11 - 10) = 1.9 for the first value, 0.9 * 1 + 0 for the second
    box = inbox("fedavgm")
    server = states()
    moments = {"first_moment": {"w": torch.tensor([1.0, 1.0], dtype=torch.float64)}}
    server = ServerStates(step=5, newest=server.newest | moments, earlier=server.earlier)
    assert step_of(server, box, reply("a", 2, 3.0, 1.0)) == pytest.approx([11.9, 20.9])


@given(
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=2),
    st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=2),
)
@settings(max_examples=60, deadline=None)
def test_a_punctual_update_is_left_as_it_is_to_the_bit(today, update):
    server = ServerStates(step=5, newest=state(*today), earlier={5: state(9.0, 9.0)})
    assert step_of(server, inbox(), reply("a", 5, *update)) == torch.tensor(update).tolist()


@given(st.integers(0, 50), st.floats(0, 3))
def test_weights_fall_with_staleness_from_one(staleness, exponent):
    assert staleness_weight(0, exponent) == 1.0
    assert 0 < staleness_weight(staleness + 1, exponent) <= staleness_weight(staleness, exponent) <= 1


@given(st.lists(st.floats(-100, 100, width=32), min_size=6, max_size=6), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_today_moves_by_the_share_of_the_change(values, weight):
    adapter, anchor, today = ({"w": torch.tensor(values[i : i + 2])} for i in (0, 2, 4))
    moved = as_of_today(adapter, anchor, today, weight)["w"].double() - today["w"].double()
    expected = weight * (adapter["w"].double() - anchor["w"].double())
    assert moved.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert moved.norm() <= (adapter["w"].double() - anchor["w"].double()).norm() + 1e-4


def test_with_privacy_an_old_change_is_clipped_where_it_began_and_then_scaled():
    guarantee = Guarantee(
        clip=1.0,
        noise_multiplier=0.0,
        sampling_rate=1.0,
        expected_cohort=2,
        delta=1e-5,
        num_rounds=9,
        is_sampled=False,
    )
    made = PrivateAggregation(inbox(), states(), ClientPrivacy(guarantee=guarantee, secret=None), anybody="a")
    assert (
        made.add(reply("a", 2, 4.0, 5.0)) is None
    )  # a change of (3, 4) has norm 5: clipped (0.6, 0.8), half (0.3, 0.4)
    assert made.add(reply("b", 5, 10.5, 20.0)) is None  # (0.5, 0) is short enough
    assert made.total()["w"].tolist() == pytest.approx([0.8, 0.4])
    assert made.release()["adapter"]["w"].tolist() == pytest.approx([10.4, 20.2])


# -- method by method -----------------------------------------------------------------------------------------------

TAKES_OLD_UPDATES = {
    *("fedavg", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi", "ffa_lora", "fedavg_ft", "ditto"),
    *("fedsa_lora", "feddpa", "fedrot_lora", "ravan", "fed_sb", "rolora", "fedsvd"),
}
"""The server rule takes a mean of adapters; of the last three, `fed_sb` only with a random frame, the others not."""


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_methods_whose_server_needs_more_than_a_mean_are_refused_old_updates(name):
    settings = ParticipationSettings(participation="buffered", client_table="profile:phone-4g")
    sees = STRATEGIES[name].traits.sees
    if sees == "mean":
        check_asynchronous_method(settings, STRATEGIES[name].traits)
        return
    assert name not in TAKES_OLD_UPDATES
    with pytest.raises(ConfigError, match=r"participation is 'buffered', but .*; use participation synchronous"):
        check_asynchronous_method(settings, STRATEGIES[name].traits)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("rolora", {}, "trains A and B in turns"),
        ("fedsvd", {}, "chooses A again after a round"),
        ("fed_sb", {}, "core_frame is gradient: its first round sends signs"),
        ("fed_sb", {"core_frame": "random"}, None),
    ],
)
def test_methods_whose_rounds_differ_say_so(name, changes, message):
    config = FederatedConfig(output_dir="unused", strategy=name, **changes)
    federation = Federation(settings=config.method, seed=0, num_clients=2, cohort_size=2, is_asynchronous=True)
    if message is None:
        assert STRATEGIES[name](federation)
        return
    with pytest.raises(ConfigError, match=message):
        STRATEGIES[name](federation)


def test_as_of_today_leaves_precision_and_names():
    moved = as_of_today(state(1.0, 2.0)["adapter"], state(1.0, 1.0)["adapter"], state(0.0, 0.0)["adapter"], 1.0)
    assert adapter_sha256(moved) == adapter_sha256(state(0.0, 1.0)["adapter"])
