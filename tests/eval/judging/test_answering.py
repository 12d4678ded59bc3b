"""A policy answers two turns, keeps every answer, and judges as a local model; on the random tiny Llama."""

import pytest

from fedllm_eval.judging import JudgeSettings, make_judge
from fedllm_eval.judging.answering import answer_questions
from fedllm_eval.judging.pair_judgments import judge_pairs
from fedllm_eval.judging.questions import Question
from fedllm_eval.policy import generation
from fedllm_eval.policy.policies import load_policy
from fedllm_eval.suites import SuiteOptions
from fedllm_eval.suites.vicuna import Vicuna
from tests.eval.suites.judged import FunctionJudge, scores, write_jsonl

QUESTIONS = [
    Question(question_id=str(at), turns=turns, category="c")
    for at, turns in enumerate([("the mill", "and the river"), ("yes",), ("old rivers run", "no"), ("go on", "far")])
]
TEMPERATURES = [0.0, 0.7, 0.7, 0.0]


@pytest.fixture(scope="module")
def policy(model_folder):
    return load_policy(model_folder)


@pytest.fixture
def counted(monkeypatch):
    """How many conversations were put to `generate`; `fail_after` answers it breaks."""
    state = {"asked": 0, "fail_after": None}
    real = generation.generate

    def generate(policy, conversations, **settings):
        if state["fail_after"] is not None and state["asked"] >= state["fail_after"]:
            raise KeyboardInterrupt
        state["asked"] += len(conversations)
        return real(policy, conversations, **settings)

    monkeypatch.setattr(generation, "generate", generate)
    return state


def options(folder, **settings):
    folder.mkdir(exist_ok=True)
    return SuiteOptions(folder=folder, **{"max_new_tokens": 6, "batch_size": 2, **settings})


def test_turns_follow_one_another(policy, tmp_path, counted):
    told = []
    answers = answer_questions(
        policy, QUESTIONS, options(tmp_path / "a", progress=lambda *state: told.append(state)), TEMPERATURES
    )
    assert [len(turns) for turns in answers] == [2, 1, 2, 2]
    assert told[-1] == ("answers", 7, 7)
    first, second = answers[0]
    conversation = [
        {"role": "user", "content": "the mill"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "and the river"},
    ]
    assert generation.generate_answers(policy, [conversation], max_new_tokens=6) == [second]


def test_a_stopped_run_answers_nothing_twice(policy, tmp_path, counted):
    whole = answer_questions(policy, QUESTIONS, options(tmp_path / "a"), TEMPERATURES)
    assert counted["asked"] == 7
    counted.update(asked=0, fail_after=3)
    with pytest.raises(KeyboardInterrupt):
        answer_questions(policy, QUESTIONS, options(tmp_path / "b"), TEMPERATURES)
    counted["fail_after"] = None
    resumed = answer_questions(policy, QUESTIONS, options(tmp_path / "b", batch_size=1), TEMPERATURES)
    assert resumed == whole
    assert counted["asked"] == 7
    # Another seed is another answer to what was sampled, and asked anew as a whole.
    answer_questions(policy, QUESTIONS, options(tmp_path / "b", seed=1), TEMPERATURES)
    assert counted["asked"] == 14


def test_a_small_local_judge_talks_nonsense_and_it_shows(policy, tmp_path):
    items = write_jsonl(
        tmp_path / "q.jsonl", [{"question_id": at, "category": "c", "turns": [f"mill {at}"]} for at in range(3)]
    )
    # Its 128 positions are too few for the judge's prompt, which is a failure with a reason and no crash.
    judge = make_judge(JudgeSettings(local=policy))
    result = Vicuna().run(policy, options(tmp_path / "out", items=items, judge=judge))
    assert scores(result)["vicuna/unrated_fraction"] == 1.0
    assert "has 128 positions" in result.notes[0]
    assert result.settings["judge"]["policy"]["base_digest"] is not None


def test_a_local_judge_is_cached_by_its_weights(policy, tmp_path, requests_for):
    judge = make_judge(JudgeSettings(local=policy, cache=tmp_path / "c", batch_size=2))
    first = judge.ask(requests_for("a", "b", "c"))
    again = make_judge(JudgeSettings(local=policy, cache=tmp_path / "c"))
    assert again.ask(requests_for("c", "a", "b")) == [first[2], first[0], first[1]]
    assert again.usage() == {"judgments": 3, "from_cache": 3, "failed": 0}
    assert first[0].completion_tokens <= 50


def test_pairs_are_judged_in_both_orders():
    from fedllm_eval.judging import Judge

    def words(request):
        a = request.user.split("<answer-a>\n")[1].split("\n")[0]
        b = request.user.split("<answer-b>\n")[1].split("\n")[0]
        if "?" in (a, b):
            return "hard to say"
        return "[[C]]" if len(a) == len(b) else "[[A]]" if len(a) > len(b) else "[[B]]"

    backend = FunctionJudge(words)
    pairs = judge_pairs(Judge(backend), QUESTIONS, ["long", "x", "same", "?"], ["no", "long", "four", "a"])
    assert pairs.shown_first == [1.0, 0.0, 0.5, None] == pairs.shown_second
    assert pairs.swapped.preferences_N[:3].tolist() == [1.0, 0.0, 0.5]
    assert (pairs.swapped.consistent_fraction, pairs.swapped.first_position_preference) == (1.0, 0.5)
    assert pairs.failures == {"no verdict": 2}
    assert len(backend.asked) == 8
    always_first = judge_pairs(Judge(FunctionJudge(lambda request: "[[A]]")), QUESTIONS, "abcd", "efgh")
    assert always_first.swapped.preferences_N.tolist() == [0.5] * 4
    assert always_first.swapped.first_position_preference == 1.0
