"""The simulated engine: arrival order whatever the engine within, nobody lost without a word, nothing left behind."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_eval.machines.machine import Machine
from fedllm_train.engines.engine import InProcessEngine, Reply, Task, replies_of
from fedllm_train.engines.shelf import Shelf
from fedllm_train.engines.simulated import SimulatedEngine
from tests.train.participation.drawn_machines import Quick, asking, clock_of, machine_tables, simulated

FAST = Machine(download_mbit=1000.0, upload_mbit=1000.0, flops=20.0)
SLOW = Machine(download_mbit=1000.0, upload_mbit=1000.0, flops=2.0)


@given(machine_tables(), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_replies_come_in_order_of_time_and_client_one_for_each_task(table, step):
    engine = simulated(table)
    engine.submit(map(asking(step), sorted(table, reverse=True)))
    replies = list(replies_of(engine))
    assert sorted(reply.client_id for reply in replies) == sorted(table)
    times = [(reply.clock.arrived, reply.client_id) for reply in replies]
    assert times == sorted(times)
    assert engine.now == times[-1][0]
    assert engine.under_way() == []
    for reply in replies:
        assert (reply.message is None) == (reply.reason is not None)
        assert reply.reason is None or reply.kind in ("lost", "closed")


class Backwards(InProcessEngine):
    """Answers the tasks it was given in the opposite order, as several processes might."""

    def __init__(self, host):
        super().__init__(host)
        self._done = []

    def take(self):
        if not self._done:
            self._done = list(iter(super().take, None))
        return self._done.pop() if self._done else None


@given(machine_tables(), st.integers(2, 9), st.sampled_from([None, 3.0, 30.0]))
@settings(max_examples=60, deadline=None)
def test_the_number_of_seats_and_the_engines_own_order_change_no_reply(table, num_seats, until):
    def replies(engine):
        engine.submit(map(asking(2), table))
        if until is None:
            return list(replies_of(engine))
        found = list(iter(lambda: engine.take_until(until), None))
        engine.wait_until(until)
        return found + engine.stop("the round ended")

    one = replies(simulated(table))
    assert one == replies(SimulatedEngine(Backwards(Quick()), clock_of(table), num_seats=num_seats))
    assert sorted(reply.client_id for reply in one) == sorted(table)


def test_visits_that_cannot_be_in_time_are_not_made():
    host = Quick()
    engine = simulated({"a": FAST, "b": SLOW, "c": SLOW}, host=host)
    engine.submit(map(asking(0), "abc"))
    assert engine.take_until(5.0).client_id == "a"
    assert engine.take_until(5.0) is None
    engine.wait_until(5.0)
    late = engine.stop("the round ended")
    assert host.visits == [("a", 0)]
    # 2 * 10 operations at 2 a second: half of the 10 steps after 5 s, less what the download took.
    assert [(each.client_id, each.kind, each.facts["num_steps"]) for each in late] == [
        ("b", "late", 4),
        ("c", "late", 4),
    ]
    assert {each.reason for each in late} == {"the round ended while it trained"}


def test_a_client_that_was_given_up_before_its_machine_opened_was_sent_nothing():
    from fedllm_eval.machines.machine import Windows

    engine = simulated({"a": replace(FAST, windows=Windows(((50.0, 60.0),), 100.0))})
    engine.submit([asking(0)("a")])
    engine.wait_until(10.0)
    (late,) = engine.stop("the round ended")
    assert (late.download_bytes, late.upload_bytes, late.facts["num_steps"]) == (0, 0, 0)
    assert "waited for its machine" in late.reason


@given(machine_tables(with_windows=False), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_messages_lie_in_the_folder_while_they_wait_and_are_gone_afterwards(tmp_path_factory, table, num_taken):
    spool = tmp_path_factory.mktemp("spool")
    engine = simulated(table, spool=spool)
    engine.submit(map(asking(0), table))
    for _ in range(num_taken):
        engine.take()
    engine.stop("it is over")
    assert list(spool.iterdir()) == []


def test_asked_again_from_where_it_was_asked_a_client_arrives_when_it_would_have():
    engine = simulated({"a": SLOW}, now=100.0)
    engine.submit([replace(asking(3)("a"), asked=96.0)])
    assert engine.take().clock.arrived == pytest.approx(106.0, abs=0.01)


def test_what_is_asked_for_after_the_rounds_passes_and_leaves_who_is_under_way_behind():
    engine = simulated({"a": SLOW, "b": FAST})
    engine.submit(map(asking(0), "ab"))
    engine.take()
    personal = Task(run="key", step=9, client_id="b", purpose="personal", seed=0, learning_rate=1.0, message=b"m")
    engine.submit([personal, replace(personal, client_id="a")])
    assert [(reply.client_id, reply.clock) for reply in replies_of(engine)] == [("b", None), ("a", None)]
    assert engine.take() is not None  # of the rounds


def test_a_host_that_has_no_update_says_so_on_the_clock():
    class Empty:
        def visit(self, task):
            return Reply(step=task.step, client_id=task.client_id, reason="it has no rows")

    engine = simulated({"a": FAST}, host=Empty())
    engine.submit([asking(0)("a")])
    reply = engine.take()
    assert (reply.kind, reply.reason, reply.message) == ("refused", "it has no rows", None)
    assert reply.clock.arrived > 0


def test_one_message_for_all_is_put_down_once(tmp_path):
    shelf, message = Shelf(tmp_path), b"for all"
    numbers = [shelf.put(message) for _ in range(3)]
    assert len(list(tmp_path.iterdir())) == 1
    assert [shelf.pick_up(number) for number in numbers] == [message] * 3
    assert not list(tmp_path.iterdir())
    assert shelf.pick_up(shelf.put(message)) == message  # and once more after it was gone
