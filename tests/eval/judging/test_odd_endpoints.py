"""Endpoints that bill, fail and answer in ways of their own: limits hold, and what cannot work stops at once."""

import contextlib
import json

import pytest

from fedllm_data.errors import ConfigError, JudgeError
from fedllm_eval.judging import Endpoint, Spend
from tests.eval.judging.judge_server import JudgeServer

USERS = [f"question {index}" for index in range(12)]


class Replies(JudgeServer):
    """Gives one body under one status, or several in turn."""

    def __init__(self, *replies):
        super().__init__()
        self.replies = replies

    def act(self, handler, action, model):
        status, body = self.replies[min(self.calls.total(), len(self.replies)) - 1]
        self.send(handler, status, json.dumps(body).encode(), {})


def completion(content="Rating: [[7]]", reason="stop", **usage):
    return {"choices": [{"message": {"content": content}, "finish_reason": reason}], "usage": usage}


def test_an_account_without_money_is_known_however_long_its_message(judge_at, requests_for):
    message = (
        "You exceeded your current quota, please check your plan and billing details. For more information on this "
        "error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
    )
    error = {"message": message, "type": "insufficient_quota", "param": None, "code": "insufficient_quota"}
    with Replies((429, {"error": error})) as server:
        with pytest.raises(JudgeError, match="mend the account"):
            judge_at(server, max_parallel=1).ask(requests_for(*USERS))
    assert server.calls.total() == 1


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        # Thinking is billed, and told in the total alone.
        ({"prompt_tokens": 30, "completion_tokens": 5, "total_tokens": 430}, (30, 400)),
        ({"prompt_tokens": 30, "completion_tokens": 5, "total_tokens": 35}, (30, 5)),
        # Not counted: the reserve, 8 + 1 bytes + 16 and 50.
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (25, 50)),
        ({"prompt_tokens": 30, "completion_tokens": 0}, (25, 50)),
    ],
    ids=str,
)
def test_what_was_billed_counts_however_it_is_told(judge_at, requests_for, usage, counted):
    with Replies((200, completion(**usage))) as server:
        judge = judge_at(server)
        judge.ask(requests_for("a"))
    assert (judge.usage()["prompt_tokens"], judge.usage()["completion_tokens"]) == counted


def test_an_endpoint_that_tells_zeros_does_not_pass_a_limit(judge_at, requests_for):
    with Replies((200, completion(prompt_tokens=0, completion_tokens=0))) as server:
        with contextlib.suppress(JudgeError):
            judge_at(server, max_parallel=1, spend=Spend(max_tokens=300)).ask(requests_for(*USERS))
    # Each may take 8 + 10 bytes + 16 + 50 = 84.
    assert server.calls.total() == 3


def test_where_two_limits_of_length_are_set_the_larger_is_reserved():
    # An older server follows max_tokens and does not know the newer name.
    endpoint = Endpoint("http://127.0.0.1:9/v1", "m", body={"max_completion_tokens": 10}, spend=Spend(max_tokens=100))
    from fedllm_eval.judging import JudgeRequest

    with pytest.raises(JudgeError, match="does not allow another call"):
        endpoint.ask([JudgeRequest(system="", user="hi", max_tokens=500)], lambda at, judgment: None)


def test_an_answer_broken_off_by_an_error_is_asked_again(judge_at, requests_for):
    broken, whole = completion("Rating: [[1", "error", prompt_tokens=9, completion_tokens=2), completion()
    with Replies((200, broken), (200, whole)) as server:
        (judgment,) = judge_at(server).ask(requests_for("a"))
    assert judgment.text == "Rating: [[7]]"


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "thinking", "thinking": [], "text": None}, {"type": "text", "text": "Rating: [[7]]"}],
        ["Rating: [[7]]"],
    ],
    ids=["thinking", "texts"],
)
def test_parts_of_any_kind_are_read(judge_at, requests_for, content):
    with Replies((200, completion(content))) as server:
        (judgment,) = judge_at(server).ask(requests_for("a"))
    assert (judgment.text, server.calls.total()) == ("Rating: [[7]]", 1)


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1/v1",
        "http://host:abc/v1",
        "http://host:99999/v1",
        "http://host/v 1",
        "http://hôst/v1",
        "http://h\n/",
    ],
)
def test_an_address_that_is_none_is_refused_before_anything_is_asked(url):
    with pytest.raises(ConfigError, match="is no http address"):
        Endpoint(url, "m")


@pytest.mark.parametrize("body", [{"stream": True}, {"messages": []}], ids=str)
def test_a_body_that_takes_the_question_or_the_answer_away_is_refused(body):
    with pytest.raises(ConfigError, match="leave both out"):
        Endpoint("http://host/v1", "m", body=body)


def test_an_account_without_money_may_be_told_by_a_bad_request(judge_at, requests_for):
    refused = {"error": {"message": "Billing hard limit has been reached", "code": "billing_hard_limit_reached"}}
    with Replies((200, completion()), (400, refused)) as server:
        with pytest.raises(JudgeError, match="mend the account"):
            judge_at(server, max_parallel=1).ask(requests_for(*USERS))
    assert server.calls.total() == 2


def test_a_bad_request_that_quotes_the_question_says_nothing_of_the_account(judge_at, requests_for):
    quoting = {"error": {"message": "cannot take: what does insufficient_quota mean?", "code": "context_length"}}
    with Replies((200, completion()), (400, quoting), (200, completion())) as server:
        judgments = judge_at(server, max_parallel=1).ask(requests_for("a", "b", "c"))
    assert sum(judgment.failure is not None for judgment in judgments) == 1


@pytest.mark.parametrize(("status", "counted"), [(504, 25 + 20), (524, 25 + 20), (408, 25 + 20), (503, 20)])
def test_what_a_gateway_did_not_wait_for_may_be_billed(judge_at, requests_for, status, counted):
    with Replies((status, {}), (200, completion(prompt_tokens=20, completion_tokens=5))) as server:
        judge = judge_at(server)
        judge.ask(requests_for("a"))
    assert judge.usage()["prompt_tokens"] == counted


@pytest.mark.parametrize("content", ["", None, "\n"])
def test_an_answer_that_thinking_left_no_room_for_is_no_judgment(judge_at, requests_for, content):
    spent = completion(content, "length", prompt_tokens=20, completion_tokens=50)
    with Replies((200, spent), (200, completion())) as server:
        (first,) = judge_at(server).ask(requests_for("a"))
        (again,) = judge_at(server).ask(requests_for("a"))
    assert "raise judge_max_tokens" in first.failure
    assert (again.text, again.failure) == ("Rating: [[7]]", None)


def test_one_request_that_a_moderator_refuses_fails_alone(judge_at, requests_for):
    flagged = {"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["violence"]}}}
    with Replies((200, completion()), (403, flagged), (200, completion())) as server:
        judgments = judge_at(server, max_parallel=1).ask(requests_for("a", "b", "c"))
    assert [judgment.failure is None for judgment in judgments] == [True, False, True]
    with Replies((403, {"error": {"code": 403, "message": "no such right"}})) as server:
        with pytest.raises(JudgeError, match="check address, model name and key"):
            judge_at(server, max_parallel=1).ask(requests_for("d"))
