"""The server's end against sites that answer late, twice, for others or not at all: named, and not believed."""

import time
from collections import deque

import pytest

from fedllm_data.errors import ConfigError, WorkerError
from fedllm_train.engines.engine import Task, replies_of
from fedllm_train.engines.remote.line import Event, Site
from fedllm_train.engines.remote.messages import (
    Begin,
    Done,
    Failed,
    Ready,
    Refused,
    Result,
    SiteFacts,
    SplitFacts,
    Stopped,
    Waiting,
    cut_body,
    job_key,
    read_request,
)
from fedllm_train.engines.remote.remote_engine import RemoteEngine
from fedllm_train.engines.remote.seats import RemoteOptions
from fedllm_train.engines.remote.site_clients import clients_at_sites
from fedllm_train.run_files.open_run import package_versions

RUN = "ab" * 8
SITE_OF = {"ann": "north", "bob": "north", "cyd": "south"}
ROWS = {"ann": 4, "bob": 2, "cyd": 3}
OPTIONS = RemoteOptions(poll=0.05, request=1.0, retry=0.01, join=5.0, unreachable=0.3)
FACTS = {"num_steps": 2, "seconds": 0.1, "train_loss": 1.0}


def honest(request, body):
    """What a good site answers at once."""
    if request.kind == "begin":
        return Ready(digests={}), b""
    if request.kind in ("stop",):
        return Stopped(), b""
    if request.kind == "collect":
        return Done(results=[], lengths=[], unknown=request.keys), b""
    pieces = cut_body(body, request.lengths)
    results = [
        Result(key=job_key(RUN, job, pieces[number]), has_body=True, num_rows=1, facts=FACTS)
        for job, number in zip(request.jobs, request.body_of, strict=True)
    ]
    bodies = [job.client_id.encode() for job in request.jobs]
    return Done(results=results, lengths=[len(each) for each in bodies]), b"".join(bodies)


class FakeLine:
    """Sites that answer as functions say: a message and a body, an event's problem, or nothing."""

    def __init__(self, **sites):
        self.answers = sites
        self.requests, self.largest, self._events = [], 0, deque()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def sites(self):
        return {name: Site(name=name) for name in self.answers}

    def send(self, site, key, header, body, *, seconds):
        request = read_request(header)
        self.requests.append((site, request))
        self.largest = max(self.largest, len(body))
        answer = self.answers[site](request, body)
        if answer is None:
            return
        if isinstance(answer, str):
            self._events.append(Event(site=site, key=key, problem=answer))
        elif isinstance(answer, list):
            self._events.extend(Event(**{"site": site, "key": key, **each}) for each in answer)
        else:
            message, content = answer
            header = message if isinstance(message, dict) else message.header()
            self._events.append(Event(site=site, key=key, header=header, body=content))

    def receive(self, seconds):
        if self._events:
            return self._events.popleft()
        time.sleep(min(seconds, 0.01))
        return None


def engine_of(line, **changes):
    options = RemoteOptions(**{**{name: getattr(OPTIONS, name) for name in OPTIONS.__dataclass_fields__}, **changes})

    def begins(site):
        spec = {"strategy": "fedavg"}
        clients = [name for name, own in SITE_OF.items() if own == site]
        return Begin(run=RUN, spec=spec, clients=clients, num_rounds=1, num_threads=1, lease_seconds=9.0), b""

    return RemoteEngine(line, SITE_OF, ROWS, begins, run=RUN, options=options)


def tasks(*names, step=0):
    return [
        Task(run=RUN, step=step, client_id=name, seed=1, learning_rate=0.1, message=b"m" + name.encode())
        for name in names
    ]


def visited(line, *names, **changes):
    with engine_of(line, **changes) as engine:
        engine.submit(tasks(*names))
        return {reply.client_id: reply for reply in replies_of(engine)}


def test_all_that_a_site_is_asked_goes_in_one_request():
    line = FakeLine(north=honest, south=honest)
    replies = visited(line, "ann", "bob", "cyd")
    assert {name: reply.message for name, reply in replies.items()} == {"ann": b"ann", "bob": b"bob", "cyd": b"cyd"}
    work = [(site, [job.client_id for job in each.jobs]) for site, each in line.requests if each.kind == "work"]
    assert sorted(work) == [("north", ["ann", "bob"]), ("south", ["cyd"])]
    assert [each.kind for _, each in line.requests][-2:] == ["stop", "stop"]


def test_a_line_that_loses_requests_is_asked_again():
    lost = deque([True, False, True, False, False])

    def flaky(request, body):
        return "the relay has ended" if request.kind == "work" and lost and lost.popleft() else honest(request, body)

    replies = visited(FakeLine(north=flaky, south=honest), "ann", "cyd")
    assert all(reply.message is not None for reply in replies.values())


def test_a_site_that_cannot_be_reached_is_lost_and_the_others_go_on():
    def dead(request, body):
        return honest(request, body) if request.kind in ("begin", "stop") else "connection refused"

    replies = visited(FakeLine(north=dead, south=honest), "ann", "cyd")
    assert replies["cyd"].message == b"cyd"
    assert (replies["ann"].message, replies["ann"].kind) == (None, "lost")
    assert "site north could not be reached" in replies["ann"].reason
    assert "connection refused" in replies["ann"].reason


def test_after_the_deadline_a_client_is_late_and_its_answer_is_dropped():
    held = {}

    def slow(request, body):
        if request.kind == "work" and "key" not in held:
            held["key"] = job_key(RUN, request.jobs[0], body)
            return Done(results=[], lengths=[], pending=[held["key"]]), b""
        if request.kind == "collect":
            return Done(results=[], lengths=[], pending=request.keys), b""
        if request.kind == "work":  # of the next round: the old answer comes along
            message, content = honest(request, body)
            late = Result(key=held["key"], has_body=True, num_rows=1, facts=FACTS)
            return Done(results=[late, *message.results], lengths=[4, *message.lengths]), b"late" + content
        return honest(request, body)

    line = FakeLine(north=slow, south=honest)
    with engine_of(line, deadline=0.2) as engine:
        engine.submit(tasks("ann"))
        (first,) = replies_of(engine)
        engine.submit(tasks("ann", step=1))
        (second,) = replies_of(engine)
    assert (first.kind, first.reason) == ("late", "no answer from site north in 0.2 s")
    assert (second.step, second.message) == (1, b"ann")


def test_an_answer_that_comes_twice_or_for_another_client_is_taken_once_or_not():
    def twice(request, body):
        if request.kind != "work":
            return honest(request, body)
        message, content = honest(request, body)
        foreign = Result(key="9" * 64, has_body=True, num_rows=1, facts=FACTS)
        both = Done(
            results=[foreign, *message.results, *message.results], lengths=[1, *message.lengths, *message.lengths]
        )
        return both, b"x" + content + content

    with engine_of(FakeLine(north=twice, south=honest)) as engine:
        engine.submit(tasks("ann"))
        assert [reply.message for reply in replies_of(engine)] == [b"ann"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_rows": 5}, "claims 5 rows, and its site announced 4"),
        ({"facts": {**FACTS, "num_steps": -1}}, "no number of steps"),
        ({"facts": {**FACTS, "num_steps": "2"}}, "no number of steps"),
        ({"facts": {"num_steps": 2}}, "no seconds"),
        ({"facts": {**FACTS, "train_loss": "low"}}, "a training loss that is no number"),
        ({"has_body": False}, "no update and no reason"),
        ({"reason": "its update is not finite"}, "its update is not finite"),
    ],
)
def test_what_no_visit_could_give_is_left_out_by_name(changes, reason):
    def odd(request, body):
        if request.kind != "work":
            return honest(request, body)
        message, content = honest(request, body)
        return Done(results=[message.results[0].model_copy(update=changes)], lengths=message.lengths), content

    reply = visited(FakeLine(north=odd, south=honest), "ann")["ann"]
    assert reply.message is None
    assert reply.kind == "refused"
    assert reason in reply.reason
    assert reply.num_rows == 0


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "done"},
        {"kind": "done", "results": [], "lengths": [3]},
        {"kind": "site"},
        {"nothing": 1},
        {"kind": "done", "results": [{"key": "0" * 64, "num_rows": -1}], "lengths": [0]},
        Stopped(),
        Failed(reason="OutOfMemory"),
    ],
)
def test_an_answer_that_is_none_loses_the_site_and_nothing_else(answer):
    def odd(request, body):
        return (answer, b"") if request.kind in ("work", "collect") else honest(request, body)

    replies = visited(FakeLine(north=odd, south=honest), "ann", "cyd")
    assert replies["cyd"].message == b"cyd"
    assert replies["ann"].kind == "lost"


def test_a_site_that_refuses_the_run_ends_it_before_the_first_round():
    def proud(request, body):
        return (
            (Refused(reason="strategy fedavg is not allowed"), b"")
            if request.kind == "begin"
            else honest(request, body)
        )

    with pytest.raises(WorkerError, match=r"1 of 2 sites are ready and 2 are needed.*north \(strategy fedavg"):
        visited(FakeLine(north=proud, south=honest), "ann")
    replies = visited(FakeLine(north=proud, south=honest), "ann", "cyd", min_sites=1)
    assert replies["cyd"].message == b"cyd"
    assert replies["ann"].kind == "refused"
    assert "site north refused: strategy fedavg is not allowed" in replies["ann"].reason


def test_a_late_joiner_is_begun_with_when_it_is_there():
    state = {"asked": 0}

    def joiner(request, body):
        if request.kind == "begin":
            state["asked"] += 1
            return (Waiting(reason="not approved yet"), b"") if state["asked"] < 4 else honest(request, body)
        return honest(request, body)

    replies = visited(FakeLine(north=honest, south=joiner), "cyd", min_sites=1)
    assert replies["cyd"].message == b"cyd"
    assert state["asked"] >= 4


def test_a_worker_that_was_started_again_is_told_of_the_run_again():
    state = {"ready": 0, "forgot": False}

    def forgetful(request, body):
        if request.kind == "begin":
            state["ready"] += 1
        if request.kind == "work" and not state["forgot"]:
            state["forgot"] = True
            return Waiting(reason="begin first"), b""
        return honest(request, body)

    assert visited(FakeLine(north=forgetful, south=honest), "ann")["ann"].message == b"ann"
    assert state["ready"] == 2


def test_a_site_that_never_gets_ready_is_named():
    def busy(request, body):
        waits = Waiting(reason="the worker is at work for another run"), b""
        return waits if request.kind == "begin" else honest(request, body)

    with pytest.raises(WorkerError, match=r"north \(the worker is at work for another run\)"):
        visited(FakeLine(north=busy, south=honest), "ann", join=0.3)


def approved_after(times):
    """A site whose people let the run begin when it has asked so often; then its model is loaded."""
    state = {"asked": 0}

    def site(request, body):
        if request.kind != "begin":
            return honest(request, body)
        state["asked"] += 1
        if state["asked"] <= times:
            return Waiting(reason="not approved yet", needs_approval=True), b""
        return (Waiting(reason="loading"), b"") if state["asked"] == times + 1 else honest(request, body)

    return site


def test_people_who_must_approve_are_waited_for_beyond_the_time_to_get_ready(caplog):
    line = FakeLine(north=honest, south=approved_after(6))
    assert visited(line, "cyd", join=0.7)["cyd"].message == b"cyd"  # asked after 0.01, 0.02, ..., 0.64 s
    assert [record.getMessage() for record in caplog.records] == [
        f"site south waits for its people: fedllm-train worker approve {RUN} (this command waits meanwhile, and may "
        "be ended and resumed)"
    ]


def test_people_are_not_waited_for_without_end_nor_where_nothing_comes_of_it():
    never = approved_after(10**9)
    with pytest.raises(WorkerError, match=r"south \(not approved yet\)"):
        visited(FakeLine(north=honest, south=never), "cyd", join=0.1, approval=0.3)

    def proud(request, body):
        return (Refused(reason="not with us"), b"") if request.kind == "begin" else honest(request, body)

    with pytest.raises(WorkerError, match=r"north \(not with us\); south \(not approved yet\)"):
        visited(FakeLine(north=proud, south=never), "cyd")


def test_a_site_has_few_tasks_at_once_and_a_message_that_all_get_goes_once():
    drawn, largest = [], []

    def many():
        for number in range(100):
            drawn.append(number)
            yield Task(run=RUN, step=number, client_id="ann", seed=1, learning_rate=0.1, message=b"m" * 1000)

    def watched(request, body):
        if request.kind == "work":
            largest.append((len(request.jobs), len(body)))
        return honest(request, body)

    with engine_of(FakeLine(north=watched, south=honest)) as engine:
        engine.submit(many())
        assert engine.take().client_id == "ann"
        assert len(drawn) <= 17
        assert len(list(replies_of(engine))) == 99
    assert max(largest) == (8, 1000)


def test_a_request_that_never_ends_is_given_up():
    state = {"silent": True}

    def silent(request, body):
        if request.kind == "work" and state.pop("silent", False):
            return None
        return honest(request, body)

    assert visited(FakeLine(north=silent, south=honest), "ann", request=0.1, grace=0.0)["ann"].message == b"ann"


def test_one_refused_request_does_not_end_the_run_for_a_site():
    state = {"first": True}

    def once(request, body):
        if request.kind == "work" and state.pop("first", False):
            return Refused(reason="not this one"), b""
        return honest(request, body)

    with engine_of(FakeLine(north=once, south=honest)) as engine:
        engine.submit(tasks("ann"))
        assert next(replies_of(engine)).reason == "not this one"
        engine.submit(tasks("ann", step=1))
        assert next(replies_of(engine)).message == b"ann"


def facts_of(*ids, **changes):
    told = {"task": "sft", "digest": "d", "rows": dict.fromkeys(ids, 3)}
    split = SplitFacts(**{**told, **{name: changes.pop(name) for name in ("task",) if name in changes}})
    made = {"protocol": 1, "versions": package_versions(), "splits": {"train": split}, "ids": sorted(ids)}
    return SiteFacts(**{**made, **changes})


def roster_of(**sites):
    return clients_at_sites(
        FakeLine(**{name: lambda request, body, f=f: (f, b"") for name, f in sites.items()}), seconds=2
    )


def test_clients_of_all_sites_are_one_roster():
    found = roster_of(
        north=facts_of("bob", "ann", table={"main_language": ["en", None]}), south=facts_of("cyd", table={"size": [1]})
    )
    assert dict(found.sizes) == {"ann": 3, "bob": 3, "cyd": 3}
    assert found.site_of == SITE_OF
    assert found.table.to_pydict() == {
        "client_id": ["ann", "bob", "cyd"],
        "main_language": ["en", None, None],
        "size": [None, None, 1],
    }


@pytest.mark.parametrize(
    ("south", "reason"),
    [
        (facts_of("ann"), "client 'ann' is at the sites 'north' and 'south'"),
        (facts_of("cyd", protocol=2), "speaks protocol 2 and this server 1"),
        (facts_of("cyd", versions={**package_versions(), "torch": "1.0"}), "site 'south' has torch 1.0"),
        (facts_of("cyd", task="preference"), "different tasks"),
        (facts_of("cyd", splits={}, ids=[]), "has no clients to train on"),
        (facts_of("cyd", ids=["eve"]), "not those it has"),
        (facts_of("cyd", table={"size": [1, 2]}), "not those it has"),
        (Refused(reason="not today"), "site 'south' refused: not today"),
    ],
)
def test_sites_that_cannot_train_together_are_refused_by_name(south, reason):
    with pytest.raises(ConfigError, match=reason):
        roster_of(north=facts_of("ann", "bob"), south=south)


def test_a_site_that_does_not_answer_is_named_or_done_without():
    line = FakeLine(north=lambda request, body: (facts_of("ann"), b""), south=lambda request, body: "no such file")
    with pytest.raises(WorkerError, match=r"1 sites answered in 0\.3 s and 2 are needed; south: no such file"):
        clients_at_sites(line, seconds=0.3)
    assert list(clients_at_sites(line, seconds=5, min_sites=1)) == ["ann"]
