"""Rows as tokens: all at once is each by itself, also where the chat template cannot render one of them."""

import pytest

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.chat import encode_pair, encode_pairs
from fedllm_eval.policy.encoded_rows import encode_message_rows, encode_pair_rows, sequence_key

from ..conftest import turns


def one_by_one(tokenizer, rows):
    return [encode_pair(tokenizer, row["prompt"], row["chosen"], row["rejected"]) for row in rows]


def test_pairs_at_once_are_pairs_one_by_one(tokenizer, pair_rows):
    rows = [*pair_rows, {**pair_rows[0], "prompt": turns("a", "b", "c")}]
    triples = [(row["prompt"], row["chosen"], row["rejected"]) for row in rows]
    assert encode_pairs(tokenizer, triples) == one_by_one(tokenizer, rows)
    assert encode_pairs(tokenizer, []) == []
    encoded = encode_pair_rows(tokenizer, rows)
    for at, expected in enumerate(one_by_one(tokenizer, rows)):
        assert encoded.prompts[at] == expected["prompt_ids"]
        assert encoded.answers[at] == (expected["chosen_ids"], expected["rejected_ids"])


def test_a_row_that_cannot_be_rendered_is_told_from_the_others(tokenizer, pair_rows, monkeypatch):
    template = (
        "{% if messages[0]['content'] == 'bad' %}{{ raise_exception('no') }}{% endif %}" + tokenizer.chat_template
    )
    monkeypatch.setattr(tokenizer, "chat_template", template)
    rows = [pair_rows[0], {**pair_rows[1], "prompt": turns("bad")}, pair_rows[2]]
    encoded = encode_pair_rows(tokenizer, rows)
    assert encoded.unrendered_N.tolist() == [False, True, False]
    assert encoded.dropped_N.tolist() == [False, True, False]
    assert encoded.prompts[2] == one_by_one(tokenizer, rows[2:])[0]["prompt_ids"]


def test_prompt_and_answers_keep_max_length_together(tokenizer, pair_rows):
    whole = encode_pair_rows(tokenizer, pair_rows)
    length = max(len(prompt) for prompt in whole.prompts)
    cut = encode_pair_rows(tokenizer, pair_rows, length)
    for at in range(len(pair_rows)):
        for side in (0, 1):
            ids, mask = whole.sequence(at, side)
            assert cut.sequence(at, side) == (ids[:length], mask[:length])
    assert cut.dropped_N.tolist() == [len(prompt) >= length for prompt in whole.prompts]
    assert cut.truncated_N.all()


def test_keys_tell_tokens_and_marks(tokenizer, pair_rows, message_rows):
    encoded = encode_pair_rows(tokenizer, pair_rows)
    keys = {sequence_key(encoded.sequence(at, side)) for at in range(len(pair_rows)) for side in (0, 1)}
    texts = {(str(row["prompt"]), str(row[side])) for row in pair_rows for side in ("chosen", "rejected")}
    assert len(keys) == len(texts)
    ids, mask = encode_message_rows(tokenizer, message_rows[:1]).sequences[0]
    others = [(ids[:-1], mask[:-1]), (ids, [1] * len(ids)), ([ids[0] + 1, *ids[1:]], mask)]
    assert sequence_key((ids, mask)) not in {sequence_key(other) for other in others}
    assert len(sequence_key((ids, mask))) == 16


def test_a_tokenizer_without_a_template_is_an_error(tokenizer, pair_rows, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", None)
    with pytest.raises(ConfigError, match="has no chat template"):
        encode_pair_rows(tokenizer, pair_rows)
