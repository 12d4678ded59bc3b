"""A decoder's sizes, matrix by matrix, and the shape of its training under LoRA or whole.

Under LoRA the embedding has no gradient, so the first layer's matrices that read it need none for their input, and
neither does what follows until a trained weight has been met. Which products the backward pass can leave out follows
from the order of the matrices within a layer:

    x -> query, key, value -> attention -> attention_out -> + x -> mlp_in -> mlp_out -> +

and with `parallel` (GPT-NeoX, Phi) mlp_in reads x itself. Imports the standard library only.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_eval.machines.model_shape import ModelShape

__all__ = ["Decoder", "Matmul", "Role", "full_shape", "llama_layer", "lora_shape"]

Role = Literal["query", "key", "value", "qkv", "attention_out", "mlp_in", "mlp_out"]
_ATTENTION_IN = ("query", "key", "value", "qkv")


@dataclass(frozen=True)
class Matmul:
    """One linear layer."""

    name: str
    """The module's, as LoRA's targets call it."""
    role: Role
    num_inputs: int
    num_outputs: int

    @property
    def num_weights(self) -> int:
        """Without a bias, which is added and not multiplied."""
        return self.num_inputs * self.num_outputs


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A stack of equal layers and a head."""

    layer: tuple[Matmul, ...]
    """The linear layers of each, in the order in which they are read."""
    num_layers: int
    hidden_size: int
    vocab_size: int
    attention_size: int
    kv_size: int
    parallel: bool = False
    """Whether the feed-forward layer reads what attention reads."""
    num_other_parameters: int = 0
    """Weights that are not multiplied: norms, biases, and the embedding table unless it is the head."""

    @property
    def num_matmul_parameters(self) -> int:
        """Weights of the linear layers with the head."""
        per_layer = sum(each.num_weights for each in self.layer)
        return self.num_layers * per_layer + self.vocab_size * self.hidden_size


def llama_layer(hidden_size: int, *, attention_size: int, kv_size: int, intermediate_size: int) -> tuple[Matmul, ...]:
    """Return the linear layers of a Llama, Mistral, Qwen2 or Qwen3 layer.

    >>> sum(each.num_weights for each in llama_layer(4, attention_size=4, kv_size=2, intermediate_size=6))
    120
    """
    return (
        Matmul("q_proj", "query", hidden_size, attention_size),
        Matmul("k_proj", "key", hidden_size, kv_size),
        Matmul("v_proj", "value", hidden_size, kv_size),
        Matmul("o_proj", "attention_out", attention_size, hidden_size),
        Matmul("gate_proj", "mlp_in", hidden_size, intermediate_size),
        Matmul("up_proj", "mlp_in", hidden_size, intermediate_size),
        Matmul("down_proj", "mlp_out", intermediate_size, hidden_size),
    )


def full_shape(decoder: Decoder, *, reentrant: bool = False) -> ModelShape:
    """Return the shape of training every weight.

    Args:
        decoder: the model.
        reentrant: how activation checkpointing is made, as in `lora_shape`.

    >>> layer = llama_layer(4, attention_size=4, kv_size=2, intermediate_size=6)
    >>> sizes = dict(num_layers=2, hidden_size=4, vocab_size=10, attention_size=4, kv_size=2)
    >>> full_shape(Decoder(layer=layer, **sizes)).num_trainable
    280
    """
    ends = () if reentrant else [each.num_weights for each in decoder.layer if each.role == "mlp_out"]
    num_parameters = decoder.num_matmul_parameters + decoder.num_other_parameters
    return _shape(decoder, num_parameters, trains_base=True, ends=sum(ends))


def lora_shape(decoder: Decoder, *, rank: int, targets: Collection[str], reentrant: bool = False) -> ModelShape:
    """Return the shape of training LoRA factors on some linear layers of every layer.

    Args:
        decoder: the model.
        rank: of every pair of factors.
        targets: names of linear layers; not empty.
        reentrant: whether activation checkpointing is of torch's older kind, which recomputes a layer to its end; the
            kind that transformers uses stops before the last product of a layer.

    Raises:
        ConfigError: if a target is none of the layer's, or there is none.

    >>> layer = llama_layer(4, attention_size=4, kv_size=2, intermediate_size=6)
    >>> sizes = dict(num_layers=2, hidden_size=4, vocab_size=10, attention_size=4, kv_size=2)
    >>> shape = lora_shape(Decoder(layer=layer, **sizes), rank=1, targets=["q_proj", "v_proj"])
    >>> shape.num_trainable, shape.num_without_input_gradient, shape.num_attention_gradients
    (28, 40, 7)
    """
    names = [each.name for each in decoder.layer]
    for target in targets:
        if target not in names:
            raise ConfigError(
                f"the LoRA target {target!r} is none of a layer's linear layers; {did_you_mean(target, names)}choose "
                f"from {', '.join(names)}"
            )
    if not targets or rank < 1:
        raise ConfigError(f"LoRA of rank {rank} on {sorted(targets)} trains nothing; give a rank and targets")
    per_layer = sum(rank * (each.num_inputs + each.num_outputs) for each in decoder.layer if each.name in targets)
    without, spared = _first_layer(decoder, rank, targets)
    last = next(each for each in reversed(decoder.layer) if each.role == "mlp_out")
    # Recomputation stops before the last product whose operands the backward pass needs: with LoRA there, B's.
    end = rank * last.num_outputs if last.name in targets else last.num_weights
    shape = _shape(decoder, decoder.num_layers * per_layer, trains_base=False, ends=0 if reentrant else end)
    return ModelShape(
        **shape.as_record()
        | {
            "adapter_input_size": _adapter_inputs(decoder, targets),
            "num_without_input_gradient": without,
            "num_attention_gradients": 4 * decoder.num_layers - spared,
        }
    )


def _shape(decoder: Decoder, num_trainable: int, *, trains_base: bool, ends: int) -> ModelShape:
    wide = [each.num_outputs for each in decoder.layer if each.role == "mlp_in"]
    return ModelShape(
        num_matmul_parameters=decoder.num_matmul_parameters,
        num_layers=decoder.num_layers,
        hidden_size=decoder.hidden_size,
        vocab_size=decoder.vocab_size,
        num_trainable=num_trainable,
        trains_base=trains_base,
        num_parameters=decoder.num_matmul_parameters + decoder.num_other_parameters,
        attention_size=decoder.attention_size,
        kv_size=decoder.kv_size,
        intermediate_size=max(wide),
        num_not_recomputed=decoder.vocab_size * decoder.hidden_size + decoder.num_layers * ends,
    )


def _adapter_inputs(decoder: Decoder, targets: Collection[str]) -> int:
    """Inputs of a layer that are kept for the factors alone: attention keeps its own output anyway."""
    roles = {each.role for each in decoder.layer if each.name in targets}
    attention = decoder.hidden_size if roles & set(_ATTENTION_IN) else 0
    # Parallel layers read one input twice.
    wide = decoder.hidden_size if "mlp_in" in roles and not (decoder.parallel and attention) else 0
    product = max(each.num_inputs for each in decoder.layer if each.role == "mlp_out") if "mlp_out" in roles else 0
    return attention + wide + product


def _first_layer(decoder: Decoder, rank: int, targets: Collection[str]) -> tuple[int, int]:
    """Return the weights without an input gradient, and how many of attention's four products are spared."""

    def read(matmul: Matmul) -> int:
        return matmul.num_weights + (rank * matmul.num_inputs if matmul.name in targets else 0)

    with_gradient = {each.role for each in decoder.layer if each.name in targets}
    if "qkv" in with_gradient:
        with_gradient |= {"query", "key", "value"}
    query, key, value = (role in with_gradient for role in ("query", "key", "value"))
    spared = 4 - ((query or key) + value + query + key)
    context = query or key or value
    after_attention = not decoder.parallel and (context or "attention_out" in with_gradient)
    product = after_attention or "mlp_in" in with_gradient
    has_input_gradient = {"attention_out": context, "mlp_in": after_attention, "mlp_out": product}
    without = sum(read(each) for each in decoder.layer if not has_input_gradient.get(each.role, False))
    return without, spared
