"""A base model from nothing: the same for a seed, loadable by name, and never half written."""

import hashlib
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from fedllm_data.errors import ConfigError
from fedllm_train.models import tiny
from fedllm_train.models.tiny import TOY, TinyConfig, train_tiny


def conversation(*contents):
    roles = ("user", "assistant")
    return [{"role": roles[index % 2], "content": content} for index, content in enumerate(contents)]


ROWS = [
    {"messages": conversation(f"{a} + {b}?", f"{a + b}", "Столица Перу?", "Лима"), "language": "und"}
    for a in range(5)
    for b in range(5)
]


def digest(folder):
    return hashlib.sha256(
        (folder / "model.safetensors").read_bytes() + (folder / "tokenizer.json").read_bytes()
    ).hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return train_tiny(ROWS, tmp_path_factory.mktemp("tiny") / "base", config=TOY).path


def test_the_same_seed_gives_the_same_model_and_another_seed_another(folder, tmp_path):
    again = train_tiny(ROWS, tmp_path / "again", config=TOY).path
    other = train_tiny(ROWS, tmp_path / "other", config=TOY, seed=1).path
    assert digest(again) == digest(folder) != digest(other)


def test_the_folder_loads_with_the_auto_classes_in_float32(folder):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert tokenizer.eos_token == "<|end|>"
    assert tokenizer.pad_token == "<|pad|>"
    for config in (model.config, model.generation_config):
        assert (config.eos_token_id, config.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert model.config.vocab_size == len(tokenizer)
    text = "Wie heißt 猫 auf 中文? قطة 🐈"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_every_beginning_of_a_conversation_is_a_prefix_of_its_rendering(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "system", "content": "Be kind."}, *conversation("a\n", " b ", "c", "d")]
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    for end in (2, 4):
        prompt = tokenizer.apply_chat_template(messages[:end], tokenize=False, add_generation_prompt=True)
        assert whole.startswith(prompt)
        assert whole[len(prompt) :].startswith(messages[end]["content"] + "<|end|>")
        # The same holds for the tokens, since the marks are tokens of their own.
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, whole)]
        assert ids[1][: len(ids[0])] == ids[0]


def test_training_lowers_the_loss_and_reports_progress(tmp_path):
    seen = []
    config = replace(TOY, num_steps=60, learning_rate=2e-2)
    result = train_tiny(ROWS, tmp_path / "base", config=config, progress=lambda *step: seen.append(step))
    assert result.last_loss < 0.7 * result.first_loss
    assert [step for step, _, _ in seen] == list(range(1, 61))
    # 25 rows of fewer than 60 tokens, in 60 batches of 4 blocks of at most 160 tokens.
    assert 0 < result.num_tokens <= 60 * 4 * 160


def test_the_default_has_one_to_three_million_parameters(folder):
    tokenizer, config = AutoTokenizer.from_pretrained(folder), TinyConfig()
    shape = tiny.model_config(tokenizer, config)
    shape.vocab_size = config.vocab_size
    with torch.device("meta"):
        model = LlamaForCausalLM(shape)
    assert 1e6 <= sum(parameter.numel() for parameter in model.parameters()) <= 3e6


def test_a_conversation_longer_than_a_block_is_cut(tmp_path):
    long_rows = [{"messages": conversation("tell me " * 100, "no " * 100)}]
    result = train_tiny(long_rows, tmp_path / "base", config=replace(TOY, num_steps=2))
    assert result.num_tokens == 2 * TOY.batch_size * TOY.block_length


def test_the_callers_random_state_is_left_as_it_was(tmp_path):
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    train_tiny(ROWS, tmp_path / "base", config=replace(TOY, num_steps=1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_earlier_model_is_replaced_and_stays_if_the_new_one_fails(tmp_path, monkeypatch):
    out = tmp_path / "base"
    first = digest(train_tiny(ROWS, out, config=TOY).path)
    second = digest(train_tiny(ROWS, out, config=TOY, seed=1).path)
    assert first != second
    with monkeypatch.context() as patch:
        patch.setattr(
            tiny.PreTrainedTokenizerFast, "save_pretrained", lambda *_: (_ for _ in ()).throw(OSError("full"))
        )
        with pytest.raises(OSError, match="full"):
            train_tiny(ROWS, out, config=TOY)
    assert digest(out) == second
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_folder_that_holds_something_else_is_refused_before_training(tmp_path):
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(ConfigError, match="holds something else"):
        train_tiny(ROWS, tmp_path, config=TOY)
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


def test_no_rows_or_an_impossible_shape_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no rows"):
        train_tiny([], tmp_path / "base", config=TOY)
    for wrong in ({"num_heads": 3}, {"vocab_size": 100}, {"num_steps": 0}, {"block_length": 1}):
        with pytest.raises(ConfigError, match="tiny model"):
            TinyConfig(**wrong)
