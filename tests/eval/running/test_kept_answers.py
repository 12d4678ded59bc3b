"""Kept answers: generated once, told apart by what settles them, and safe against a stop in the middle."""

import pytest

from fedllm_eval.policy import generation as module
from fedllm_eval.policy.generation import generate
from fedllm_eval.policy.policies import load_policy
from fedllm_eval.running.kept_answers import ANSWERS_FILE, kept_answers

from ..conftest import TEXTS, turns

CONVERSATIONS = [turns(text) for text in TEXTS]


@pytest.fixture(scope="module")
def policy(model_folder):
    return load_policy(model_folder, device="cpu")


@pytest.fixture
def generated(monkeypatch):
    """The conversations that were truly put to the policy."""
    seen = []

    def counting(policy, conversations, **settings):
        seen.extend(conversations)
        return generate(policy, conversations, **settings)

    monkeypatch.setattr(module, "generate", counting)
    return seen


def test_answers_are_generated_once(policy, tmp_path, generated):
    told = []
    first = kept_answers(policy, CONVERSATIONS[:4], tmp_path, max_new_tokens=5)
    assert len(generated) == 4
    again = kept_answers(
        policy, CONVERSATIONS[::-1], tmp_path, max_new_tokens=5, batch_size=2, progress=lambda *at: told.append(at)
    )
    assert len(generated) == 6
    assert again[::-1][:4] == first
    assert again == generate(policy, CONVERSATIONS[::-1], max_new_tokens=5)
    assert told[0] == (4, 6)
    assert told[-1] == (6, 6)


def test_what_settles_an_answer_tells_it_apart(policy, tmp_path, generated, make_adapter):
    tuned = load_policy(make_adapter(tmp_path / "adapter", seed=1), share=policy)
    for who, settings, new in [
        (policy, {"max_new_tokens": 5}, 2),
        (policy, {"max_new_tokens": 5, "seed": 4, "batch_size": 1}, 0),
        (policy, {"max_new_tokens": 6}, 2),
        (policy, {"max_new_tokens": 5, "temperature": 1.0}, 2),
        (policy, {"max_new_tokens": 5, "temperature": 1.0, "seed": 4}, 2),
        (tuned, {"max_new_tokens": 5}, 2),
        (tuned, {"max_new_tokens": 5}, 0),
    ]:
        generated.clear()
        assert kept_answers(who, CONVERSATIONS[:2], tmp_path, **settings) == generate(
            who, CONVERSATIONS[:2], **settings
        )
        assert len(generated) == new


def test_another_chat_template_is_another_question(policy, tmp_path, generated, monkeypatch):
    kept_answers(policy, CONVERSATIONS[:2], tmp_path, max_new_tokens=3)
    monkeypatch.setattr(policy.tokenizer, "chat_template", "Q: " + policy.tokenizer.chat_template)
    kept_answers(policy, CONVERSATIONS[:2], tmp_path, max_new_tokens=3)
    assert len(generated) == 4


def test_a_stop_loses_no_finished_answer(policy, tmp_path, generated):
    want = kept_answers(policy, CONVERSATIONS, tmp_path, max_new_tokens=5)
    file = tmp_path / ANSWERS_FILE
    lines = file.read_text().splitlines()
    assert len(lines) == len(CONVERSATIONS)
    file.write_text("\n".join(lines[:3]) + "\n" + lines[3][:20])
    generated.clear()
    assert kept_answers(policy, CONVERSATIONS, tmp_path, max_new_tokens=5) == want
    assert len(generated) == len(CONVERSATIONS) - 3
    generated.clear()
    assert kept_answers(policy, CONVERSATIONS, tmp_path, max_new_tokens=5) == want
    assert generated == []


def test_an_answer_is_kept_before_the_next_is_done(policy, tmp_path):
    def stop(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept_answers(policy, CONVERSATIONS, tmp_path, max_new_tokens=5, batch_size=1, progress=stop)
    assert len((tmp_path / ANSWERS_FILE).read_text().splitlines()) == 3
