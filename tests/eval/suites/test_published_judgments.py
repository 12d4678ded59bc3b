"""The judged suites on the benchmarks' own files, with stored answers and GPT-4's stored judgments."""

import json

import pytest

from fedllm_data.errors import ConfigError
from fedllm_eval.judging import Judge, JudgeSettings, make_judge
from fedllm_eval.judging.questions import read_questions
from fedllm_eval.suites.mt_bench import MTBench
from fedllm_eval.suites.ref_gpt4 import RefGPT4
from fedllm_eval.suites.vicuna import Vicuna
from tests.eval.suites.judged import FunctionJudge, options_in, scores, write_answers

pytestmark = pytest.mark.slow


@pytest.fixture
def stored(shared_data):
    """`eval/` of the real files."""
    path = shared_data / "eval"
    if not (path / "mt_bench_judged").is_dir() or not (path / "fedllm_bench").is_dir():
        pytest.skip(f"no stored judgments and questions at {path}; set FEDLLM_SHARED_DATA")
    return path


@pytest.mark.parametrize(
    ("model", "average", "turn_1", "turn_2"),
    [("llama2_chat_7b", 6.1906, 6.7062, 5.675), ("llama2_7b", 3.9688, None, None)],
)
def test_mt_bench_from_answers_to_scores(stored, tmp_path, model, average, turn_1, turn_2):
    # Every prompt is built anew and must be, letter for letter, one that GPT-4 was asked: no other is found.
    judge = make_judge(JudgeSettings(recorded=stored / "mt_bench_judged" / "gpt-4_single.jsonl", answered_by=model))
    options = options_in(
        tmp_path / "out",
        items=stored / "fedllm_bench" / "data" / "mtbench",
        judge=judge,
        switches={"answers": stored / "mt_bench_judged" / "model_answer" / f"{model}.jsonl"},
    )
    result = MTBench().run(None, options)
    found = scores(result)
    assert found["mt_bench/average"] == pytest.approx(average, abs=5e-5)
    if turn_1 is not None:
        assert found["mt_bench/turn_1"] == pytest.approx(turn_1, abs=5.1e-5)
        assert found["mt_bench/turn_2"] == pytest.approx(turn_2, abs=5e-5)
    assert found["mt_bench/unrated_fraction"] == 0.0
    assert result.items.num_rows == 160
    assert result.settings["judge"]["named"] == {"gpt-4": 160}


def test_all_stored_models_replay(stored, tmp_path):
    """800 of 800: no prompt of any of the five models differs from what was asked."""
    record = stored / "mt_bench_judged" / "gpt-4_single.jsonl"
    given = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    models = sorted({line["model"] for line in given})
    assert len(models) == 5
    for model in models:
        options = options_in(
            tmp_path / "out",
            items=stored / "fedllm_bench" / "data" / "mtbench",
            judge=make_judge(JudgeSettings(recorded=record, answered_by=model)),
            switches={"answers": stored / "mt_bench_judged" / "model_answer" / f"{model}.jsonl"},
        )
        ratings = [line["score"] for line in given if line["model"] == model]
        average = scores(MTBench().run(None, options))["mt_bench/average"]
        assert average == pytest.approx(sum(ratings) / len(ratings), abs=1e-12)


@pytest.mark.parametrize(
    ("suite", "path", "form", "num_items", "num_groups"),
    [
        (Vicuna, "data/vicuna/question.jsonl", None, 80, 9),
        (RefGPT4, "aya_evaluation/test_datasets.json", "aya", 160, 8),
        (RefGPT4, "data/chatbot/testset.json", "benchmark", 50, 0),
        (RefGPT4, "data/wildchat/testset.json", "benchmark", 50, None),
    ],
)
def test_the_benchmarks_files_are_read_as_they_are(stored, tmp_path, suite, path, form, num_items, num_groups):
    items = stored / "fedllm_bench" / path
    questions = read_questions(items)
    assert len(questions) == num_items
    answers = write_answers(tmp_path / "answers.jsonl", {question.question_id: ["yes"] for question in questions})
    switches = {"answers": answers} | ({} if form is None else {"form": form})
    judge = Judge(FunctionJudge(lambda request: "[[3]]"))
    result = suite().run(None, options_in(tmp_path / "out", items=items, judge=judge, switches=switches))
    assert set(scores(result).values()) == {3.0, 0.0}
    assert result.scores[0].num_items == num_items
    if num_groups is not None:
        assert len(result.scores) == 2 + num_groups


def test_the_chat_test_files_hold_no_references(stored, tmp_path):
    items = stored / "fedllm_bench" / "data" / "chatbot" / "testset.json"
    with pytest.raises(ConfigError, match="50 of 50 questions"):
        RefGPT4().run(
            None, options_in(tmp_path / "out", items=items, judge=Judge(FunctionJudge(lambda request: "[[3]]")))
        )
