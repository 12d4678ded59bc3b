"""GSM8K's suite on written answers, then once through a tiny policy."""

import json

import pytest

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.generation import Answer
from fedllm_eval.policy.policies import load_policy
from fedllm_eval.scoring.proportion import wilson_interval
from fedllm_eval.suites import SuiteOptions, gsm8k
from fedllm_eval.suites.gsm8k import INSTRUCTION, Gsm8k

PROBLEMS = [("one and one?", "1 + 1\n#### 2"), ("ten times ten?", "#### 100"), ("half?", "#### 0.5")]


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in PROBLEMS))
    return file


def test_accuracy_by_hand(tmp_path, file, monkeypatch):
    written = {"one and one?": "It is 2.", "ten times ten?": "10 x 10\n#### 1,000", "half?": "I do not know"}

    def answer(policy, conversations, folder, **settings):
        (message,) = conversations[0]
        assert message["content"].endswith(INSTRUCTION)
        return [Answer(written[turns[0]["content"].split("\n")[0]], 3, True) for turns in conversations]

    monkeypatch.setattr(gsm8k, "kept_answers", answer)
    result = Gsm8k().run(None, SuiteOptions(folder=tmp_path, items=file))
    (score,) = result.scores
    # Right, wrong, no number: 1 of 3.
    assert (score.value, score.num_items) == (pytest.approx(1 / 3), 3)
    assert (score.low, score.high) == (wilson_interval(1, 3).low, wilson_interval(1, 3).high)
    assert result.items["final_number"].to_pylist() == ["2", "1000", None]
    assert result.notes == ("1 of 3 answers hold no number and count as wrong",)


def test_a_tiny_policy(model_folder, tmp_path, file):
    options = SuiteOptions(folder=tmp_path, items=file, max_new_tokens=5, max_items=2)
    result = Gsm8k().run(load_policy(model_folder, device="cpu"), options)
    assert result.items.num_rows == 2
    assert any("2 of 2 answers were cut" in note for note in result.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no problem"),
        ("{", "line 1"),
        ('{"question": "a"}', "line 1"),
        ('{"question": "a", "answer": "b"}', "####"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, content, message):
    file = tmp_path / "test.jsonl"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        Gsm8k().run(None, SuiteOptions(folder=tmp_path, items=file))
    with pytest.raises(ConfigError, match=r"ships no problems; give .* by --suite-items gsm8k=FILE"):
        Gsm8k().run(None, SuiteOptions(folder=tmp_path))
