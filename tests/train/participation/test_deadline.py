"""A round with a deadline: who ends it, who is late, and what becomes of them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_train.participation.deadline import DeadlineCohort
from tests.train.participation.drawn_machines import asking, machine_tables, simulated


def rule_of(table, **changes):
    named = {"wanted": 2, "asked": len(table), "deadline_seconds": 20.0, "rule": "uniform", "seed": 1}
    return DeadlineCohort(client_ids=sorted(table), **named | changes)


@given(machine_tables(), st.integers(1, 5), st.sampled_from([None, 5.0, 40.0]), st.booleans())
@settings(max_examples=100, deadline=None)
def test_everybody_who_was_asked_is_used_named_or_still_under_way(table, wanted, deadline, keeps_late):
    wanted = min(wanted, len(table))
    rule = rule_of(table, wanted=wanted, deadline_seconds=deadline, keeps_late=keeps_late)
    engine, asked, seen = simulated(table), [], []
    for step in range(4):
        begun = engine.now
        replies = list(rule.replies(engine, step, asking(step, asked)))
        assert [reply.client_id for reply in replies] == sorted({reply.client_id for reply in replies})
        punctual = [reply for reply in replies if reply.message is not None and reply.step == step]
        assert len(punctual) <= wanted
        assert engine.now >= begun
        if deadline is not None:
            assert engine.now <= begun + deadline
            assert len(punctual) == wanted or engine.now == begun + deadline or not engine.under_way()
        assert keeps_late or not engine.under_way()
        seen += [(reply.client_id, reply.step) for reply in replies]
    under_way = [(each.client_id, each.step) for each in engine.under_way()]
    assert sorted(seen + under_way) == sorted(asked)


@given(machine_tables(drop_outs=(0.0,), with_windows=False))
@settings(max_examples=30, deadline=None)
def test_without_losses_and_deadline_the_whole_cohort_is_that_of_a_synchronous_round(table):
    rule = rule_of(table, wanted=len(table), deadline_seconds=None)
    replies = list(rule.replies(simulated(table), 0, asking(0)))
    assert [reply.client_id for reply in replies] == sorted(table)
    assert all(reply.message is not None for reply in replies)


@given(machine_tables(drop_outs=(0.0,)), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_no_update_is_staler_than_is_allowed(table, max_staleness):
    rule = rule_of(table, deadline_seconds=3.0, keeps_late=True, max_staleness=max_staleness)
    engine = simulated(table)
    for step in range(6):
        for reply in rule.replies(engine, step, asking(step)):
            if reply.message is not None:
                assert step - reply.step <= max_staleness
            elif reply.kind == "late":
                assert "max_staleness" in reply.reason
        assert all(step - each.step <= max_staleness for each in engine.under_way())


@given(machine_tables(drop_outs=(0.0,), with_windows=False))
@settings(max_examples=60, deadline=None)
def test_partial_work_leaves_no_client_late_that_can_make_one_step(table):
    for until in (3.0, 30.0):
        rule = rule_of(table, wanted=len(table), deadline_seconds=until, is_partial=True)
        engine = simulated(table)
        engine.clock = type(engine.clock)(
            **{**engine.clock.__dict__, "upload_bytes_of": lambda client_id: 150}  # none is longer
        )
        for reply in rule.replies(engine, 0, asking(0)):
            one = engine.clock.visit(reply.client_id, 0, asked=0.0, download_bytes=64, num_steps=1)
            if one.ending(150).at <= until:
                assert reply.message is not None
            assert 0 <= reply.facts["num_steps"] <= 10


def test_an_empty_cohort_makes_an_empty_round_at_once():
    from fedllm_eval.machines.machine import Machine

    table = {"a": Machine(download_mbit=1.0, upload_mbit=1.0, flops=1.0)}
    engine = simulated(table)
    engine.submit([asking(0)("a")])  # still under way, so nobody is free
    rule = rule_of(table, wanted=1, deadline_seconds=5.0, keeps_late=True)
    assert list(rule.replies(engine, 1, asking(1))) == []
    assert engine.now == 5.0
