"""What clients are trained on: the assistant's tokens, encoded once, truncated as TRL truncates."""

import pytest

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.chat import encode_messages, encode_pair
from fedllm_train.clients import token_cache
from fedllm_train.clients.token_cache import TokenCache, encoder_for


def trained_text(tokenizer, encoded):
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    return tokenizer.decode([token for token, kept in pairs if kept])


def test_only_the_assistants_words_and_its_end_of_turn_are_trained(kit):
    tokenizer = kit.make_tokenizer(kit.PLAIN_TEMPLATE)
    messages = [kit.user("say red"), kit.assistant("red"), kit.user("say two"), kit.assistant("one two")]
    encoded = encode_messages(tokenizer, messages)
    assert trained_text(tokenizer, encoded) == "red<|end|>one two<|end|>"
    whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    assert encoded["input_ids"] == whole


def test_marked_and_unmarked_templates_agree(kit):
    messages = [kit.user("say red"), kit.assistant("red"), kit.user("say two"), kit.assistant("one two")]
    plain, marked = (
        encode_messages(kit.make_tokenizer(template), messages)
        for template in (kit.PLAIN_TEMPLATE, kit.MARKED_TEMPLATE)
    )
    assert plain == marked


def test_a_template_that_marks_the_last_turn_trains_on_the_answer_alone(kit):
    rewriting = (
        "{% for m in messages %}{% if loop.last %}LAST {% endif %}{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}"
    )
    tokenizer = kit.make_tokenizer(rewriting)
    encoded = encode_messages(tokenizer, [kit.user("a"), kit.assistant("b")])
    assert tokenizer.decode(encoded["input_ids"]) == "a<|end|>LAST b<|end|>"
    assert trained_text(tokenizer, encoded) == "b<|end|>"


def test_a_tokenizer_without_chat_template_is_refused(kit):
    tokenizer = kit.make_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="has no chat template"):
        encode_messages(tokenizer, [kit.user("a"), kit.assistant("b")])


def test_a_pair_is_cut_where_the_answer_begins(kit):
    tokenizer = kit.make_tokenizer()
    ids = encode_pair(tokenizer, [kit.user("say red")], [kit.assistant("red")], [kit.assistant("blue")])
    assert tokenizer.decode(ids["prompt_ids"]) == "<|user|>say red<|end|>\n<|assistant|>"
    assert tokenizer.decode(ids["chosen_ids"]) == "red<|end|>\n"
    assert tokenizer.decode(ids["rejected_ids"]) == "blue<|end|>\n"


def test_rows_are_encoded_at_the_first_visit_only(kit, tmp_path, monkeypatch):
    calls = []
    encode = token_cache.encode_messages
    monkeypatch.setattr(token_cache, "encode_messages", lambda *args: calls.append(1) or encode(*args))
    clients = kit.make_clients()
    cache = TokenCache(clients, kit.trl_args("sft"), kit.make_tokenizer(), tmp_path, loss_on="assistant")
    first = cache["ann"].rows[:]
    assert len(calls) == 7  # ann's rows
    assert cache["ann"].rows[:] == first
    assert len(calls) == 7


def test_a_client_id_never_becomes_a_path(kit, tmp_path):
    clients = kit.make_clients(sizes={"../../escape": 2, "a/b": 2})
    cache = TokenCache(clients, kit.trl_args("sft"), kit.make_tokenizer(), tmp_path / "t", loss_on="assistant")
    for client_id in clients:
        assert cache[client_id].num_rows == 2
    assert sorted(path.parent for path in tmp_path.rglob("*.arrow")) == [tmp_path / "t"] * 2


def test_rows_without_a_trained_token_left_are_dropped_and_counted(kit, tmp_path):
    # "<|user|>say red<|end|>\n<|assistant|>" alone is longer than 6 tokens, so nothing of the answer is left.
    clients = kit.make_clients(sizes={"ann": 4})
    for args in (kit.trl_args("sft", max_length=6), kit.trl_args("dpo", max_length=6)):
        task = "sft" if hasattr(args, "packing") else "preference"
        cache = TokenCache(
            kit.make_clients(task, {"ann": 4}), args, kit.make_tokenizer(), tmp_path / task, loss_on="assistant"
        )
        assert (cache["ann"].num_rows, cache["ann"].num_dropped_rows) == (0, 4)
    assert clients.sizes == {"ann": 4}


def test_loss_on_all_labels_every_token(kit):
    tokenizer = kit.make_tokenizer()
    row = kit.sft_rows("ann", 1)[0]
    (encoded,) = encoder_for(kit.trl_args("sft"), tokenizer, loss_on="all")(row)
    assert encoded["labels"] == encoded["input_ids"]


def test_packing_keeps_every_trained_token(kit, tmp_path):
    args = kit.trl_args("sft", packing=True, packing_strategy="wrapped", max_length=32)
    clients, tokenizer = kit.make_clients(sizes={"ann": 9}), kit.make_tokenizer()
    packed = TokenCache(clients, args, tokenizer, tmp_path / "packed", loss_on="assistant")["ann"]
    plain = TokenCache(clients, kit.trl_args("sft"), tokenizer, tmp_path / "plain", loss_on="assistant")["ann"]

    def labels(rows):
        return [label for row in rows for label in row["labels"] if label != -100]

    assert packed.num_rows == plain.num_rows == 9
    assert labels(packed.rows) == labels(plain.rows)
    assert len(packed.rows) < len(plain.rows)
