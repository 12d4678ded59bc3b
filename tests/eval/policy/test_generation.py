"""Generated answers: equal to transformers' own generation, and the same whatever the batching and the order."""

import random

import pytest

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.generation import Answer, generate, generate_answers, prompt_lengths, stop_token_ids
from fedllm_eval.policy.policies import load_policy

from ..conftest import TEXTS, turns

CONVERSATIONS = [turns(text) for text in TEXTS] + [turns(TEXTS[0], TEXTS[1], TEXTS[2]), turns("mill " * 12)]


@pytest.fixture(scope="module")
def policy(model_folder):
    return load_policy(model_folder, device="cpu")


def test_greedy_equals_transformers_generate_one_at_a_time(policy):
    for conversation, answer in zip(CONVERSATIONS, generate(policy, CONVERSATIONS, max_new_tokens=12), strict=True):
        encoded = policy.tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ids = policy.model.generate(
            encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=sorted(stop_token_ids(policy)),
        )[0, encoded["input_ids"].shape[1] :]
        assert answer.text == policy.tokenizer.decode(ids, skip_special_tokens=True).strip()
        assert answer.num_tokens == len(ids)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "seed": 3}, {"temperature": 1.5, "top_p": 0.6}])
def test_batching_and_order_change_nothing(policy, settings):
    want = generate(policy, CONVERSATIONS, max_new_tokens=10, batch_size=1, **settings)
    assert len({answer.text for answer in want}) > 4
    shuffled = list(range(len(CONVERSATIONS)))
    random.Random(0).shuffle(shuffled)
    for batch_size in (3, 100):
        got = generate(
            policy, [CONVERSATIONS[i] for i in shuffled], max_new_tokens=10, batch_size=batch_size, **settings
        )
        assert got == [want[i] for i in shuffled]


def test_an_end_token_ends_an_answer_while_others_go_on(policy):
    # At this temperature tokens are about uniform over 320 words, one of which ends an answer.
    answers = generate(policy, [turns(f"mill {i}") for i in range(40)], max_new_tokens=60, temperature=50.0)
    finished = [answer for answer in answers if answer.finished]
    assert 0 < len(finished) < 40
    assert all(answer.num_tokens < 60 for answer in finished)
    assert all(answer.num_tokens == 60 for answer in answers if not answer.finished)
    assert not any("<|end|>" in answer.text for answer in answers)


def test_seeds_differ_and_repeat(policy):
    first, again, other = (
        generate_answers(policy, CONVERSATIONS, max_new_tokens=8, temperature=1.0, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_equal_conversations_are_answered_once_and_progress_counts_all(policy):
    told = []
    answers = generate_answers(
        policy,
        [CONVERSATIONS[0], CONVERSATIONS[1], CONVERSATIONS[0]],
        max_new_tokens=4,
        temperature=1.0,
        progress=lambda done, total: told.append((done, total)),
    )
    assert answers[0] == answers[2]
    assert told[-1] == (3, 3)
    assert len(told) == 2
    assert generate(policy, []) == []


def test_a_tiny_nucleus_is_greedy_and_a_hot_one_follows_the_distribution(policy):
    greedy = generate_answers(policy, CONVERSATIONS, max_new_tokens=6)
    assert greedy == generate_answers(policy, CONVERSATIONS, max_new_tokens=6, temperature=1.0, top_p=1e-9)

    import torch

    from fedllm_eval.policy.token_choice import TokenChooser

    # Probabilities 0.5, 0.3, 0.15, 0.05; a nucleus of 0.7 keeps the first two as 0.625 and 0.375.
    logits_1V = torch.log(torch.tensor([[0.3, 0.05, 0.5, 0.15]]))
    chooser = TokenChooser(1.0, 0.7, 0)
    drawn = [token for _ in range(4000) for token in chooser(["any"], logits_1V)]
    assert set(drawn) == {0, 2}
    assert drawn.count(2) / 4000 == pytest.approx(0.625, abs=0.03)


def test_adapters_are_switched(model_folder, make_adapter, tmp_path):
    base = load_policy(model_folder, device="cpu")
    tuned = load_policy(make_adapter(tmp_path / "adapter", seed=1), share=base)
    plain, with_adapter = (generate_answers(one, CONVERSATIONS, max_new_tokens=6) for one in (base, tuned))
    assert plain != with_adapter
    assert generate_answers(base, CONVERSATIONS, max_new_tokens=6) == plain


def test_answers_end_where_positions_end(policy):
    conversation = turns("mill " * 100)
    (length,) = prompt_lengths(policy, [conversation])
    room = 128 - length
    assert 0 < room < 50
    (answer,) = generate(policy, [conversation], max_new_tokens=100, batch_size=2)
    assert isinstance(answer, Answer)
    assert answer.num_tokens <= room
    with pytest.raises(ConfigError, match=r"conversation 1 is .* 128 positions"):
        generate(policy, [conversation, turns("mill " * 200)])


@pytest.mark.parametrize(
    "settings",
    [{"max_new_tokens": 0}, {"batch_size": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"temperature": float("nan")}],
)
def test_settings_that_make_no_sense(policy, settings):
    with pytest.raises(ConfigError):
        generate(policy, CONVERSATIONS, **settings)


def test_a_conversation_without_messages(policy):
    with pytest.raises(ConfigError, match="conversation 0 has no message"):
        generate(policy, [[]])
