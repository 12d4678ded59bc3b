"""Secrets in a policy's own words: as many as asked for, distinct, and such that one not learned has any rank."""

import numpy as np
import pytest

from fedllm_data.errors import MetricError
from fedllm_eval.audit import audit_canaries, make_canaries
from fedllm_eval.audit.memorisation import sampled_secrets
from fedllm_eval.policy import generation
from fedllm_eval.policy.policies import load_policy

QUESTION = "what runs past the mill?"


@pytest.fixture(scope="module")
def policy(model_folder):
    return load_policy(model_folder)


@pytest.fixture
def says(monkeypatch):
    """Replaces the policy's answers by given texts, one for each number of draw."""

    def put(texts):
        asked = []

        def generate_answers(policy, conversations, *, draws, **settings):
            asked.append((list(conversations), list(draws), settings))
            return [texts[draw % len(texts)] for draw in draws]

        monkeypatch.setattr(generation, "generate_answers", generate_answers)
        return asked

    return put


def test_repeats_empty_answers_and_white_space_do_not_count(says):
    # Draws 0 to 2 give one secret twice and nothing once, draws 3 to 5 two more: three distinct after six.
    asked = says(["blue  heron\n", "blue heron", " ", "old reed", "blue heron", "new oar"])
    assert sampled_secrets(None, QUESTION, 3, max_new_tokens=5, seed=7) == ["blue heron", "old reed", "new oar"]
    assert [draws for _, draws, _ in asked] == [[0, 1, 2], [3, 4, 5]]
    assert asked[0][0] == [[{"role": "user", "content": QUESTION}]] * 3
    assert {name: asked[0][2][name] for name in ("temperature", "max_new_tokens", "seed")} == {
        "temperature": 1.0,
        "max_new_tokens": 5,
        "seed": 7,
    }


def test_a_policy_that_repeats_itself_and_a_cold_one_are_errors(says):
    asked = says(["the same", "the  same", "another"])
    with pytest.raises(MetricError, match="only 2 distinct answers in 12 samples"):
        sampled_secrets(None, QUESTION, 3)
    assert len(asked) == 4
    with pytest.raises(MetricError, match=r"temperature 0\.7 is below 0\.8"):
        sampled_secrets(None, QUESTION, 3, temperature=0.7)
    assert len(asked) == 4


def test_a_real_policy_gives_as_many_as_asked_for_whatever_the_batch(policy):
    secrets = sampled_secrets(policy, QUESTION, 12, max_new_tokens=6, batch_size=5)
    assert len(set(secrets)) == len(secrets) == 12
    assert all(secret == " ".join(secret.split()) for secret in secrets)
    assert sampled_secrets(policy, QUESTION, 12, max_new_tokens=6, batch_size=12) == secrets
    # More are the same ones and others after them; another seed gives others.
    assert sampled_secrets(policy, QUESTION, 14, max_new_tokens=6)[:12] == secrets
    assert sampled_secrets(policy, QUESTION, 12, max_new_tokens=6, seed=1) != secrets


def test_whichever_is_planted_the_ranks_among_the_others_are_one_to_n(policy):
    secrets = sampled_secrets(policy, QUESTION, 8, max_new_tokens=6)
    bits = []
    for secret in secrets:
        (canary,) = make_canaries(["ann"], salt=b"s" * 32, secrets=[secret])
        others = [other for other in secrets if other != secret]
        # One question and prefix for all: only the secret differs.
        found = audit_canaries(policy, [canary], candidates={"ann": others})
        bits.append(found["exposure"]["mean_bits"])
    # A policy that learned none of them: log2 8 - log2 rank, every rank from 1 to 8 once.
    assert sorted(bits) == pytest.approx(sorted(3 - np.log2(np.arange(1, 9))))


def test_draws_of_one_conversation_differ_and_draw_0_is_the_answer_without_draws(policy):
    conversation = [{"role": "user", "content": QUESTION}]
    settings = {"max_new_tokens": 6, "temperature": 1.0}
    several = generation.generate_answers(policy, [conversation] * 4, draws=[0, 1, 2, 1], **settings)
    assert several[1] == several[3]
    assert len(set(several)) == 3
    assert generation.generate_answers(policy, [conversation], **settings) == several[:1]
    # Greedy answers have nothing to draw.
    assert len(set(generation.generate_answers(policy, [conversation] * 3, draws=[0, 1, 2], max_new_tokens=6))) == 1
