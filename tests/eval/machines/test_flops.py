"""Operations of training: by hand, against torch's counter on small models, and the figures of the literature."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.decoder_shape import Decoder, Matmul, full_shape, llama_layer, lora_shape
from fedllm_eval.machines.flops import Work, forward_flops, step_flops, visit_flops
from fedllm_eval.machines.model_shape import ModelShape

LLAMA_7B = Decoder(
    layer=llama_layer(4096, attention_size=4096, kv_size=4096, intermediate_size=11008),
    num_layers=32,
    hidden_size=4096,
    vocab_size=32000,
    attention_size=4096,
    kv_size=4096,
    num_other_parameters=32000 * 4096 + 65 * 4096,
)


@st.composite
def models(draw):
    """A small model, its decoder, and the targets of LoRA."""
    kind = draw(st.sampled_from(["llama", "qwen2", "neox"]))
    num_layers, heads = draw(st.integers(1, 4)), draw(st.sampled_from([2, 4]))
    hidden, wide = heads * draw(st.sampled_from([8, 16])), draw(st.sampled_from([48, 160]))
    vocab = draw(st.sampled_from([50, 400]))
    shared = {
        "hidden_size": hidden,
        "num_hidden_layers": num_layers,
        "num_attention_heads": heads,
        "intermediate_size": wide,
        "vocab_size": vocab,
        "attn_implementation": "eager",
    }
    sizes = {"num_layers": num_layers, "hidden_size": hidden, "vocab_size": vocab, "attention_size": hidden}
    if kind == "neox":
        parallel = draw(st.booleans())
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**shared, use_parallel_residual=parallel))
        layer = (
            Matmul("query_key_value", "qkv", hidden, 3 * hidden),
            Matmul("dense", "attention_out", hidden, hidden),
            Matmul("dense_h_to_4h", "mlp_in", hidden, wide),
            Matmul("dense_4h_to_h", "mlp_out", wide, hidden),
        )
        decoder = Decoder(layer=layer, parallel=parallel, kv_size=hidden, **sizes)
    else:
        kv_heads = draw(st.sampled_from([1, heads]))
        config, cls = (LlamaConfig, LlamaForCausalLM) if kind == "llama" else (Qwen2Config, Qwen2ForCausalLM)
        kv_size = kv_heads * hidden // heads
        model = cls(config(**shared, num_key_value_heads=kv_heads, tie_word_embeddings=draw(st.booleans())))
        layer = llama_layer(hidden, attention_size=hidden, kv_size=kv_size, intermediate_size=wide)
        decoder = Decoder(layer=layer, kv_size=kv_size, **sizes)
    names = [each.name for each in decoder.layer]
    targets = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    return model, decoder, targets


def counted(model, batch_size, length, *, train):
    """Operations of one token as torch counts them."""
    ids = torch.zeros((batch_size, length), dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(train):
        loss = model(input_ids=ids, labels=ids).loss
        if train:
            loss.backward()
    return counter.get_total_flops() / (batch_size * length)


@pytest.mark.filterwarnings("ignore")  # transformers' hints at caches and checkpointing
@settings(max_examples=25, deadline=None)
@given(
    models(), st.integers(1, 3), st.integers(2, 70), st.sampled_from([1, 4, 8]), st.booleans(), st.sampled_from("lf")
)
def test_the_formulas_are_within_a_percent_of_torchs_counter(drawn, batch_size, length, rank, recompute, kind):
    model, decoder, targets = drawn
    if kind == "l":
        shape = lora_shape(decoder, rank=rank, targets=targets)
        model = get_peft_model(model, LoraConfig(r=rank, target_modules=targets))
        assert sum(each.numel() for each in model.parameters() if each.requires_grad) == shape.num_trainable
    else:
        shape = full_shape(decoder)
    if recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    assert forward_flops(shape, length) == pytest.approx(counted(model, batch_size, length, train=False), rel=0.01)
    # The counter sees matrix products alone, so that the agreement is exact.
    assert step_flops(shape, length, recompute=recompute) == counted(model, batch_size, length, train=True)


def test_one_layer_by_hand():
    # h = 4, keys of 2, feed-forward of 6: q 16, k 8, v 8, o 16, three of 24; a head of 10 x 4.
    decoder = Decoder(
        layer=llama_layer(4, attention_size=4, kv_size=2, intermediate_size=6),
        num_layers=1,
        hidden_size=4,
        vocab_size=10,
        attention_size=4,
        kv_size=2,
    )
    shape = lora_shape(decoder, rank=1, targets=["q_proj"])
    # N = 48 + 72 + 40 = 160, n = 4 + 4 = 8; q, k, v and q's A read the embedding: 16 + 8 + 8 + 4 = 36.
    assert (shape.num_matmul_parameters, shape.num_trainable, shape.num_without_input_gradient) == (160, 8, 36)
    # Attention of 3 tokens: 4 x 1 x 3 x 4 = 48. Neither k nor v has a gradient: two of four products are left, 48.
    assert step_flops(shape, 3) == 2 * 160 + 2 * 8 + 48 + 2 * (160 - 36) + 4 * 8 + 48


def test_a_model_of_seven_billion():
    shape = lora_shape(LLAMA_7B, rank=16, targets=["q_proj", "v_proj"], reentrant=True)
    assert shape.num_base_parameters == 6_738_415_616
    assert step_flops(shape, 512, recompute=True) == pytest.approx(4.04e10, rel=0.005)
    visit = visit_flops(shape, Work(recompute=True), num_rows=10 * 16, tokens_per_row=512)
    assert visit == pytest.approx(3.3e15, rel=0.01)
    assert visit / 125e12 == pytest.approx(27, abs=0.7)  # seconds
    assert visit / 125e12 * 400 / 3600 == pytest.approx(3, abs=0.1)  # watt-hours
    # The products at the end of every layer are not made again by the kind of checkpointing that transformers uses.
    early = lora_shape(LLAMA_7B, rank=16, targets=["q_proj", "v_proj"])
    spared = step_flops(shape, 512, recompute=True) - step_flops(early, 512, recompute=True)
    assert spared == 2 * 32 * 4096 * 11008


def test_preferences_read_two_answers_and_a_reference():
    shape = lora_shape(LLAMA_7B, rank=8, targets=["q_proj"])
    row = {"num_rows": 3, "tokens_per_row": 100}
    sft, reference = step_flops(shape, 100), forward_flops(shape, 100, with_adapter=False)
    assert visit_flops(shape, Work(), **row) == 300 * sft
    assert visit_flops(shape, Work(objective="dpo"), **row) == 600 * (sft + reference)
    assert visit_flops(shape, Work(objective="dpo", reads_reference=False), **row) == 600 * sft
    # KTO reads each prompt with the answer of another row too: policy and reference, without gradients.
    mismatch = forward_flops(shape, 100) + reference
    assert visit_flops(shape, Work(objective="kto"), **row) == 300 * (sft + reference + mismatch)
    alone = Work(objective="kto", reads_mismatch=False, reads_reference=False)
    assert visit_flops(shape, alone, **row) == 300 * sft
    assert visit_flops(shape, Work(), num_rows=0, tokens_per_row=10) == 0
    with pytest.raises(ConfigError, match="not negative"):
        visit_flops(shape, Work(), num_rows=-1, tokens_per_row=10)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_last_layers_alone_cost_what_torch_counts(num_layers):
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        vocab_size=50,
        attn_implementation="eager",
    )
    targets = ["q_proj", "v_proj", "down_proj"]
    model = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=4, target_modules=targets))
    for name, parameter in model.named_parameters():
        if any(f"layers.{layer}." in name for layer in range(3 - num_layers)):
            parameter.requires_grad_(False)
    decoder = Decoder(
        layer=llama_layer(32, attention_size=32, kv_size=16, intermediate_size=48),
        num_layers=3,
        hidden_size=32,
        vocab_size=50,
        attention_size=32,
        kv_size=16,
    )
    shape = lora_shape(decoder, rank=4, targets=targets).of_last_layers(num_layers)
    assert shape.num_trainable == sum(each.numel() for each in model.parameters() if each.requires_grad)
    assert step_flops(shape, 20) == counted(model, 2, 20, train=True)


def test_records_come_back_and_mistakes_are_named():
    shape = lora_shape(LLAMA_7B, rank=16, targets=["q_proj"])
    assert ModelShape.from_record(shape.as_record() | {"of_a_later_version": 1}) == shape
    with pytest.raises(ConfigError, match="incomplete"):
        ModelShape.from_record({"num_layers": 2})
    with pytest.raises(ConfigError, match=r"'q_prj' is none of a layer's.*did you mean q_proj\? "):
        lora_shape(LLAMA_7B, rank=16, targets=["q_prj"])
    with pytest.raises(ConfigError, match="trains nothing"):
        lora_shape(LLAMA_7B, rank=16, targets=[])
    with pytest.raises(ConfigError, match="33 layers cannot be trained alone: the model has 32"):
        shape.of_last_layers(33)
    with pytest.raises(ConfigError, match="all weights are trained"):
        full_shape(LLAMA_7B).of_last_layers(1)
    with pytest.raises(ConfigError, match="num_layers is 0"):
        dataclasses.replace(shape, num_layers=0)
