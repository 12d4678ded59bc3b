"""MT-Bench on hand-written questions: what the judge is shown, what counts in which score, what stops it."""

import math

import pytest

from fedllm_data.errors import ConfigError, JudgeError
from fedllm_eval.judging import Judge, JudgeSettings, Judgment, make_judge
from fedllm_eval.suites.mt_bench import MTBench
from tests.eval.suites.judged import (
    MT_ANSWERS,
    MT_QUESTIONS,
    MT_REFERENCES,
    FunctionJudge,
    options_in,
    scores,
    write_jsonl,
)


@pytest.fixture
def folder(tmp_path):
    """MT-Bench's own layout."""
    write_jsonl(tmp_path / "mt" / "question.jsonl", MT_QUESTIONS)
    write_jsonl(tmp_path / "mt" / "reference_answer" / "gpt-4.jsonl", MT_REFERENCES)
    write_jsonl(tmp_path / "mt" / "answers.jsonl", MT_ANSWERS)
    return tmp_path / "mt"


def run(folder, words, tmp_path, policy=None, **settings):
    backend = FunctionJudge(words)
    settings.setdefault("switches", {"answers": folder / "answers.jsonl"})
    options = options_in(tmp_path / "out", items=folder, judge=Judge(backend), **settings)
    return MTBench().run(policy, options), backend


def by_turn(request):
    """9 for first turns, 5 for second, 2 for the wrong half."""
    if "It is 21." in request.user:
        return "[[2]]"
    return "Rating: [[5]]" if "second" in request.system else "Rating: [[9]]"


def test_scores_by_hand(folder, tmp_path):
    result, backend = run(folder, by_turn, tmp_path)
    # Ratings: writing 9, 5; math 9, 2; stem 9, 5.
    assert scores(result) == {
        "mt_bench/average": pytest.approx(39 / 6),
        "mt_bench/turn_1": 9.0,
        "mt_bench/turn_2": 4.0,
        "mt_bench/writing": 7.0,
        "mt_bench/math": 5.5,
        "mt_bench/stem": 7.0,
        "mt_bench/unrated_fraction": 0.0,
    }
    assert {score.name: score.num_items for score in result.scores}["mt_bench/average"] == 6
    assert all(score.low <= score.value <= score.high for score in result.scores if not math.isnan(score.low))
    assert result.items["item_id"].to_pylist() == ["1/1", "1/2", "2/1", "2/2", "3/1", "3/2"]
    assert result.items["score"].to_pylist() == [9, 5, 9, 2, 9, 5]
    assert result.settings["judge"] == {"kind": "function", "model": "function", "named": {"function-1": 6}}
    assert set(result.settings["prompts"].values()) == {1, 2}
    assert "judge function" in result.version
    assert result.notes == ()
    assert len(backend.asked) == 6


def test_the_judge_sees_the_reference_where_it_matters_and_the_first_turn_before_the_second(folder, tmp_path):
    _, backend = run(folder, by_turn, tmp_path)
    asked = {(request.prompt.split("@")[0], request.user) for request in backend.asked}
    prompts = sorted(prompt for prompt, _ in asked)
    assert prompts == sorted(
        ["fastchat-single-v1", "fastchat-single-v1-multi-turn"] * 2
        + ["fastchat-single-math-v1", "fastchat-single-math-v1-multi-turn"]
    )
    for prompt, user in asked:
        assert ("It is 42." in user) == ("math" in prompt)
        assert ("It is 21." in user) == (prompt == "fastchat-single-math-v1-multi-turn")
    second = next(user for prompt, user in asked if prompt.endswith("v1-multi-turn") and "softly" in user)
    places = [second.index(text) for text in ("Write a line", "Rain falls {softly}.", "Now without", "Water falls")]
    assert places == sorted(places)
    assert {request.temperature for request in backend.asked} == {0.0}
    assert {request.max_tokens for request in backend.asked} == {2048}


def test_what_cannot_be_read_is_counted_and_shown(folder, tmp_path):
    def words(request):
        if "sky blue" in request.user:
            return "It is a fine answer." if "second" in request.system else "Rating: [[12]]"
        return Judgment(failure="HTTP 400") if "42." in request.user and "21." not in request.user else "[[8]]"

    result, _ = run(folder, words, tmp_path)
    assert scores(result)["mt_bench/average"] == 8.0
    assert scores(result)["mt_bench/unrated_fraction"] == 0.5
    assert math.isnan(scores(result)["mt_bench/stem"])
    assert result.items["score"].to_pylist() == [8, 8, None, 8, None, None]
    assert result.items["failure"].to_pylist()[2:] == [
        "no judgment: HTTP 400",
        None,
        "rating 12 is outside 1 to 10",
        "no rating",
    ]
    (note,) = result.notes
    # (3 * 8 + 3 * 1) / 6 = 4.5, (24 + 30) / 6 = 9
    assert note.startswith("3 of 6 judgments could be read as ratings, 3 could not")
    assert note.endswith("the average would be 4.50 or 9.00")
    assert "no judgment: HTTP 400 (1)" in note


def test_nothing_readable_is_nan_with_its_reason(folder, tmp_path):
    result, _ = run(folder, lambda request: "lovely", tmp_path)
    assert all(math.isnan(value) for name, value in scores(result).items() if name != "mt_bench/unrated_fraction")
    assert scores(result)["mt_bench/unrated_fraction"] == 1.0
    assert "0 of 6 judgments could be read as ratings, 6 could not: no rating (6)" in result.notes[0]


def test_a_thinking_judge_is_read_after_its_thoughts(folder, tmp_path):
    result, _ = run(folder, lambda request: "<think>maybe [[2]]?</think>Rating: [[7]]", tmp_path)
    assert scores(result)["mt_bench/average"] == 7.0


def test_several_ratings_and_cut_judgments_are_noted(folder, tmp_path):
    result, _ = run(folder, lambda request: Judgment(text="[[4]] or [[5]]", model="m", cut=True), tmp_path)
    assert result.notes == (
        "6 judgments give several ratings that differ; the first counts",
        "6 judgments were cut at the limit of tokens",
    )


def test_a_record_of_one_run_serves_the_next(folder, tmp_path):
    record = tmp_path / "record.jsonl"
    options = {"items": folder, "switches": {"answers": folder / "answers.jsonl"}}
    live = MTBench().run(
        None, options_in(tmp_path / "a", judge=Judge(FunctionJudge(by_turn), record=record), **options)
    )
    again = MTBench().run(
        None, options_in(tmp_path / "b", judge=make_judge(JudgeSettings(recorded=record)), **options)
    )
    assert repr(again.scores) == repr(live.scores)  # NaN bounds included
    assert again.items.equals(live.items)
    assert again.version == live.version
    write_jsonl(
        folder / "answers.jsonl", [{**MT_ANSWERS[0], "choices": [{"turns": ["Drops.", "Wet."]}]}, *MT_ANSWERS[1:]]
    )
    with pytest.raises(JudgeError, match="2 of 6 requests are not in the record"):
        MTBench().run(None, options_in(tmp_path / "c", judge=make_judge(JudgeSettings(recorded=record)), **options))


def test_max_items_spreads_over_the_file(folder, tmp_path):
    result, _ = run(folder, by_turn, tmp_path, max_items=2)
    assert result.items["question_id"].to_pylist() == ["1", "1", "2", "2"]
    assert result.version != run(folder, by_turn, tmp_path)[0].version


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"judge": None}, "needs a judge"),
        ({"items": None}, "needs its questions"),
        ({"switches": {"form": "x"}}, "has no switch 'form'"),
        ({"max_items": 0}, "at least one question"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_asked(folder, tmp_path, change, message):
    backend = FunctionJudge(by_turn)
    settings = {"items": folder, "judge": Judge(backend), "switches": {"answers": folder / "answers.jsonl"}, **change}
    with pytest.raises(ConfigError, match=message):
        MTBench().run(None, options_in(tmp_path / "out", **settings))
    assert backend.asked == []


def test_questions_that_are_not_mt_bench(folder, tmp_path):
    (folder / "reference_answer" / "gpt-4.jsonl").unlink()
    with pytest.raises(ConfigError, match="about math and has 0 references"):
        run(folder, by_turn, tmp_path)
    write_jsonl(folder / "question.jsonl", [{"question_id": 1, "turns": ["one turn"]}])
    with pytest.raises(ConfigError, match="has 1 turns"):
        run(folder, by_turn, tmp_path)


def test_answers_that_do_not_cover_the_questions(folder, tmp_path):
    write_jsonl(folder / "answers.jsonl", MT_ANSWERS[:2])
    with pytest.raises(ConfigError, match="0 answers to question '3'"):
        run(folder, by_turn, tmp_path)
    with pytest.raises(ConfigError, match="neither a policy"):
        run(folder, by_turn, tmp_path, switches={})


def test_an_answer_that_fastchat_could_not_get_stops_before_anything_is_judged(folder, tmp_path):
    broken = [{**MT_ANSWERS[0], "choices": [{"turns": ["fine", "$ERROR$"]}]}, *MT_ANSWERS[1:]]
    write_jsonl(folder / "answers.jsonl", broken)
    with pytest.raises(ConfigError, match=r"1 of 3 questions have \$ERROR\$ instead of an answer \(first: 1\)"):
        run(folder, by_turn, tmp_path)
