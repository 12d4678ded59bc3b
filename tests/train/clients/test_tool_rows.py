"""Imported tool calls in training: the same tokens and the same loss as the structured messages give in TRL.

TRL's own training templates for Qwen render the structure (`tools`, `tool_calls`, role `tool`) and mark what the
assistant wrote; `SFTTrainer` trains on exactly those marks.
"""

from importlib.resources import files

import pytest

from fedllm_data.importer import row_of
from fedllm_eval.policy.chat import encode_messages, encode_pair
from fedllm_train.clients.token_cache import encoder_for

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich"}}}
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Zürich?"},
    {"role": "assistant", "content": "I look.", "tool_calls": [CALL]},
    {"role": "tool", "content": "20 °C"},
    {"role": "assistant", "content": "It is 20 °C."},
]


@pytest.fixture(scope="module")
def byte_tokenizer():
    """A token a byte, so that no two texts share their ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")


@pytest.mark.parametrize("template", ["qwen2_5_training.jinja", "qwen3_training.jinja"])
def test_calls_as_text_train_what_the_structure_trains_in_trl(byte_tokenizer, template):
    byte_tokenizer.chat_template = (files("trl") / "chat_templates" / template).read_text(encoding="utf-8")
    row = row_of({"who": "a", "messages": MESSAGES, "tools": TOOLS}, "sft", "who")
    ours = encode_messages(byte_tokenizer, row["messages"])
    theirs = byte_tokenizer.apply_chat_template(
        MESSAGES, tools=TOOLS, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert ours == {name: theirs[name] for name in ours}
    pairs = zip(ours["input_ids"], ours["assistant_masks"], strict=True)
    trained = byte_tokenizer.decode([token for token, kept in pairs if kept])
    assert '{"name": "weather", "arguments": {"city": "Zürich"}}' in trained
    assert "It is 20 °C." in trained
    assert "tool_response" not in trained
    assert "# Tools" not in trained


def test_a_pair_after_a_tools_answer_is_cut_where_the_answer_begins(kit):
    fields = {"who": "a", "prompt": MESSAGES[:-1], "tools": TOOLS, "chosen": "red", "rejected": "blue"}
    row = row_of(fields, "preference", "who")
    tokenizer = kit.make_tokenizer()
    ids = encode_pair(tokenizer, row["prompt"], row["chosen"], row["rejected"])
    assert tokenizer.decode(ids["chosen_ids"]) == "red<|end|>\n"
    assert tokenizer.decode(ids["rejected_ids"]) == "blue<|end|>\n"


def test_a_row_with_a_call_is_encoded_for_training(kit):
    from trl import SFTConfig

    row = row_of({"who": "a", "messages": MESSAGES, "tools": TOOLS}, "sft", "who")
    encode = encoder_for(SFTConfig(output_dir="unused", bf16=False, use_cpu=True), kit.make_tokenizer())
    (encoded,) = encode(row)
    assert any(label != -100 for label in encoded["labels"])
