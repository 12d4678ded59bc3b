"""Answers over real HTTP from an endpoint on loopback: what is sent, what is read, what is retried, what is kept."""

import json

import pytest

from fedllm_data.errors import ConfigError, ServedModelError
from fedllm_eval.policy.generation import Answer
from fedllm_eval.running.kept_answers import kept_answers
from fedllm_eval.served import ServedSettings, connect
from tests.eval.judging.judge_server import JudgeServer

KEY = "sk-very-secret-0123456789"
TALK = [{"role": "user", "content": "Hi"}]
LORA = [
    {"id": "base", "root": "org/base", "parent": None, "owned_by": "vllm", "max_model_len": 4096},
    {"id": "tuned", "root": "/runs/a/adapter", "parent": "base", "owned_by": "vllm", "created": 5},
]


def talks(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


def policy_at(server, **settings):
    settings = {"url": server.url, "model": "tuned", "check": False, "backoff_seconds": 0.01, **settings}
    return connect(ServedSettings(**settings)).policy


def choice(content, reason="stop", **message):
    return {"message": {"role": "assistant", "content": content, **message}, "finish_reason": reason}


def test_a_request_says_all_that_was_asked_for():
    turns = [*TALK, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And?"}]
    with JudgeServer() as server:
        policy = policy_at(server, system="Be brief.", stop=["###"], body={"top_k": 20, "frequency_penalty": None})
        policy.answer([turns], max_new_tokens=7, temperature=0.7, top_p=0.9, seed=3)
        policy.answer([[{"role": "system", "content": "own"}, *TALK]], max_new_tokens=5)
    (path, sampled), (_, greedy) = server.bodies
    assert path == "/v1/chat/completions"
    assert sampled == {
        "model": "tuned",
        "messages": [{"role": "system", "content": "Be brief."}, *turns],
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 3,
        "max_tokens": 7,
        "stop": ["###"],
        "top_k": 20,
    }
    assert greedy["messages"] == [{"role": "system", "content": "own"}, *TALK]
    assert greedy["temperature"] == 0
    assert not {"seed", "top_p"} & set(greedy)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (choice("  Yes. \n"), Answer("Yes.", 10, True)),
        (choice("Yes and", "length"), Answer("Yes and", 10, False)),
        (choice("Yes.", reasoning_content="Let me think."), Answer("Yes.", 10, True)),
        (choice(None, "length", reasoning_content="Let me thi"), Answer("", 10, False)),
        (choice("", "stop"), Answer("", 10, True)),
        (choice(None, "stop", refusal="I cannot help."), Answer("I cannot help.", 10, True)),
        (choice([{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]), Answer("in parts", 10, True)),
        (choice("lone \ud800 half"), Answer("lone \ufffd half", 10, True)),
    ],
)
def test_a_reply_becomes_an_answer(said, expected):
    with JudgeServer(lambda user, nth: said) as server:
        (answer,) = policy_at(server).answer([TALK])
    assert answer == expected


def test_tokens_that_the_server_does_not_count_are_none():
    with JudgeServer(lambda user, nth: "Yes", usage=None) as server:
        assert policy_at(server).answer([TALK]) == [Answer("Yes", 0, True)]


@pytest.mark.parametrize(
    "trouble", [(429, {"Retry-After": "0.01"}), (500, {}), (503, {}), "nonsense", "cut", "drop", [None]]
)
def test_what_may_pass_is_asked_again(trouble):
    with JudgeServer(lambda user, nth: trouble if nth < 2 else "Yes") as server:
        (answer,) = policy_at(server, max_attempts=3).answer([TALK])
    assert answer.text == "Yes"
    assert server.calls == {"Hi": 3}


def test_a_server_that_is_too_slow_is_asked_again():
    with JudgeServer(lambda user, nth: "block" if nth == 0 else "Yes") as server:
        (answer,) = policy_at(server, timeout_seconds=0.2).answer([TALK])
        assert answer.text == "Yes"


def test_equal_conversations_are_asked_once_and_answers_come_in_order():
    told, kept = [], []
    with JudgeServer(lambda user, nth: f"to {user}") as server:
        answers = policy_at(server, max_parallel=4).answer(
            talks("a", "b", "a", "c"),
            progress=lambda done, total: told.append((done, total)),
            on_answer=lambda at, answer: kept.append(at),
        )
    assert [answer.text for answer in answers] == ["to a", "to b", "to a", "to c"]
    assert set(server.calls.values()) == {1}
    assert sorted(kept) == [0, 1, 3]
    assert told[-1] == (4, 4)
    assert server.most_at_once <= 4


def test_a_conversation_that_is_refused_ends_the_run_after_the_others_or_counts_as_empty():
    def script(user, nth):
        return (400, {}) if user == "b" else "Yes"

    kept = []
    with JudgeServer(script) as server:
        with pytest.raises(ServedModelError, match=r"left 1 of 3 conversations without an answer \(conversation 1"):
            policy_at(server).answer(talks("a", "b", "c"), on_answer=lambda at, answer: kept.append(at))
        assert sorted(kept) == [0, 2]
        policy = policy_at(server, failed="empty")
        answers = policy.answer(talks("a", "b", "c"))
    assert [answer.text for answer in answers] == ["Yes", "", "Yes"]
    assert not answers[1].finished
    notes = policy.take_notes()
    assert any("1 conversation was not answered and counts as empty: HTTP 400" in note for note in notes)
    assert len(policy.take_notes()) == 1


def test_a_filter_is_no_answer():
    with JudgeServer(lambda user, nth: choice("", "content_filter")) as server:
        with pytest.raises(ServedModelError, match="content filter"):
            policy_at(server).answer([TALK])


def test_a_limit_ends_the_run_and_keeps_what_was_paid():
    kept = []
    with JudgeServer(lambda user, nth: "Yes") as server:
        policy = policy_at(server, max_calls=2, max_parallel=1)
        with pytest.raises(ServedModelError, match=r"served model's limit of 2 calls is reached\. 2 of 3 answers are"):
            policy.answer(talks("a", "b", "c"), on_answer=lambda at, answer: kept.append(at))
    assert kept == [0, 1]


def test_a_run_that_stopped_pays_for_nothing_twice(tmp_path):
    asked = talks(*"abcdef")
    with JudgeServer(lambda user, nth: f"to {user}") as server:
        with pytest.raises(ServedModelError):
            kept_answers(policy_at(server, max_calls=4), asked, tmp_path)
        with (tmp_path / "answers.jsonl").open("a") as file:
            file.write('{"key": "half a li')  # a kill in the middle of a write
        answers = kept_answers(policy_at(server), asked, tmp_path)
        assert set(server.calls.values()) == {1}
        # Another revision, another system message or another name is another policy.
        for other in ({"revision": "2"}, {"system": "Be brief."}, {"model": "other"}, {"stop": "."}):
            kept_answers(policy_at(server, **other), asked[:1], tmp_path)
        # What settles no answer is not: who the base is, how many are asked side by side.
        kept_answers(policy_at(server, base_model="b", max_parallel=1), asked, tmp_path)
    assert [answer.text for answer in answers] == [f"to {letter}" for letter in "abcdef"]
    assert server.calls["a"] == 5


def test_names_are_looked_up_before_anything_is_asked():
    with JudgeServer(models=LORA) as server:
        served = connect(ServedSettings(url=server.url, model="tuned", base_model="base"))
        assert served.policy.describe()["base"] == served.base.name == "base"
        about = served.policy.describe()["served"]
        assert about["root"] == "/runs/a/adapter"
        assert "created" not in about
        assert server.url not in json.dumps(served.policy.describe())
        for names in ({"model": "tunde"}, {"model": "tuned", "base_model": "bass"}):
            with pytest.raises(ConfigError, match=r"lists no model '(tunde|bass)' \(did you mean") as caught:
                connect(ServedSettings(url=server.url, **names))
            assert "it serves base, tuned" in str(caught.value)
            assert "\n" not in str(caught.value)
    assert not server.bodies


def test_the_parent_of_an_adapter_is_its_base():
    with JudgeServer(models=LORA) as server:
        assert connect(ServedSettings(url=server.url, model="tuned")).policy.base == "base"


@pytest.mark.parametrize("models", [None, "nonsense"])
def test_a_server_without_a_list_is_believed(models):
    with JudgeServer(lambda user, nth: "Yes", models=models) as server:
        policy = connect(ServedSettings(url=server.url, model="any")).policy
        assert policy.answer([TALK])[0].text == "Yes"


def test_a_server_that_still_loads_is_waited_for():
    with JudgeServer(models=lambda nth: (503, {}) if nth < 2 else ["tuned"]) as server:
        assert connect(ServedSettings(url=server.url, model="tuned", backoff_seconds=0.01)).policy.name == "tuned"
        assert server.num_listed == 3


def test_nobody_there_is_one_line():
    with JudgeServer() as server:
        url = server.url
    with pytest.raises(ServedModelError, match="does not say which models it serves: no answer") as caught:
        connect(ServedSettings(url=url, model="m", max_attempts=2, backoff_seconds=0.01))
    assert "\n" not in str(caught.value)


def test_the_key_is_sent_and_shown_nowhere(monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("SERVED_KEY", KEY)
    caplog.set_level("DEBUG")

    class Telltale(JudgeServer):
        def act(self, handler, action, model):
            body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode()
            self.send(handler, action, body, {})

    for status in (401, 500, 400):
        with Telltale(lambda user, nth, status=status: status, models=["tuned"]) as server:
            policy = policy_at(server, api_key_env="SERVED_KEY", max_attempts=2, check=True)
            with pytest.raises(ServedModelError) as caught:
                kept_answers(policy, [TALK], tmp_path)
            assert server.headers[-1]["Authorization"] == f"Bearer {KEY}"
        shown = [str(caught.value), repr(policy), caplog.text, json.dumps(policy.describe())]
        assert not any(KEY in text or "secret" in text for text in shown)


def test_a_key_in_the_address_is_not_shown():
    with JudgeServer(lambda user, nth: (401, {})) as server:
        policy = policy_at(server, url=f"{server.url}?code=hidden")
        with pytest.raises(ServedModelError) as caught:
            policy.answer([TALK])
    assert server.bodies[0][0] == "/v1/chat/completions?code=hidden"
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"url": "http://h/v1"}, "a served model needs model; give it by --served model=NAME"),
        ({"model": "m"}, "a served model needs url"),
        (
            {"url": "http://h/v1", "model": "m", "modle": "x"},
            "has no setting 'modle'; did you mean model? its settings are url",
        ),
        ({"url": "http://h/v1", "model": "m", "base_model": "m"}, "are both 'm'"),
        ({"url": "http://h/v1", "model": "m", "failed": "skip"}, "failed is 'skip'; it is stop or empty"),
        ({"url": "http://h/v1", "model": "m", "body": 3}, "body is 3"),
        ({"url": 8000, "model": "m"}, "url is 8000"),
    ],
)
def test_settings_that_make_no_sense(given, expected):
    with pytest.raises(ConfigError) as caught:
        ServedSettings.from_texts(given)
    assert expected in str(caught.value)


def test_a_name_of_digits_is_a_name():
    assert ServedSettings.from_texts({"url": "http://h/v1", "model": 7, "stop": "###"}).model == "7"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"url": "h:8000"}, "served model url 'h:8000' is no http address"),
        ({"api_key_env": "NO_SUCH_KEY"}, "the served model's key was to be in environment variable NO_SUCH_KEY"),
        ({"max_parallel": 0}, "served model: max_parallel 0"),
        ({"max_cost": 1.0}, "served model: max_cost 1.0 needs prices"),
    ],
)
def test_endpoint_settings_are_refused_in_the_policys_name(settings, expected):
    with pytest.raises(ConfigError) as caught:
        connect(ServedSettings(**{"url": "http://127.0.0.1:9/v1", "model": "m", **settings}))
    assert expected in str(caught.value)


@pytest.mark.parametrize("settings", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}])
def test_generation_settings_that_make_no_sense(settings):
    with JudgeServer() as server:
        with pytest.raises(ConfigError):
            policy_at(server).answer([TALK], **settings)
        with pytest.raises(ConfigError, match="conversation 0 has no message"):
            policy_at(server).answer([[]])
    assert not server.bodies
