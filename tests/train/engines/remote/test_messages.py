"""Messages: every field has its type and range; what is unknown, missing or odd is refused by name."""

import doctest
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedllm_train.engines.engine import Task
from fedllm_train.engines.remote import messages
from fedllm_train.engines.remote.messages import (
    Collect,
    Done,
    MessageError,
    Result,
    ScoreJob,
    VisitJob,
    Work,
    cut_body,
    job_key,
    one_line,
    read_answer,
    read_request,
)

RUN = "ab" * 8
VISIT = VisitJob(step=3, client_id="ann", seed=7, learning_rate=0.1)


def test_doctests():
    assert doctest.testmod(messages).failed == 0


def test_a_job_has_every_field_of_a_task_that_a_host_looks_at():
    of_task = set(Task.__dataclass_fields__) - {"run", "message", "asked"}  # asked is the simulated clock's
    assert of_task == set(VisitJob.model_fields) - {"job"}


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ({}, "kind"),
        ({"kind": "nothing"}, "kind"),
        ({"kind": "hello", "protocol": 1, "more": 1}, "hello.more"),
        ({"kind": "hello", "protocol": True}, "hello.protocol"),
        ({"kind": "stop", "run": "../../etc"}, "stop.run"),
        ({"kind": "stop", "run": "AB" * 8}, "stop.run"),
        ({"kind": "stop"}, "stop.run"),
        ({"kind": "collect", "run": RUN, "keys": ["x"]}, "collect.keys.0"),
        ({"kind": "collect", "run": RUN, "keys": "x"}, "collect.keys"),
        ({"kind": "collect", "run": RUN, "keys": [], "wait_seconds": -1.0}, "collect.wait_seconds"),
        ({"kind": "collect", "run": RUN, "keys": [], "wait_seconds": math.inf}, "collect.wait_seconds"),
        ({"kind": "work", "run": RUN, "jobs": [], "lengths": [], "body_of": []}, "work.jobs"),
        (
            {"kind": "work", "run": RUN, "jobs": [{"job": "run", "code": "1"}], "lengths": [0], "body_of": [0]},
            "work.jobs.0",
        ),
    ],
)
def test_a_request_that_is_none_is_refused_by_its_field(header, field):
    with pytest.raises(MessageError) as error:
        read_request(header)
    assert field.split(".")[-1] in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"step": -1},
        {"step": 1.5},
        {"client_id": ""},
        {"client_id": "x" * 501},
        {"client_id": "\ud800"},
        {"client_id": "ann\x1b[2J"},
        {"client_id": "ann\nbob"},
        {"seed": -1},
        {"learning_rate": math.nan},
        {"learning_rate": "0.1"},
        {"purpose": "steal"},
        {"kept_step": -2},
        {"path": "/etc/passwd"},
    ],
)
def test_a_visit_with_an_odd_value_is_refused(changes):
    job = {**VISIT.header(), **changes}
    with pytest.raises(MessageError, match="jobs"):
        read_request({"kind": "work", "run": RUN, "jobs": [job], "lengths": [0], "body_of": [0]})


@pytest.mark.parametrize("value", [math.nan, math.inf, [1], {"a": 1}, "x" * 501])
def test_facts_are_short_finite_and_flat(value):
    header = Done(results=[], lengths=[]).header()
    header["results"] = [{"key": "0" * 64, "facts": {"train_loss": value}}]
    with pytest.raises(MessageError):
        read_answer(header)


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


@given(st.lists(st.tuples(TEXT, st.integers(0, 2**31 - 1), st.binary(max_size=30)), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_what_is_asked_is_read_as_it_was_meant(drawn):
    jobs = [VisitJob(step=step, client_id=name, seed=step, learning_rate=0.5) for name, step, _ in drawn]
    bodies = [body for _, _, body in drawn]
    work = Work(run=RUN, jobs=jobs, lengths=[len(body) for body in bodies], body_of=list(range(len(jobs))))
    assert read_request(work.header()) == work
    assert [bytes(piece) for piece in cut_body(b"".join(bodies), work.lengths)] == bodies


def test_lengths_that_do_not_add_up_are_refused():
    with pytest.raises(MessageError, match="add up to 5"):
        cut_body(b"abc", [2, 3])


def test_a_job_is_known_by_everything_that_it_asks():
    keys = {
        job_key(run, job, body)
        for run in (RUN, "cd" * 8)
        for job in (
            VISIT,
            VISIT.model_copy(update={"seed": 8}),
            VISIT.model_copy(update={"purpose": "personal"}),
            VISIT.model_copy(update={"client_id": "bob"}),
            ScoreJob(step=3, split="test", clients=["ann"], seed=7),
        )
        for body in (b"", b"x")
    }
    assert len(keys) == 20
    assert job_key(RUN, VISIT, b"x") == job_key(RUN, VISIT.model_copy(), memoryview(b"x"))
    assert read_request(Collect(run=RUN, keys=sorted(keys)).header()).keys == sorted(keys)


def test_a_reason_is_one_line_without_places():
    said = one_line(OSError("no file /srv/hospital/rows.parquet\nTraceback: C:\\data\\x.txt" + "x" * 2000))
    assert "hospital" not in said
    assert "\n" not in said
    assert len(said) <= 1000


def test_a_result_can_be_bare():
    assert Result(key="0" * 64).facts == {}


def test_a_fact_is_no_whole_number_that_overflows():
    with pytest.raises(ValueError, match="train_loss"):
        Result(key="0" * 64, facts={"train_loss": 10**400})
    assert isinstance(Result(key="0" * 64, facts={"train_loss": 1 << 63}).facts["train_loss"], float)
