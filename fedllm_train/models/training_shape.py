"""From a base's modules and what is trained in it to the shape of its training (`fedllm_eval/machines`).

Which products of the backward pass are left out depends on the first layer that is trained (`decoder_shape.py`), so
modules are given their roles here, by their names. Where a model's names are not known, the shape says no more than
the counts, and its operations are those of a whole backward pass. Imports no torch.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from fedllm_eval.machines.decoder_shape import Decoder, Matmul, Role, full_shape, lora_shape
from fedllm_eval.machines.model_shape import ModelShape
from fedllm_train.models.adapter_shapes import modules_of, num_values
from fedllm_train.models.base_tensors import BaseTensors, Shape

__all__ = ["training_shape"]

_ROLES: dict[str, Role] = {
    **{"q_proj": "query", "k_proj": "key", "v_proj": "value"},
    **{"qkv_proj": "qkv", "query_key_value": "qkv", "c_attn": "qkv"},
    **{"o_proj": "attention_out", "dense": "attention_out", "attn.c_proj": "attention_out"},
    **{"out_proj": "attention_out", "gate_proj": "mlp_in", "up_proj": "mlp_in", "gate_up_proj": "mlp_in"},
    **{"c_fc": "mlp_in", "fc1": "mlp_in", "dense_h_to_4h": "mlp_in", "down_proj": "mlp_out"},
    **{"mlp.c_proj": "mlp_out", "fc2": "mlp_out", "dense_4h_to_h": "mlp_out"},
}
"""End of a module's name -> what it does."""
_ORDER: tuple[Role, ...] = ("query", "key", "value", "qkv", "attention_out", "mlp_in", "mlp_out")
_LAYER = re.compile(r"^.*?\.(\d+)\.(.+)$")


def training_shape(base: BaseTensors, trained: Mapping[str, Shape]) -> ModelShape:
    """Return the counts from which operations, memory and time of training follow.

    Args:
        base: the base's parameters.
        trained: the tensors that are trained, by the names under which they travel.
    """
    num_trainable = num_values(trained)
    modules = modules_of(trained)
    whole = not modules and trained.keys() == base.parameters.keys()
    decoder = _decoder(base)
    if decoder is None or not (modules or whole):
        return ModelShape(
            num_matmul_parameters=base.num_matmul_parameters,
            num_layers=base.num_layers,
            hidden_size=base.hidden_size,
            vocab_size=base.vocab_size,
            num_trainable=num_trainable,
            trains_base=whole,
            num_parameters=base.num_parameters,
            attention_size=base.attention_size,
            kv_size=base.kv_size,
        )
    if whole:
        return full_shape(decoder, reentrant=not base.ends_in_product)
    layers: dict[int, dict[str, int]] = {}
    for module, rank in modules.items():
        if (found := _LAYER.match(module)) is not None:
            layers.setdefault(int(found[1]), {})[found[2]] = rank
    per_layer = sum(each.num_weights for each in decoder.layer)
    if not layers:  # the output layer alone
        whole_shape = full_shape(decoder, reentrant=not base.ends_in_product)
        return replace(
            whole_shape,
            num_trainable=num_trainable,
            trains_base=False,
            num_without_input_gradient=base.num_layers * per_layer,
            num_attention_gradients=0,
        )
    first = min(layers)
    shape = lora_shape(decoder, rank=max(layers[first].values()), targets=[*layers[first]])
    last = next(each for each in reversed(decoder.layer) if each.role == "mlp_out")
    ranks = [layers.get(index, {}).get(last.name) for index in range(base.num_layers)]
    ends = sum(last.num_weights if rank is None else rank * last.num_outputs for rank in ranks)
    assert shape.num_attention_gradients is not None
    return replace(
        shape,
        num_trainable=num_trainable,
        # What lies below the first layer that is trained has no gradient at all.
        num_without_input_gradient=shape.num_without_input_gradient + first * per_layer,
        num_attention_gradients=shape.num_attention_gradients - 4 * first,
        num_not_recomputed=shape.num_head_parameters + (ends if base.ends_in_product else 0),
    )


def _decoder(base: BaseTensors) -> Decoder | None:
    """The layers with the role of each module; None where a name is not known, or layers differ."""
    layers: dict[int, list[Matmul]] = {}
    for module, (outputs, inputs) in base.linears.items():
        if module == base.head:
            continue
        found = _LAYER.match(module)
        role = next((role for end, role in _ROLES.items() if f".{module}".endswith(f".{end}")), None)
        if found is None or role is None:
            return None
        layers.setdefault(int(found[1]), []).append(Matmul(found[2], role, inputs, outputs))
    ordered = [tuple(sorted(layer, key=lambda each: _ORDER.index(each.role))) for layer in layers.values()]
    if len({frozenset(layer) for layer in ordered}) != 1 or len(ordered) != base.num_layers:
        return None
    return Decoder(
        layer=ordered[0],
        num_layers=base.num_layers,
        hidden_size=base.hidden_size,
        vocab_size=base.vocab_size,
        attention_size=base.attention_size,
        kv_size=base.kv_size,
        parallel=base.is_parallel,
        num_other_parameters=base.num_parameters - base.num_matmul_parameters,
    )
