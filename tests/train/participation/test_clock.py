"""A visit on the clock: times by hand, losses by the stream, windows, and how many steps fit before a deadline."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.machine import Machine, Windows
from tests.train.participation.drawn_machines import STEPS, clock_of, machine_tables

# 1 Mbit a second is 125,000 bytes a second.
ANN = Machine(download_mbit=1.0, upload_mbit=0.5, latency_ms=100.0, flops=4.0)


def test_times_are_those_of_the_lengths_and_operations():
    visit = clock_of({"ann": ANN}).visit("ann", 0, asked=7.0, download_bytes=250_000)
    # 0.1 + 2 s down, 2 * 10 / 4 = 5 s of computing, 0.1 + 1 s up for 62,500 bytes
    ending = visit.ending(62_500)
    assert (ending.kind, ending.at) == ("arrived", pytest.approx(7 + 2.1 + 5 + 1.1))
    seconds = ending.seconds
    assert (seconds.download, seconds.compute, seconds.upload) == pytest.approx((2.1, 5.0, 1.1))


@pytest.mark.parametrize(
    ("at", "part", "num_steps", "upload_bytes", "download_bytes"),
    [
        (6.9, "waiting", 0, 0, 0),
        (7.0, "downloading", 0, 0, 250_000),
        (9.0, "downloading", 0, 0, 250_000),
        (9.1 + 2.6, "training", 5, 0, 250_000),
        (9.1 + 4.99, "training", 9, 0, 250_000),
        (14.1 + 0.05, "uploading", 10, 0, 250_000),
        (14.1 + 0.1 + 0.5, "uploading", 10, 31_250, 250_000),
        (99.0, "uploading", 10, 62_500, 250_000),
    ],
)
def test_what_was_sent_and_done_by_a_moment(at, part, num_steps, upload_bytes, download_bytes):
    spent = clock_of({"ann": ANN}).visit("ann", 0, asked=7.0, download_bytes=250_000).spent(at, 62_500)
    assert (spent.part, spent.num_steps, spent.download_bytes) == (part, num_steps, download_bytes)
    assert spent.upload_bytes == pytest.approx(upload_bytes, abs=1)


def test_a_machine_that_is_closed_begins_when_it_opens_and_loses_its_work_when_it_closes():
    shift = Machine(download_mbit=1.0, upload_mbit=0.5, flops=4.0, windows=Windows(((10.0, 16.0),), 100.0))
    clock = clock_of({"ann": shift})
    short = clock.visit("ann", 0, asked=3.0, download_bytes=0, num_steps=2)
    assert (short.begins, short.ending(0).at, short.ending(0).kind) == (10.0, 11.0, "arrived")
    # 10 steps take 5 s and the upload 2 s: the window closes after 6.
    whole = clock.visit("ann", 0, asked=3.0, download_bytes=0)
    assert (whole.ending(125_000).at, whole.ending(125_000).kind) == (16.0, "closed")
    assert clock.visit("ann", 0, asked=17.0, download_bytes=0).begins == 110.0


def test_a_client_is_lost_as_often_as_its_machine_says_at_any_moment_of_its_visit():
    lossy = Machine(download_mbit=1.0, upload_mbit=1.0, flops=4.0, drop_out=0.3)
    clock = clock_of({"ann": lossy})
    visits = [clock.visit("ann", step, asked=0.0, download_bytes=0) for step in range(4000)]
    shares = [each.lost_share for each in visits if each.lost_share is not None]
    # Binomial(4000, 0.3): deviation 29. A uniform share has mean 0.5, the mean of 1,200 a deviation of 0.0083.
    assert abs(len(shares) - 1200) < 4 * 29
    assert abs(sum(shares) / len(shares) - 0.5) < 4 * 0.0084
    again = [clock.visit("ann", step, asked=50.0, download_bytes=99).lost_share for step in range(4000)]
    assert again == [each.lost_share for each in visits]  # neither the moment nor the message moves a draw
    assert clock_of({"ann": lossy}, seed=4).visit("ann", 0, asked=0.0, download_bytes=0).lost_share != shares[0]


def test_one_rate_for_all_stands_above_the_tables():
    clock = clock_of({"ann": ANN}, drop_out=0.999999)
    assert clock.visit("ann", 0, asked=0.0, download_bytes=0).lost_share is not None
    sure = Machine(download_mbit=1.0, upload_mbit=1.0, flops=1.0, drop_out=0.999999)
    assert clock_of({"ann": sure}, drop_out=0.0).visit("ann", 0, asked=0.0, download_bytes=0).lost_share is None


def test_messages_that_do_not_travel_take_no_time():
    clock = clock_of({"ann": ANN}, travels=False)
    visit = clock.visit("ann", 0, asked=0.0, download_bytes=10**9)
    assert visit.ending(0).at == pytest.approx(5.2)


def test_a_client_without_a_line_is_named():
    clock = clock_of({"ann": Machine(download_mbit=1.0, flops=1.0)})
    with pytest.raises(ConfigError, match="client 'ann' has no upload_mbit"):
        clock.visit("ann", 0, asked=0.0, download_bytes=0).ending(1)


@given(machine_tables(), st.integers(0, 10**5), st.floats(0, 200), st.floats(0, 1e4))
@settings(max_examples=60, deadline=None)
def test_as_many_steps_as_fit_are_one_fewer_than_do_not(table, num_bytes, asked, until):
    clock = clock_of(table, upload_bytes_of=lambda client_id: num_bytes)

    def end(steps):
        visit = clock.visit("c0", 1, asked=asked, download_bytes=num_bytes, num_steps=steps)
        return visit.begins + visit.seconds(num_bytes).total

    found = clock.steps_that_fit("c0", 1, asked=asked, download_bytes=num_bytes, until=until)
    assert 1 <= found <= STEPS
    assert found == 1 or end(found) <= until
    assert found == STEPS or end(found + 1) > until


@given(machine_tables(), st.integers(0, 10**5), st.integers(0, 10**5), st.floats(0, 1e4), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_a_longer_upload_never_ends_a_visit_earlier(table, shorter, more, asked, step):
    visit = clock_of(table).visit("c0", step, asked=asked, download_bytes=100)
    first, second = visit.ending(shorter), visit.ending(shorter + more)
    assert asked <= visit.begins <= first.at <= second.at < math.inf
