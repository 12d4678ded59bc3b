"""Whatever text comes from outside survives a round trip to disk, halves of surrogate pairs too."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedllm_eval.judging import Endpoint, Judge, JudgeRequest
from fedllm_eval.judging.questions import Question, questions_digest, read_answers, read_questions
from fedllm_eval.judging.request import Judgment, judgment_from, judgment_line
from fedllm_eval.judging.store import ContentStore, read_jsonl, write_jsonl
from fedllm_eval.texts import json_text, text_bytes, whole
from tests.eval.judging.judge_server import JudgeServer

HALF = "\ud83d"
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)  # surrogates as well


@given(st.dictionaries(ANY_TEXT, ANY_TEXT | st.lists(ANY_TEXT, max_size=3), max_size=3))
def test_what_is_kept_comes_back_as_it_was(value):
    assert json.loads(json_text(value).encode().decode()) == value
    store_value = json.loads(json_text(value, indent=1).encode().decode())
    assert store_value == value


@given(ANY_TEXT, ANY_TEXT)
def test_two_texts_never_share_their_bytes(one, other):
    assert (text_bytes(one) == text_bytes(other)) == (one == other)


@given(ANY_TEXT)
def test_whole_texts_can_be_written_and_stay_what_they_are(text):
    clean = whole(text)
    assert clean.encode().decode() == clean == whole(clean)
    assert len(clean) == len(text)
    assert pa.array([clean], pa.string())[0].as_py() == clean
    if text.isascii():
        assert clean == text


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_every_request_has_a_key_and_every_judgment_reads_back(system, user, answer):
    request = JudgeRequest(system=system, user=user)
    line = json.loads(json_text(judgment_line(request, Judgment(text=answer), "judge")))
    assert judgment_from(line) == (request, Judgment(text=answer))


def test_a_store_and_a_file_of_lines_hold_any_text(tmp_path):
    store = ContentStore(tmp_path / "store")
    store.put("ab12", {"text": f"a{HALF}"})
    assert store.get("ab12") == {"text": f"a{HALF}"}
    write_jsonl(tmp_path / "lines.jsonl", [{"text": f"a{HALF}é"}, {"text": "é"}])
    assert read_jsonl(tmp_path / "lines.jsonl") == [{"text": f"a{HALF}é"}, {"text": "é"}]
    assert "é" in (tmp_path / "lines.jsonl").read_text().splitlines()[1]


def test_questions_and_answers_with_halves_are_read(tmp_path):
    (tmp_path / "question.jsonl").write_text('{"question_id": 1, "turns": ["Why\\ud83d?"]}\n')
    [question] = read_questions(tmp_path)
    assert question.turns == ("Why\ufffd?",)
    (tmp_path / "questions.json").write_text('[{"instruction": "Why\\udc00?", "output": "x"}]')
    assert read_questions(tmp_path / "questions.json")[0].turns == ("Why\ufffd?",)
    (tmp_path / "answers.jsonl").write_text('{"question_id": 1, "choices": [{"turns": ["So\\ud83d"]}]}\n')
    assert read_answers(tmp_path / "answers.jsonl") == {"1": ("So\ufffd",)}
    assert len(questions_digest([Question(question_id="1", turns=(f"Why{HALF}?",))])) == 8


@pytest.mark.parametrize("answer", ["Rating: [[7]] \ud83d", "\udfff", "Rating: [[7]] 😀"])
def test_a_judged_run_with_a_half_in_an_answer_goes_on_and_asks_nothing_twice(tmp_path, answer):
    requests = [JudgeRequest(system="you rate", user=f"question {HALF}", max_tokens=50)]
    with JudgeServer(lambda user, nth: answer) as server:
        for _ in range(2):
            judge = Judge(Endpoint(server.url, "judge"), cache=tmp_path / "cache", record=tmp_path / "record.jsonl")
            [judgment] = judge.ask(requests)
            assert judgment.text == whole(answer)
    assert server.calls.total() == 1
