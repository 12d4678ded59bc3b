"""Limits of calls, tokens and money hold whatever body, template and endpoint do; what is not billed is not spent."""

import contextlib
import socket

import pytest

from fedllm_data.errors import ConfigError, JudgeError
from fedllm_eval.judging import Endpoint, JudgeRequest, Spend
from tests.eval.judging.judge_server import JudgeServer

USERS = [f"question {index}" for index in range(12)]


class BillingServer(JudgeServer):
    """Bills as endpoints do: the prompt with what its template adds, and as many tokens as it may answer."""

    def __init__(self, template_tokens=0, **options):
        super().__init__(**options)
        self.template_tokens, self.billed = template_tokens, 0

    def act(self, handler, action, model):
        with self.lock:
            body = self.bodies[-1][1] if self.at_once == 1 else next(b for _, b in reversed(self.bodies))
            prompt = sum(len(message["content"]) for message in body["messages"]) + self.template_tokens
            limit = body.get("max_completion_tokens", body.get("max_tokens", 1000))
            back = limit * body.get("n", 1)
            self.billed += prompt + back
            self.usage = (prompt, back)
        super().act(handler, action, model)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"max_tokens": None, "max_completion_tokens": 400},
        {"max_tokens": 300},
        {"n": 3},
        {"max_tokens": None, "max_completion_tokens": 90, "n": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("template_tokens", [0, 37, 300])
@pytest.mark.parametrize("max_parallel", [1, 4])
def test_a_limit_of_tokens_is_never_passed(judge_at, requests_for, body, template_tokens, max_parallel):
    limit = 3000
    with BillingServer(template_tokens) as server:
        judge = judge_at(server, body=body, max_parallel=max_parallel, spend=Spend(max_tokens=limit))
        with contextlib.suppress(JudgeError):
            judge.ask(requests_for(*USERS))
    assert 0 < server.billed <= limit
    # Near the limit it stops early, by what the calls under way had reserved at most.
    assert judge.usage()["prompt_tokens"] + judge.usage()["completion_tokens"] == server.billed


def test_a_limit_of_cost_is_never_passed(judge_at, requests_for):
    with BillingServer(200) as server:
        spend = Spend(max_cost=0.001, prompt_price=1.0, completion_price=1.0)  # 1,000 tokens
        with pytest.raises(JudgeError, match=r"limit of 0\.001"):
            judge_at(server, spend=spend, body={"n": 2}).ask(requests_for(*USERS))
    assert 0 < server.billed <= 1000


@pytest.mark.parametrize("limits", [{"max_tokens": 100}, {"max_cost": 1.0, "prompt_price": 1.0}], ids=str)
def test_a_body_without_any_limit_of_length_and_a_limit_of_spend_do_not_go_together(limits):
    with pytest.raises(ConfigError, match="takes every limit of an answer's length away"):
        Endpoint("http://host/v1", "m", body={"max_tokens": None}, spend=Spend(**limits))
    Endpoint("http://host/v1", "m", body={"max_tokens": None}, spend=Spend(max_calls=3))


@pytest.mark.parametrize("body", [{"n": 0}, {"n": "3"}, {"max_tokens": -1}, {"max_completion_tokens": 1.5}], ids=str)
def test_a_body_that_makes_no_sense_is_refused(body):
    with pytest.raises(ConfigError, match="must be a whole number above 0"):
        Endpoint("http://host/v1", "m", body=body)


def used(judge):
    return judge.usage()["prompt_tokens"], judge.usage()["completion_tokens"]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_is_refused_costs_nothing(judge_at, requests_for, status):
    with JudgeServer(lambda user, nth: (status, {})) as server:
        judge = judge_at(server, max_parallel=1)
        with contextlib.suppress(JudgeError):
            judge.ask(requests_for("a"))
    assert used(judge) == (0, 0)


def test_an_outage_does_not_eat_the_budget(tmp_path, requests_for):
    from fedllm_eval.judging import Judge

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", "m", backoff_seconds=0.001, max_attempts=3, max_parallel=1)
    judge = Judge(endpoint, cache=tmp_path)
    with pytest.raises(JudgeError, match="3 times in a row"):
        judge.ask(requests_for(*USERS))
    assert used(judge) == (0, 0)
    assert judge.usage()["calls"] == 9


def test_a_call_that_broke_off_after_it_was_sent_may_be_billed_and_counts(judge_at, requests_for):
    with JudgeServer(lambda user, nth: "drop" if nth == 0 else None, usage=(20, 10)) as server:
        judge = judge_at(server)
        judge.ask(requests_for("a"))
    # Reserved 8 + 1 + 16 and 50 for the broken call, then 20 and 10 as told.
    assert used(judge) == (25 + 20, 50 + 10)


class SayingServer(JudgeServer):
    """Answers with a given choice, or an error with a given body."""

    def __init__(self, choice=None, error=None):
        super().__init__()
        self.choice, self.error = choice, error

    def act(self, handler, action, model):
        import json

        if self.error is not None:
            self.send(handler, 429, json.dumps({"error": self.error}).encode(), {})
            return
        reply = {"model": model, "choices": [self.choice], "usage": {"prompt_tokens": 30, "completion_tokens": 5}}
        self.send(handler, 200, json.dumps(reply).encode(), {})


@pytest.mark.parametrize("code", ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active"])
def test_an_account_without_money_is_not_asked_again(judge_at, requests_for, code):
    with SayingServer(error={"message": "You exceeded your current quota", "type": code, "code": code}) as server:
        with pytest.raises(JudgeError, match="mend the account"):
            judge_at(server, max_parallel=1).ask(requests_for(*USERS))
    assert server.calls.total() == 1


def test_a_limit_of_speed_is_waited_for(judge_at, requests_for):
    with JudgeServer(lambda user, nth: (429, {}) if nth == 0 else None) as server:
        judge_at(server).ask(requests_for("a"))
    assert server.calls == {"a": 2}


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        ({"message": {"content": ""}, "finish_reason": "content_filter"}, "content filter"),
        ({"message": {"content": "Rat"}, "finish_reason": "content_filter"}, "content filter"),
        (
            {"message": {"content": None, "refusal": "I cannot."}, "finish_reason": "stop"},
            "refused to answer: I cannot",
        ),
    ],
)
def test_an_answer_that_a_filter_took_is_none_and_is_asked_for_again(judge_at, requests_for, choice, why):
    with SayingServer(choice) as server:
        judge = judge_at(server)
        [judgment] = judge.ask(requests_for("a"))
        assert why in judgment.failure
        assert used(judge) == (30, 5)  # paid for all the same
        judge_at(server).ask(requests_for("a"))
    assert server.calls == {"a": 2}


def test_filters_alone_do_not_stop_a_run_that_gets_answers(judge_at, requests_for):
    with JudgeServer() as server:
        judge_at(server).ask(requests_for("b"))
    with SayingServer({"message": {"content": "x"}, "finish_reason": "stop"}) as server:
        judge = judge_at(server, max_parallel=1)
        judge.ask(requests_for("first"))
        server.choice = {"message": {"content": ""}, "finish_reason": "content_filter"}
        judgments = judge.ask(requests_for(*USERS))
    assert all("content filter" in judgment.failure for judgment in judgments)


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk-one\r", "sk one", "sk-é", ""])
def test_a_key_that_is_none_is_refused_and_never_shown(key):
    with pytest.raises(ConfigError) as caught:
        Endpoint("http://host/v1", "m", api_key=key or " ")
    assert "sk" not in str(caught.value)


def test_the_reserve_of_a_call_by_hand():
    spend = Spend(max_tokens=1000)
    request = JudgeRequest(system="abc", user="é", max_tokens=10)
    first = spend.reserve(request, 40)
    assert (first.prompt_tokens, first.completion_tokens) == (3 + 2 + 16, 40)
    assert spend.reserve(request, 40) is None  # until the first tells what a call takes
    spend.settle(first, type(first)(61, 12))
    # 40 tokens above the reserve of 21: the template's 40 + 16 are set aside from now on.
    assert spend.reserve(request, 40).prompt_tokens == 3 + 2 + 16 + 40
    assert spend.used == type(first)(61, 12)
