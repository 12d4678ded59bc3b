"""The suite of languages on written answers, the forms of its file, and its detector."""

import json
import math

import pytest

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.generation import Answer
from fedllm_eval.policy.policies import load_policy
from fedllm_eval.suites import SuiteOptions, language
from fedllm_eval.suites.language import Language, read_questions

QUESTIONS = {"Italian": ["ciao?", "come?"], "Standard_Arabic": [{"instruction": "ما هي؟"}], "nb": ["hva?"]}
CODES = {"uno": "it", "one": "en", "wahid": "ar", "en": "no", "?": None}


def tell(texts):
    return [CODES[text] for text in texts]


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(QUESTIONS))
    return file


@pytest.fixture
def answered(monkeypatch):
    def answer_with(*texts):
        monkeypatch.setattr(language, "kept_answers", lambda *_, **__: [Answer(text, 1, True) for text in texts])

    return answer_with


def test_questions_take_turns(file, tmp_path):
    want = [("it", "ciao?"), ("ar", "ما هي؟"), ("nb", "hva?"), ("it", "come?")]
    assert read_questions(file) == want
    lines = tmp_path / "questions.jsonl"
    lines.write_text("\n".join(json.dumps({"prompt": text, "language": code}) for code, text in want))
    assert read_questions(lines) == want


def test_consistency_by_hand(tmp_path, file, answered):
    answered("uno", "?", "en", "one")
    result = Language(tell).run(None, SuiteOptions(folder=tmp_path, items=file))
    scores = {score.name: (score.value, score.num_items) for score in result.scores}
    # it: it and en; ar: not told; nb: no, which is one language with it.
    assert scores == {
        "language/consistency": (pytest.approx(2 / 3), 3),
        "language/consistency_it": (0.5, 2),
        "language/consistency_nb": (1.0, 1),
    }
    assert result.items["score"].to_pylist() == [1.0, None, 1.0, 0.0]
    assert "1 of 4 answers cannot be told" in result.notes[0]
    assert result.settings["language_detector"] == "given by the caller"


def test_nothing_that_can_be_told_gives_nan(tmp_path, file, answered):
    answered("?", "?", "?", "?")
    (score,) = Language(tell).run(None, SuiteOptions(folder=tmp_path, items=file)).scores
    assert math.isnan(score.value)
    assert score.num_items == 0


def test_a_tiny_policy(model_folder, tmp_path, file):
    options = SuiteOptions(folder=tmp_path, items=file, max_items=2, max_new_tokens=4)
    assert Language().run(load_policy(model_folder, device="cpu"), options).items.num_rows == 2


@pytest.mark.parametrize("content", ["{", "3", "{}", '{"qqqq": ["a"]}', '[{"prompt": "a"}]', '{"it": [""]}'])
def test_files_that_cannot_be_used(tmp_path, content):
    file = tmp_path / "questions.json"
    file.write_text(content)
    with pytest.raises(ConfigError):
        Language().run(None, SuiteOptions(folder=tmp_path, items=file))
    with pytest.raises(ConfigError, match=r"ships no questions; give .* by --suite-items language=FILE"):
        Language().run(None, SuiteOptions(folder=tmp_path))


@pytest.mark.slow
def test_the_languages_of_fed_ayas_test_set(shared_data):
    questions = read_questions(shared_data / "eval" / "fedllm_bench" / "aya_evaluation" / "test_datasets.json")
    assert len(questions) == 160
    assert {code for code, _ in questions} == {"ar", "en", "zh", "pt", "te", "ru", "fr", "es"}
