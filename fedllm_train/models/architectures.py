"""Names and shapes of the parameters of common architectures, from a model's `config.json` alone.

An architecture is written as it is in transformers: the linear modules of a layer with their (outputs, inputs), the
vectors of its norms, and which settings give biases. Sizes are letters: h hidden size, f the width of the MLP, d the
size of an attention head, q all heads together, k all key heads together. A test compares every entry with the model
that transformers makes of a config. Imports no torch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_train.models.base_tensors import BaseTensors, ends_in_product

__all__ = ["ARCHITECTURES", "Architecture", "tensors_of_config"]

_ATTENTION = ("self_attn.q_proj q h", "self_attn.k_proj k h", "self_attn.v_proj k h", "self_attn.o_proj h q")
_GATED = ("mlp.gate_proj f h", "mlp.up_proj f h", "mlp.down_proj h f")
_TWO_NORMS = ("input_layernorm.weight h", "post_attention_layernorm.weight h")
_FOUR_NORMS = (*_TWO_NORMS, "pre_feedforward_layernorm.weight h", "post_feedforward_layernorm.weight h")
_HEAD_NORMS = ("self_attn.q_norm.weight d", "self_attn.k_norm.weight d")
_OF_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_OF_MLP = ("gate_proj", "up_proj", "down_proj")


def _with_bias(norm: str) -> tuple[str, str]:
    return f"{norm}.weight h", f"{norm}.bias h"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How a decoder-only model of transformers is built."""

    linears: tuple[str, ...] = (*_ATTENTION, *_GATED)
    """`module outputs inputs` within a layer."""
    vectors: tuple[str, ...] = _TWO_NORMS
    """`parameter size` within a layer."""
    biases: tuple[tuple[str, bool, tuple[str, ...]], ...] = (
        ("attention_bias", False, _OF_ATTENTION),
        ("mlp_bias", False, _OF_MLP),
    )
    """(setting, its default, ends of the modules that have a bias where it is true)."""
    layers: str = "model.layers"
    embeddings: tuple[str, ...] = ("model.embed_tokens vocab h",)
    last: tuple[str, ...] = ("model.norm.weight h",)
    """Vectors behind the last layer."""
    head_has_bias: bool = False
    is_tied: bool = False
    """Whether the output layer is the table of embeddings where the config does not say."""
    head_dim: int | None = None
    """Size of an attention head where the config does not say; None means hidden size / heads."""
    kv_heads: int | None = None
    """Key heads where the config does not say; None means as many as heads."""
    mlp_ratio: int | None = None
    """Width of the MLP in hidden sizes where the config does not say."""
    is_parallel: bool = False
    """Whether the MLP reads what attention reads, where the config does not say."""
    is_transposed: bool = False
    """Whether weights are kept as (inputs, outputs), as GPT-2's are."""
    others: tuple[str, ...] = ()
    """Settings that add or take away parameters, with which a model is not the one that stands here."""
    defaults: Mapping[str, float] = field(default_factory=dict)
    """Settings of transformers' own that a config may leave out."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Our name of a setting -> the architecture's."""


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture(),
    "mistral": Architecture(biases=(), kv_heads=8),
    "qwen2": Architecture(biases=(("", True, ("q_proj", "k_proj", "v_proj")),), kv_heads=32),
    "qwen3": Architecture(vectors=(*_TWO_NORMS, *_HEAD_NORMS), head_dim=128, kv_heads=32),
    "gemma": Architecture(head_dim=256, kv_heads=16, is_tied=True),
    "gemma2": Architecture(vectors=_FOUR_NORMS, head_dim=256, kv_heads=4, is_tied=True),
    "gemma3_text": Architecture(vectors=(*_FOUR_NORMS, *_HEAD_NORMS), head_dim=256, kv_heads=4, is_tied=True),
    "phi3": Architecture(
        linears=("self_attn.qkv_proj q+2k h", "self_attn.o_proj h q", "mlp.gate_up_proj 2f h", "mlp.down_proj h f"),
        biases=(),
    ),
    "smollm3": Architecture(kv_heads=4, is_tied=True),
    "granite": Architecture(),
    "olmo2": Architecture(
        vectors=(
            *("post_attention_layernorm.weight h", "post_feedforward_layernorm.weight h"),
            *("self_attn.q_norm.weight q", "self_attn.k_norm.weight k"),
        ),
    ),
    "stablelm": Architecture(
        vectors=(*_with_bias("input_layernorm"), *_with_bias("post_attention_layernorm")),
        biases=(("use_qkv_bias", False, ("q_proj", "k_proj", "v_proj")),),
        last=_with_bias("model.norm"),
        kv_heads=32,
        others=("qk_layernorm", "use_parallel_residual"),
    ),
    "starcoder2": Architecture(
        linears=(*_ATTENTION, "mlp.c_fc f h", "mlp.c_proj h f"),
        vectors=(*_with_bias("input_layernorm"), *_with_bias("post_attention_layernorm")),
        biases=(("use_bias", True, (*_OF_ATTENTION, "c_fc", "c_proj")),),
        last=_with_bias("model.norm"),
        kv_heads=2,
        is_tied=True,
    ),
    "phi": Architecture(
        linears=(*_ATTENTION[:3], "self_attn.dense h q", "mlp.fc1 f h", "mlp.fc2 h f"),
        vectors=_with_bias("input_layernorm"),
        biases=(("", True, ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")),),
        last=_with_bias("model.final_layernorm"),
        head_has_bias=True,
        is_parallel=True,
        others=("qk_layernorm",),
    ),
    "gpt_neox": Architecture(
        linears=(
            *("attention.query_key_value 3h h", "attention.dense h h"),
            *("mlp.dense_h_to_4h f h", "mlp.dense_4h_to_h h f"),
        ),
        vectors=(*_with_bias("input_layernorm"), *_with_bias("post_attention_layernorm")),
        biases=(
            ("attention_bias", True, ("attention.query_key_value", "attention.dense")),
            ("", True, ("dense_h_to_4h", "dense_4h_to_h")),
        ),
        layers="gpt_neox.layers",
        embeddings=("gpt_neox.embed_in vocab h",),
        last=_with_bias("gpt_neox.final_layer_norm"),
        is_parallel=True,
    ),
    "gpt2": Architecture(
        linears=("attn.c_attn 3h h", "attn.c_proj h h", "mlp.c_fc f h", "mlp.c_proj h f"),
        vectors=(*_with_bias("ln_1"), *_with_bias("ln_2")),
        biases=(("", True, ("c_attn", "c_proj", "c_fc")),),
        layers="transformer.h",
        embeddings=("transformer.wte vocab h", "transformer.wpe positions h"),
        last=_with_bias("transformer.ln_f"),
        is_tied=True,
        mlp_ratio=4,
        is_transposed=True,
        others=("add_cross_attention",),
        defaults={"resid_pdrop": 0.1},
        names={
            **{"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
            **{"intermediate_size": "n_inner", "positions": "n_positions"},
        },
    ),
}
"""`model_type` of a config.json -> its architecture."""


def tensors_of_config(config: Mapping[str, Any], *, where: str) -> BaseTensors | None:
    """Return the parameters of the model that a config describes; None where its architecture is not known here.

    Args:
        config: the content of a `config.json`.
        where: its place, for errors.

    Raises:
        ConfigError: if the config lacks a size.

    >>> sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> tensors = tensors_of_config({"model_type": "llama", "vocab_size": 10, **sizes}, where="config.json")
    >>> tensors.linears["model.layers.0.mlp.down_proj"], tensors.attention_size
    ((8, 16), 8)
    """
    made = ARCHITECTURES.get(str(config.get("model_type")))
    if made is None or any(config.get(each) for each in made.others):
        return None
    sizes = _sizes(config, made, where)
    num_layers = sizes.pop("layers")
    linears: dict[str, tuple[int, int]] = {}
    parameters: dict[str, tuple[int, ...]] = {}
    for name, *dims in map(str.split, made.embeddings):
        parameters[f"{name}.weight"] = tuple(sizes[each] for each in dims)
    biased = tuple(end for setting, default, ends in made.biases if config.get(setting, default) for end in ends)
    for index in range(num_layers):
        for name, size in map(str.split, made.vectors):
            parameters[f"{made.layers}.{index}.{name}"] = (sizes[size],)
        for name, outputs, inputs in map(str.split, made.linears):
            module, shape = f"{made.layers}.{index}.{name}", (sizes[outputs], sizes[inputs])
            linears[module] = shape
            parameters[f"{module}.weight"] = shape[::-1] if made.is_transposed else shape
            if name.endswith(biased):
                parameters[f"{module}.bias"] = (shape[0],)
    parameters |= {name: (sizes[size],) for name, size in map(str.split, made.last)}
    linears["lm_head"] = (sizes["vocab"], sizes["h"])
    is_tied = config.get("tie_word_embeddings", made.is_tied)
    parameters |= dict(_head(sizes, is_tied=is_tied, has_bias=made.head_has_bias))
    return BaseTensors(
        linears=linears,
        head="lm_head",
        parameters=parameters,
        num_layers=num_layers,
        hidden_size=sizes["h"],
        attention_size=sizes["q"],
        kv_size=sizes["k"],
        vocab_size=sizes["vocab"],
        is_parallel=config.get("use_parallel_residual", made.is_parallel),
        ends_in_product=ends_in_product(parameters, {**made.defaults, **config}),
    )


def _head(sizes: Mapping[str, int], *, is_tied: bool, has_bias: bool) -> Iterator[tuple[str, tuple[int, ...]]]:
    if not is_tied:
        yield "lm_head.weight", (sizes["vocab"], sizes["h"])
    if has_bias:
        yield "lm_head.bias", (sizes["vocab"],)


def _sizes(config: Mapping[str, Any], made: Architecture, where: str) -> dict[str, int]:
    """The value of every letter."""

    def of(name: str, default: int | None = None) -> int:
        value = config.get(made.names.get(name, name))
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(
                f"{where} has {made.names.get(name, name)} {value!r}, from which the model's size follows; give the "
                "config.json that stands beside the weights"
            )
        return value

    hidden, heads = of("hidden_size"), of("num_attention_heads")
    head = of("head_dim", made.head_dim or hidden // heads)
    # Written as null it means as many as heads; left out, what transformers takes.
    kept = of("num_key_value_heads", heads if "num_key_value_heads" in config else made.kv_heads or heads)
    width = of("intermediate_size", None if made.mlp_ratio is None else made.mlp_ratio * hidden)
    sizes = {"h": hidden, "d": head, "q": heads * head, "k": kept * head, "f": width}
    sizes |= {"3h": 3 * hidden, "2f": 2 * width, "q+2k": (heads + 2 * kept) * head}
    sizes |= {"vocab": of("vocab_size"), "layers": of("num_hidden_layers")}
    return sizes | ({"positions": of("positions")} if "positions" in made.names else {})
