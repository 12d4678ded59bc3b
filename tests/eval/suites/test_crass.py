"""CRASS on rows written in its form: the choices' log-probabilities decide, the order of rows and batches does not."""

import numpy as np
import pytest

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.models import pair_logps
from fedllm_eval.policy.policies import load_policy
from fedllm_eval.suites import SuiteOptions, crass
from fedllm_eval.suites.crass import Crass, read_questions

HEADER = "PCT;No;Premise;QCC;CorrectAnswer;Answer1;Answer2;PossibleAnswer3"
ROWS = [
    "1;1;Ice lay.;What if it were summer?;It would have flowed.;It would have frozen.;That is not possible.",
    "2;1;A mill turns.;What if the wind stopped?;It would stand still.;It would turn.;It would fly.;It would sing.",
    '3;1;He asks; "quoted";yes;no;',
]


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "crass.csv"
    file.write_text("\n".join([HEADER, *ROWS]) + "\n")
    return file


@pytest.fixture(scope="module")
def policy(model_folder):
    return load_policy(model_folder, device="cpu")


def test_questions_are_read(file):
    questions = read_questions(file)
    assert [len(question.choices) for question in questions] == [3, 4, 2]
    assert questions[0].text == "Ice lay. What if it were summer?"
    assert questions[0].choices[0] == "It would have flowed."
    assert questions[2].choices == ("yes", "no")


def test_credit_goes_to_the_first_choice(tmp_path, file, monkeypatch):
    # Bytes of the choices: 21, 21, 21; 21, 14, 13, 14; 3, 2.
    logps = [[-9.0, -10.0, -11.0], [-10.0, -8.0, -20.0, -20.0], [-3.0, -3.0]]
    monkeypatch.setattr(crass, "choice_logps", lambda *_: logps)
    result = Crass().run(None, SuiteOptions(folder=tmp_path, items=file))
    assert result.items["score"].to_pylist() == [1.0, 0.0, 0.5]
    # Row 2: -10/21 = -0.48 beats -8/14 = -0.57; row 3: -3/3 = -1 beats -3/2.
    assert result.items["score_per_byte"].to_pylist() == [1.0, 1.0, 1.0]
    accuracy, per_byte = result.scores
    assert accuracy.value == pytest.approx(0.5)
    assert per_byte.value == 1.0
    assert per_byte.low < 1.0
    assert result.settings["chance"] == pytest.approx((1 / 3 + 1 / 4 + 1 / 2) / 3)


def test_logps_are_those_of_the_scorer(policy, tmp_path, file):
    result = Crass().run(policy, SuiteOptions(folder=tmp_path, items=file, batch_size=3))
    question = read_questions(file)[0]
    row = {
        "prompt": [{"role": "user", "content": question.text}],
        "chosen": [{"role": "assistant", "content": question.choices[0]}],
        "rejected": [{"role": "assistant", "content": question.choices[1]}],
    }
    pair = pair_logps(policy.model, policy.tokenizer, [row])
    assert result.items["logps"][0].as_py()[:2] == pytest.approx([pair.chosen_N[0], pair.rejected_N[0]], abs=1e-4)


def test_batches_and_order_change_nothing(policy, tmp_path, file):
    turned = tmp_path / "turned.csv"
    turned.write_text("\n".join([HEADER, *ROWS[::-1]]) + "\n")
    first, second = (
        Crass().run(policy, SuiteOptions(folder=tmp_path, items=one, batch_size=size))
        for one, size in ((file, 1), (turned, 8))
    )
    assert [score.value for score in first.scores] == [score.value for score in second.scores]
    for one, other in zip(first.items["logps"].to_pylist(), second.items["logps"].to_pylist()[::-1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("content", ["", HEADER, HEADER + "\n1;1;premise;question;only one;\n"])
def test_files_that_cannot_be_used(tmp_path, content):
    file = tmp_path / "crass.csv"
    file.write_text(content)
    with pytest.raises(ConfigError):
        Crass().run(None, SuiteOptions(folder=tmp_path, items=file))
    with pytest.raises(ConfigError, match=r"ships no questions; give .* by --suite-items crass=FILE"):
        Crass().run(None, SuiteOptions(folder=tmp_path))
