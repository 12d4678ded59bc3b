"""Pairwise judging: win rates by hand, both orders, ties, missing verdicts, the opponent's answers, and resuming."""

import json
import math
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from fedllm_data.errors import ConfigError, JudgeError
from fedllm_eval.judging import Judge, JudgeSettings, Judgment, make_judge
from fedllm_eval.policy import generation
from fedllm_eval.policy.policies import load_policy
from fedllm_eval.results import read_results
from fedllm_eval.run import score_run
from fedllm_eval.running.suite_runs import SuitePlan
from fedllm_eval.score_settings import AskedBeside, OtherPolicies
from fedllm_eval.suites.pairwise import Pairwise
from tests.eval.judging.judge_server import JudgeServer
from tests.eval.suites.judged import FunctionJudge, options_in, scores, write_answers, write_jsonl
from tests.eval.test_run import client_repo

QUESTIONS = [
    {"question_id": name, "category": "generic", "turns": [f"What of {name}?"]}
    for name in ("win", "lose", "tie", "flip", "half", "mute", "same")
]
OURS = {"win": "good", "lose": "bad", "tie": "fine", "flip": "swayed", "half": "good", "mute": "hm", "same": "alike"}
THEIRS = {"win": "bad", "lose": "good", "tie": "okay", "flip": "moved", "half": "mid", "mute": "?", "same": " alike "}


def words(request):
    """Good beats bad; what is swayed by the order gets A; `mid` ties with good when it stands first; `?` is mute."""
    a, b = (request.user.split(f"<answer-{side}>\n")[1].split("\n")[0] for side in "ab")
    if {"hm", "?"} == {a, b}:
        return "hard to say" if a == "?" else "[[A]]"
    if {a, b} == {"fine", "okay"} or (a, b) == ("mid", "good"):
        return "[[C]]"
    if {a, b} == {"swayed", "moved"}:
        return "[[A]]"
    return "[[A]]" if a == "good" else "[[B]]"


@pytest.fixture
def files(tmp_path):
    return {
        "items": write_jsonl(tmp_path / "questions.jsonl", QUESTIONS),
        "answers": write_answers(tmp_path / "ours.jsonl", {name: [text] for name, text in OURS.items()}),
        "opponent": write_answers(tmp_path / "theirs.jsonl", {name: [text] for name, text in THEIRS.items()}),
    }


def run(files, folder, of=None, policy=None, **settings):
    backend = FunctionJudge(words)
    switches = {name: str(files[name]) for name in ("answers", "opponent") if name in files}
    options = options_in(folder, items=files["items"], judge=of or Judge(backend), switches=switches)
    return Pairwise().run(policy, replace(options, **settings)), backend


def by_item(result, column="score"):
    return dict(zip(result.items["item_id"].to_pylist(), result.items[column].to_pylist(), strict=True))


def test_scores_by_hand(files, tmp_path):
    result, backend = run(files, tmp_path / "out")
    # first, second: win 1, 1; lose 0, 0; tie .5, .5; flip 1, 0; half 1, .5; mute 1, none; same is not asked.
    assert by_item(result) == {"win": 1, "lose": 0, "tie": 0.5, "flip": 0.5, "half": 0.75, "mute": None, "same": 0.5}
    assert by_item(result, "shown_first")["mute"] == 1.0
    found = scores(result)
    assert found["pairwise/win_rate"] == pytest.approx(3.25 / 6)  # 1 + 0 + .5 + .5 + .75 + .5 over six
    assert found["pairwise/flipped_fraction"] == pytest.approx(2 / 5)  # flip and half of the five with both verdicts
    assert found["pairwise/missing_fraction"] == pytest.approx(1 / 7)
    # 4 + 3 + 4 + 6 + 4 + 2 + 5 and 3 + 4 + 4 + 5 + 3 + 1 + 7 characters
    assert found["pairwise/answer_length"] == pytest.approx(28 / 7)
    assert found["pairwise/opponent_answer_length"] == pytest.approx(27 / 7)
    assert {score.name: score.num_items for score in result.scores} == {
        "pairwise/win_rate": 6,
        "pairwise/length_controlled_win_rate": 6,
        "pairwise/flipped_fraction": 5,
        "pairwise/missing_fraction": 7,
        "pairwise/answer_length": 7,
        "pairwise/opponent_answer_length": 7,
    }
    assert all(score.low <= score.value <= score.high for score in result.scores)
    assert len(backend.asked) == 12
    against, counts, order, missing = result.notes
    assert against.startswith("set against the answers in ")
    assert counts == (
        "of 6 pairs 2 won, 3 tied and 1 lost; 1 of the ties are answers of the same text, which the judge was not "
        "shown"
    )
    # What stood first: 1, 0; 0, 1; .5, .5; 1, 1; 1, .5: 6.5 over ten.
    assert order.startswith("the order of the answers changed the verdict on 2 of 5 pairs")
    assert "preferred at 0.65" in order
    # 3.25 / 7 and 4.25 / 7
    assert missing.endswith(
        "1 of 7 pairs; no verdict (1); had all of them been lost or won, the win rate would be 0.46 or 0.61"
    )


def test_answers_of_equal_length_leave_the_rate_as_it_is_and_length_alone_explains_it_away(files, tmp_path):
    equal = {"win": "good", "lose": "evil", "tie": "fine"}
    files["items"] = write_jsonl(tmp_path / "three.jsonl", QUESTIONS[:3])
    files["answers"] = write_answers(tmp_path / "a.jsonl", {name: [text] for name, text in equal.items()})
    files["opponent"] = write_answers(tmp_path / "b.jsonl", {"win": ["dull"], "lose": ["good"], "tie": ["okay"]})
    found = scores(run(files, tmp_path / "equal")[0])
    assert found["pairwise/length_controlled_win_rate"] == pytest.approx(found["pairwise/win_rate"]) == 0.5
    longer = {name: ["long answer"] for name in ("win", "lose")} | {"tie": ["long answer"], "flip": ["no"]}
    files["items"] = write_jsonl(tmp_path / "four.jsonl", QUESTIONS[:4])
    files["answers"] = write_answers(tmp_path / "c.jsonl", longer)
    files["opponent"] = write_answers(
        tmp_path / "d.jsonl", {name: ["no" if name != "flip" else "long answer"] for name in longer}
    )
    longest = Judge(FunctionJudge(lambda request: "[[A]]" if "<answer-a>\nlong" in request.user else "[[B]]"))
    found = scores(run(files, tmp_path / "longer", longest)[0])
    assert found["pairwise/win_rate"] == 0.75
    assert found["pairwise/length_controlled_win_rate"] < 0.75


def test_order_of_the_questions_does_not_matter(files, tmp_path):
    first, _ = run(files, tmp_path / "a")
    files["items"] = write_jsonl(tmp_path / "turned.jsonl", QUESTIONS[::-1])
    turned, _ = run(files, tmp_path / "b")
    assert by_item(turned) == by_item(first)
    assert scores(turned) == pytest.approx(scores(first), abs=1e-12)
    assert turned.notes == first.notes


def test_swapping_the_sides_turns_the_rate_round(files, tmp_path):
    first, _ = run(files, tmp_path / "a")
    turned, _ = run(files | {"answers": files["opponent"], "opponent": files["answers"]}, tmp_path / "b")
    for name in ("win_rate", "length_controlled_win_rate"):
        assert scores(turned)[f"pairwise/{name}"] == pytest.approx(1 - scores(first)[f"pairwise/{name}"])
    assert scores(turned)["pairwise/flipped_fraction"] == scores(first)["pairwise/flipped_fraction"]


def test_no_verdict_at_all_is_nan_and_the_same_answers_need_no_judge(files, tmp_path):
    mute, _ = run(
        files | {"items": write_jsonl(tmp_path / "q.jsonl", QUESTIONS[:2])},
        tmp_path / "a",
        Judge(FunctionJudge(lambda request: Judgment(failure="HTTP 400"))),
    )
    found = scores(mute)
    assert math.isnan(found["pairwise/win_rate"])
    assert math.isnan(found["pairwise/length_controlled_win_rate"])
    assert math.isnan(found["pairwise/flipped_fraction"])
    assert found["pairwise/missing_fraction"] == 1.0
    assert "no judgment: HTTP 400 (4)" in mute.notes[-1]
    same, backend = run(files | {"opponent": files["answers"]}, tmp_path / "b")
    assert backend.asked == []
    assert scores(same)["pairwise/win_rate"] == scores(same)["pairwise/length_controlled_win_rate"] == 0.5
    assert math.isnan(scores(same)["pairwise/flipped_fraction"])
    assert same.settings["judge"]["named"] == {}


def test_a_record_serves_offline_and_who_the_opponent_is_stands_in_the_version(files, tmp_path):
    record = tmp_path / "record.jsonl"
    live, _ = run(files, tmp_path / "a", Judge(FunctionJudge(words), record=record))
    offline, _ = run(files, tmp_path / "b", make_judge(JudgeSettings(recorded=record)))
    assert offline.scores == live.scores
    assert offline.items.equals(live.items)
    assert offline.version == live.version
    files["opponent"] = write_answers(
        tmp_path / "x.jsonl", {name: [text] for name, text in (THEIRS | {"win": "x"}).items()}
    )
    other, _ = run(files, tmp_path / "c")
    assert other.version != live.version
    with pytest.raises(JudgeError, match="2 of 12 requests are not in the record"):
        run(files, tmp_path / "d", make_judge(JudgeSettings(recorded=record)))


def test_a_judge_that_stops_in_the_middle_is_asked_for_the_rest_alone(files, tmp_path):
    def script(user, nth):
        return (401, {}) if stopped and "What of tie?" in user else "[[C]]"

    stopped = True
    with JudgeServer(script) as server:
        judge = make_judge(JudgeSettings(url=server.url, model="m", max_parallel=1))
        with pytest.raises(JudgeError, match="judgments are kept in"):
            run(files, tmp_path / "out", judge)
        kept = {user for user, calls in server.calls.items() if "What of tie?" not in user}
        assert kept
        stopped = False
        result, _ = run(files, tmp_path / "out", make_judge(JudgeSettings(url=server.url, model="m")))
        assert all(server.calls[user] == 1 for user in kept)
        num_calls = sum(server.calls.values())
        again, _ = run(files, tmp_path / "out", make_judge(JudgeSettings(url=server.url, model="m")))
        assert sum(server.calls.values()) == num_calls
    assert again.scores == result.scores
    assert scores(result)["pairwise/win_rate"] == 0.5


def test_answers_in_alpaca_evals_format_are_found_by_their_instruction(files, tmp_path):
    listed = [{"instruction": f"What of {name}?", "output": text, "generator": "x"} for name, text in THEIRS.items()]
    files["opponent"] = tmp_path / "outputs.json"
    files["opponent"].write_text(json.dumps(listed[::-1]), encoding="utf-8")
    first, _ = run(files, tmp_path / "a")
    assert scores(first)["pairwise/win_rate"] == pytest.approx(3.25 / 6)
    files["opponent"].write_text(json.dumps([*listed, {**listed[0], "output": "other"}]), encoding="utf-8")
    with pytest.raises(ConfigError, match="answer 8 is a second output"):
        run(files, tmp_path / "b")
    files["opponent"].write_text(json.dumps([{"instruction": "What?"}]), encoding="utf-8")
    with pytest.raises(ConfigError, match="answer 1 has no instruction and output"):
        run(files, tmp_path / "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"judge": None}, "needs a judge"),
        ({"items": None}, "needs its questions"),
        ({"switches": {"answers": "x"}}, "has no opponent: give a file of answers by --switch pairwise.opponent=FILE"),
        ({"switches": {"opponents": "x"}}, "has no switch 'opponents'"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_asked(files, tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        run(files, tmp_path / "out", **change)


def test_an_opponent_without_an_answer_stops_before_anybody_answers(files, tmp_path, model_folder):
    files["opponent"] = write_answers(tmp_path / "few.jsonl", {"win": ["bad"]})
    del files["answers"]
    with pytest.raises(ConfigError, match="has 0 answers to question 'lose'"):
        run(files, tmp_path / "out", policy=load_policy(model_folder), max_new_tokens=4)
    assert not (tmp_path / "out" / "answers").exists()
    files["items"] = write_jsonl(tmp_path / "two.jsonl", [{"question_id": 1, "turns": ["a", "b"]}])
    with pytest.raises(ConfigError, match=r"question '1' in .* has 2 turns"):
        run(files, tmp_path / "out")


@pytest.fixture
def counted(monkeypatch):
    """How many conversations were put to a policy."""
    asked, real = [], generation.generate
    monkeypatch.setattr(
        generation,
        "generate",
        lambda policy, conversations, **settings: (
            asked.extend(conversations) or real(policy, conversations, **settings)
        ),
    )
    return asked


@pytest.fixture
def evaluation(tmp_path, make_run, message_rows):
    """A run, a client repo and three short questions."""
    questions = [{"question_id": n, "turns": [text]} for n, text in enumerate(("the mill", "go on", "and old rivers"))]
    return {
        "run": make_run(tmp_path / "run", task="sft"),
        "repo": client_repo(tmp_path / "chats", message_rows, "sft"),
        "items": {"pairwise": write_jsonl(tmp_path / "three.jsonl", questions)},
    }


def evaluate(evaluation, out, judge, monkeypatch, switches=None, base_too=True):
    monkeypatch.setattr("fedllm_eval.run.make_plan_judge", lambda *_: judge)
    plan = SuitePlan(
        names=("pairwise",),
        items=evaluation["items"],
        switches={"pairwise": switches} if switches else {},
        judge=JudgeSettings(url="unused"),
        max_new_tokens=5,
    )
    return score_run(
        evaluation["run"],
        evaluation["repo"],
        out,
        others=OtherPolicies(personal=False, base=base_too),
        beside=AskedBeside(suites=plan),
    )


def test_the_base_answers_once_and_is_not_judged_against_itself(evaluation, tmp_path, counted, monkeypatch):
    out, backend = tmp_path / "out", FunctionJudge(lambda request: "[[A]]")
    results = evaluate(evaluation, out, Judge(backend), monkeypatch)
    assert len(counted) == 6  # three questions, base and policy
    assert len(backend.asked) == 6
    assert set(results.summary["suites"]["pairwise"]) == {"policy"}
    record = results.summary["suites"]["pairwise"]["policy"]
    assert record["settings"]["opponent"]["kind"] == "policy"
    assert "is the opponent and so is not judged itself" in record["notes"][0]
    # Whatever stands first wins: all of it is the place, and nobody is better.
    assert {score["name"]: score["value"] for score in record["scores"]}["pairwise/win_rate"] == 0.5
    assert {score["name"]: score["value"] for score in record["scores"]}["pairwise/flipped_fraction"] == 1.0
    assert "changes" not in results.summary
    assert pq.read_table(out / "suites" / "policy" / "pairwise.parquet").num_rows == 3
    for file in ("results.md", "results.html", "model-index.yaml"):
        assert "pairwise/win_rate" in (out / file).read_text(encoding="utf-8")
    # The same again is read from disk; without the base's own scores it is the same suite.
    again = evaluate(evaluation, out, Judge(backend), monkeypatch, base_too=False)
    assert "suite pairwise policy" in again.reused
    assert read_results(out).summary["suites"]["pairwise"]["policy"] == record
    assert (len(counted), len(backend.asked)) == (6, 6)


def test_against_a_file_the_base_is_judged_as_well_and_another_file_is_another_part(
    evaluation, tmp_path, counted, monkeypatch
):
    file = write_answers(tmp_path / "theirs.jsonl", {str(n): [f"answer {n}"] for n in range(3)})
    out, backend = tmp_path / "out", FunctionJudge(lambda request: "[[C]]")
    first = evaluate(evaluation, out, Judge(backend), monkeypatch, {"opponent": str(file)})
    assert set(first.summary["suites"]["pairwise"]) == {"base", "policy"}
    assert first.summary["changes"][0]["change"]["difference"] == 0.0
    write_answers(file, {str(n): [f"answer {n + 1}"] for n in range(3)})
    second = evaluate(evaluation, out, Judge(backend), monkeypatch, {"opponent": str(file)})
    assert [sentence.split(" was made")[0] for sentence in second.changed] == [
        "suite pairwise base",
        "suite pairwise policy",
    ]
    assert len(counted) == 6
    with pytest.raises(ConfigError, match=r"no/such, given by --switch pairwise\.opponent, is no file"):
        evaluate(evaluation, out, Judge(backend), monkeypatch, {"opponent": "no/such"})


def test_a_plain_model_has_nothing_to_be_set_against(evaluation, tmp_path, model_folder, monkeypatch):
    evaluation["run"] = model_folder
    with pytest.raises(ConfigError, match=r"is a plain model; give an opponent's answers by --switch pairwise\."):
        evaluate(evaluation, tmp_path / "out", Judge(FunctionJudge(words)), monkeypatch, base_too=False)


def test_batches_do_not_matter(evaluation, tmp_path, model_folder):
    policy, opponent = load_policy(evaluation["run"]), load_policy(model_folder)
    found = [
        run(
            {"items": evaluation["items"]["pairwise"]},
            tmp_path / f"b{size}",
            Judge(FunctionJudge(lambda request: "[[A]]" if len(request.user) % 2 else "[[B]]")),
            policy,
            opponent=opponent,
            batch_size=size,
            max_new_tokens=5,
        )[0]
        for size in (1, 3)
    ]
    assert found[0].items.equals(found[1].items)
    assert repr(found[0].scores) == repr(found[1].scores)
