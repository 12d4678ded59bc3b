"""A judge that is slow, broken, rude or talking nonsense loses no judgment and is asked for none twice."""

import threading
import types

import pytest

from fedllm_data.errors import ConfigError, JudgeError
from fedllm_eval.judging import Endpoint, Spend
from fedllm_eval.judging.reply import retry_after
from tests.eval.judging.judge_server import JudgeServer

USERS = [f"question {index}" for index in range(12)]


def test_a_good_endpoint_is_asked_once_for_each_and_never_again(judge_at, requests_for):
    with JudgeServer() as server:
        judge = judge_at(server, api_key="secret", body={"max_tokens": None, "seed": 3})
        first = judge.ask(requests_for(*USERS))
        again = judge_at(server).ask(requests_for(*reversed(USERS)))
    # A fresh judge without the extra body field asks anew: the body can change the answer.
    assert set(server.calls.values()) == {2}
    assert [judgment.text for judgment in first] == ["Rating: [[7]]"] * 12 == [judgment.text for judgment in again]
    assert {judgment.model for judgment in first} == {"judge-0613"}
    path, body = server.bodies[0]
    assert path == "/v1/chat/completions"
    assert "max_tokens" not in body
    assert (body["seed"], body["temperature"], body["messages"][0]["content"]) == (3, 0.0, "you rate")
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert "secret" not in repr(judge)
    assert judge.usage()["judgments"] == judge.usage()["calls"] == 12


def test_the_second_run_reads_the_disk(judge_at, requests_for):
    with JudgeServer() as server:
        judge_at(server).ask(requests_for(*USERS))
        judge = judge_at(server)
        told = []
        judge.ask(requests_for(*USERS), progress=lambda done, of: told.append((done, of)))
    assert set(server.calls.values()) == {1}
    assert judge.usage()["from_cache"] == 12
    assert told[-1] == (12, 12)


def test_equal_requests_are_asked_once(judge_at, requests_for):
    with JudgeServer() as server:
        judgments = judge_at(server).ask(requests_for("a", "b", "a", "a"))
    assert server.calls == {"a": 1, "b": 1}
    assert len(judgments) == 4


@pytest.mark.parametrize(
    "trouble",
    [(429, {"Retry-After": "0.02"}), (500, {}), (503, {"Retry-After": "soon"}), "nonsense", "cut", "drop"],
    ids=str,
)
def test_what_passes_is_tried_again(judge_at, requests_for, trouble):
    with JudgeServer(lambda user, nth: trouble if nth < 2 else None) as server:
        judge = judge_at(server)
        judgments = judge.ask(requests_for("a", "b"))
    assert [judgment.failure for judgment in judgments] == [None, None]
    assert server.calls == {"a": 3, "b": 3}
    assert judge.usage()["retries"] == 4


def test_an_answer_that_comes_too_slowly_is_asked_for_again(judge_at, requests_for):
    with JudgeServer(lambda user, nth: "block" if nth == 0 else None) as server:
        judgments = judge_at(server, timeout_seconds=0.2).ask(requests_for("a"))
    assert judgments[0].text == "Rating: [[7]]"
    assert server.calls == {"a": 2}


def test_a_wait_that_is_asked_for_is_kept(judge_at, requests_for, monkeypatch):
    waited = []
    with JudgeServer(lambda user, nth: (429, {"Retry-After": "7"}) if user == "a" and nth == 0 else None) as server:
        judge = judge_at(server, max_parallel=1)
        endpoint = judge.backend
        monkeypatch.setattr(endpoint, "put_off", lambda delay, all_calls: waited.append((delay, all_calls)))
        judge.ask(requests_for("a", "b"))
    assert waited == [(7.0, True)]


class Clock:
    """A clock that only waiting moves; `event` makes the events that are waited for."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def event(self):
        clock = self

        class Event(threading.Event().__class__):
            def wait(self, timeout=None):
                if not self.is_set():
                    clock.now += timeout
                return self.is_set()

        return Event()


def test_all_calls_wait_when_one_is_told_to(judge_at, requests_for, monkeypatch):
    clock, calls = Clock(), []
    shim = types.SimpleNamespace(Lock=threading.Lock, Event=clock.event)
    monkeypatch.setattr("fedllm_eval.judging.endpoint.threading", shim)
    monkeypatch.setattr("fedllm_eval.judging.endpoint.time", clock)

    def script(user, nth):
        calls.append((user, nth, clock.now))
        return (429, {"Retry-After": "7"}) if user == "a" and nth == 0 else None

    with JudgeServer(script) as server:
        judge_at(server, max_parallel=1, timeout_seconds=1000.0).ask(requests_for("a", "b"))
    assert calls == [("a", 0, 100.0), ("a", 1, 107.0), ("b", 0, 107.0)]


def test_a_wait_beyond_reason_is_a_failure_with_its_reason(judge_at, requests_for):
    with JudgeServer(lambda user, nth: (429, {"Retry-After": "86400"}) if user == "a" else None) as server:
        judgments = judge_at(server).ask(requests_for("a", "b"))
    assert "HTTP 429" in judgments[0].failure
    assert "86400 s" in judgments[0].failure
    assert judgments[1].failure is None
    assert server.calls == {"a": 1, "b": 1}


def test_dates_are_waited_for_too():
    assert 86_000_000 < retry_after("Fri, 01 Jan 2100 00:00:00 GMT")


def test_a_refused_request_fails_alone_and_is_asked_again_by_the_next_run(judge_at, requests_for):
    refuse = {"on": True}

    def script(user, nth):
        return (400, {}) if user == "too long" and refuse["on"] else None

    with JudgeServer(script) as server:
        judgments = judge_at(server).ask(requests_for("a", "too long", "b"))
        assert judgments[1].failure.startswith("HTTP 400")
        assert "said no" in judgments[1].failure
        refuse["on"] = False
        assert judge_at(server).ask(requests_for("a", "too long", "b"))[1].failure is None
    assert server.calls == {"a": 1, "b": 1, "too long": 2}


@pytest.mark.parametrize("trouble", [(401, {}), (404, {}), "redirect"], ids=str)
def test_where_going_on_makes_no_sense_the_run_stops_at_once(judge_at, requests_for, trouble):
    with JudgeServer(lambda user, nth: trouble) as server:
        with pytest.raises(JudgeError, match="check address, model name and key"):
            judge_at(server, max_parallel=1).ask(requests_for(*USERS))
    assert server.calls.total() == 1


def test_an_endpoint_that_dies_stops_the_run_and_what_is_finished_stays(judge_at, requests_for):
    dead = {"on": True}

    def script(user, nth):
        return (500, {}) if dead["on"] and user >= "question 4" else None

    users = sorted(USERS)
    with JudgeServer(script) as server:
        with pytest.raises(JudgeError, match=r"failed 3 times in a row, last: HTTP 500.*judgments are kept in"):
            judge_at(server, max_parallel=1, max_attempts=2).ask(requests_for(*users))
        finished = [user for user in users if user < "question 4"]
        failed = [user for user in users if user >= "question 4"][:3]
        assert server.calls == dict.fromkeys(finished, 1) | dict.fromkeys(failed, 2)
        dead["on"] = False
        judgments = judge_at(server).ask(requests_for(*users))
    assert all(judgment.text == "Rating: [[7]]" for judgment in judgments)
    assert all(server.calls[user] == 1 for user in finished)


def test_calls_run_side_by_side_within_their_bound(judge_at, requests_for):
    barrier = threading.Barrier(3)

    def script(user, nth):
        barrier.wait(10)  # passes only if three calls are under way at once
        return None

    with JudgeServer(script) as server:
        judge_at(server, max_parallel=3).ask(requests_for(*USERS))
    assert server.most_at_once == 3


def test_an_empty_answer_is_an_answer_and_is_paid_for_once(judge_at, requests_for):
    with JudgeServer(lambda user, nth: " ") as server:
        judge_at(server).ask(requests_for("a"))
        judge_at(server).ask(requests_for("a"))
    assert server.calls == {"a": 1}


def test_calls_are_bounded_to_the_call(judge_at, requests_for):
    with JudgeServer() as server:
        with pytest.raises(JudgeError, match=r"limit of 5 calls is reached.*5 of 12 judgments are kept"):
            judge_at(server, spend=Spend(max_calls=5)).ask(requests_for(*USERS))
        assert server.calls.total() == 5
        judge_at(server, spend=Spend(max_calls=7)).ask(requests_for(*USERS))
    assert set(server.calls.values()) == {1}


def test_tokens_and_cost_never_pass_their_limit(judge_at, requests_for):
    # A request reserves 8 + 10 bytes + 16 + 50 = 84 tokens and uses 34 + 10 = 44.
    with JudgeServer(usage=(34, 10)) as server:
        judge = judge_at(server, max_parallel=1, spend=Spend(max_tokens=200))
        with pytest.raises(JudgeError, match="limit of 200 tokens"):
            judge.ask(requests_for(*USERS))
        # 0 + 84, 44 + 84 and 88 + 84 fit into 200; 132 + 84 does not.
        assert (server.calls.total(), judge.usage()["prompt_tokens"], judge.usage()["completion_tokens"]) == (
            3,
            102,
            30,
        )
    with JudgeServer(usage=(34, 10)) as server:
        spend = Spend(max_cost=0.01, prompt_price=10.0, completion_price=100.0)
        judge = judge_at(server, spend=spend)
        with pytest.raises(JudgeError, match=r"limit of 0\.01 does"):
            judge.ask(requests_for("x" * 500, "y" * 500))
        # Reserved (8 + 500 + 16) * 10 + 50 * 100 = 10,240 millionths; not even the first fits.
        assert server.calls.total() == 0


def test_where_no_usage_is_told_the_reserve_counts(judge_at, requests_for):
    with JudgeServer(usage=(None, None)) as server:
        judge = judge_at(server)
        judgment = judge.ask(requests_for("question 0"))[0]
    assert judgment.prompt_tokens is None
    assert (judge.usage()["prompt_tokens"], judge.usage()["completion_tokens"]) == (34, 50)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "ftp://host/v1"}, "no http address"),
        ({"url": "https://me:secret@host/v1"}, "holds a password"),
        ({"max_parallel": 0}, "must be positive"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ConfigError, match=message):
        Endpoint(**{"url": "http://host/v1", "model": "m", **settings})


def test_a_cost_limit_needs_prices():
    with pytest.raises(ConfigError, match="needs prices"):
        Spend(max_cost=1.0)
