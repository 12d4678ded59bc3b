"""Buffered rounds: a step every so many updates, who is under way stays so, and a stop changes nothing."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_eval.machines.machine import Machine
from fedllm_train.participation.buffered import BufferedClients
from fedllm_train.participation.cohort_rules import sample_cohort
from tests.train.participation.drawn_machines import asking, machine_tables, simulated


def rule_of(table, buffer_size, concurrency, **changes):
    named = {"rule": "uniform", "seed": 1, **changes}
    return BufferedClients(client_ids=sorted(table), buffer_size=buffer_size, concurrency=concurrency, **named)


@st.composite
def buffers(draw):
    table = draw(machine_tables(min_size=2))
    buffer_size = draw(st.integers(1, len(table)))
    return table, rule_of(
        table,
        buffer_size,
        draw(st.integers(1, len(table))),
        max_staleness=draw(st.sampled_from([None, 0, 2])),
    )


@given(buffers())
@settings(max_examples=100, deadline=None)
def test_everybody_who_was_asked_is_used_named_or_still_under_way(drawn):
    table, rule = drawn
    engine, asked, seen = simulated(table), [], []
    for step in range(5):
        replies = list(rule.replies(engine, step, asking(step, asked)))
        names = [reply.client_id for reply in replies]
        assert names == sorted(set(names))
        used = [reply for reply in replies if reply.message is not None]
        assert len(used) <= rule.buffer_size
        # A step of fewer is made only when everybody has replied.
        assert len(used) == rule.buffer_size or (len(names) == len(table) and not engine.under_way())
        assert len(engine.under_way()) <= rule.concurrency
        if rule.max_staleness is not None:
            assert all(step - reply.step <= rule.max_staleness for reply in used)
        seen += [(reply.client_id, reply.step) for reply in replies]
    assert len(set(asked)) == len(asked)  # nobody is asked twice for a step
    under_way = [(each.client_id, each.step) for each in engine.under_way()]
    assert sorted(seen + under_way) == sorted(asked)


@given(buffers(), st.integers(0, 4), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_stopped_after_any_step_and_asked_again_it_goes_on_as_before(drawn, stop_after, num_seats):
    table, rule = drawn

    def steps(engine, first, last):
        return [list(rule.replies(engine, step, asking(step))) for step in range(first, last)]

    engine = simulated(table)
    whole = steps(engine, 0, 6)
    before = simulated(table)
    begun = steps(before, 0, stop_after + 1)
    after = simulated(table, now=before.now, num_seats=num_seats)
    for each in before.under_way():
        task = asking(each.step)(each.client_id)
        after.submit([replace(task, asked=each.asked, num_steps=each.num_steps)])
    assert begun + steps(after, stop_after + 1, 6) == whole
    assert after.now == engine.now


@given(st.integers(1, 9), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_clients_that_are_all_alike_make_the_cohorts_of_synchronous_rounds(cohort_size, seed):
    # Messages are of one length, so all arrive at one moment.
    alike = Machine(download_mbit=1.0, upload_mbit=1.0, flops=1.0)
    table = {f"c{index}": alike for index in range(9)}
    rule, engine = rule_of(table, cohort_size, cohort_size, seed=seed), simulated(table)
    for step in range(4):
        replies = list(rule.replies(engine, step, asking(step)))
        assert {reply.step for reply in replies} == {step}
        cohort = sample_cohort(sorted(table), cohort_size, seed=seed, round_index=step)
        assert [reply.client_id for reply in replies] == cohort
        assert engine.under_way() == []


def test_a_client_that_is_done_makes_room_for_another_at_once():
    fast = Machine(download_mbit=1.0, upload_mbit=1.0, flops=20.0)
    table = {"a": fast, "b": fast, "c": fast, "z": replace(fast, flops=0.02)}
    asked = []
    # One machine takes 1,000 s, the others one: while it is under way, all others give their update.
    rule, engine = rule_of(table, 3, 2), simulated(table)
    replies = list(rule.replies(engine, 0, asking(0, asked)))
    assert [reply.client_id for reply in replies] == ["a", "b", "c"]
    assert engine.now < 4
    assert [each.client_id for each in engine.under_way()] == ["z"]
    assert len(asked) == 4
