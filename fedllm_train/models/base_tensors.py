"""Names and shapes of a base model's parameters: read from the headers of safetensors files, or from a loaded model.

From headers a matrix counts as a linear module's weight unless its name is that of a table of embeddings; whether that
is right for an architecture, `architectures.py` knows better for the common ones. Imports no torch.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError

__all__ = [
    "BaseTensors",
    "Shape",
    "ends_in_product",
    "header_of",
    "header_shapes",
    "tensors_of_headers",
    "tensors_of_model",
]

Shape = tuple[int, ...]
_TABLES = ("embed", "wte", "wpe")
"""What a table of embeddings is called; beside it stands the output layer, whatever it is called."""
_HEADS = ("lm_head", "embed_out", "output")
_WHOLE = ("model.", "transformer.", "gpt_neox.", "backbone.")
"""With what the names of a whole causal model begin, as transformers builds it."""
_DROPOUTS = ("resid_pdrop", "residual_dropout", "hidden_dropout")
_MOST_HEADER_BYTES = 1 << 27


@dataclass(frozen=True, kw_only=True)
class BaseTensors:
    """The parameters of a base model."""

    linears: Mapping[str, tuple[int, int]]
    """Module -> (outputs, inputs); the output layer is among them, also where its weights are the embeddings."""
    head: str
    """The output layer's name."""
    parameters: Mapping[str, Shape]
    """Every parameter; one that two modules share counts once."""
    num_layers: int
    hidden_size: int
    attention_size: int
    """All attention heads together."""
    kv_size: int
    """All key heads together."""
    vocab_size: int
    is_parallel: bool = False
    """Whether a layer's MLP reads what its attention reads."""
    ends_in_product: bool = True
    """Whether a matrix product is the last of a layer that its backward pass needs: no norm or dropout behind."""

    @property
    def num_matmul_parameters(self) -> int:
        """Weights that every token is multiplied by."""
        return sum(outputs * inputs for outputs, inputs in self.linears.values())

    @property
    def num_parameters(self) -> int:
        """All values of the model."""
        return sum(_product(shape) for shape in self.parameters.values())


def header_shapes(folder: Path) -> dict[str, Shape] | None:
    """Return the shape of every tensor of a folder's safetensors files; None where it has none.

    Raises:
        ConfigError: naming a file whose header cannot be read.
    """
    files = sorted(path for path in folder.glob("*.safetensors") if path.name != "adapter_model.safetensors")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            files = [
                folder / name for name in sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
            ]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ConfigError(f"{index} is no index of safetensors files; fetch it once more") from error
    elif (whole := folder / "model.safetensors").is_file():
        files = [whole]
    shapes: dict[str, Shape] = {}
    for path in files:
        shapes |= header_of(path)
    return shapes or None


def tensors_of_headers(shapes: Mapping[str, Shape], config: Mapping[str, Any], *, where: str) -> BaseTensors:
    """Return the parameters of a model of any architecture, from what its files hold.

    Args:
        shapes: from `header_shapes`.
        config: the content of its `config.json`.
        where: the model's name, for errors.

    Raises:
        ConfigError: if the files do not tell which modules it has.

    >>> shapes = {"model.embed_tokens.weight": (10, 4), "model.layers.0.mlp.up_proj.weight": (8, 4)}
    >>> config = {"num_hidden_layers": 1, "num_attention_heads": 2}
    >>> tensors_of_headers(shapes, config, where="m").linears
    {'model.layers.0.mlp.up_proj': (8, 4), 'lm_head': (10, 4)}
    """
    odd = next((name for name, shape in shapes.items() if len(shape) > 2 or ".experts." in name), None)
    tables = [name for name, shape in shapes.items() if len(shape) == 2 and _is_table(name)]
    if odd is not None or not tables or not any(name.startswith(_WHOLE) for name in shapes):
        what = f"it holds {odd}" if odd is not None else "its tensors are not named as a causal language model's are"
        raise ConfigError(
            f"which linear modules model {where!r} has cannot be told from its files ({what}, and model_type "
            f"{config.get('model_type')!r} is not known here); name a model of a known architecture"
        )
    linears = {
        name.removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in shapes.items()
        if len(shape) == 2 and name.endswith(".weight") and name not in tables
    }
    head = next((name for name in linears if name in _HEADS), None)
    # A table of places may stand before that of tokens.
    of_tokens = [name for name in tables if shapes[name][0] == config.get("vocab_size")]
    vocab, hidden = shapes[(of_tokens or tables)[0]]
    if head is None:
        head = "lm_head"
        linears[head] = (vocab, hidden)
    heads = _first(config, ("num_attention_heads", "n_head", "n_heads", "num_heads"), where)
    head_size = int(config.get("head_dim") or hidden // heads)
    return BaseTensors(
        linears=linears,
        head=head,
        parameters=dict(shapes),
        num_layers=_first(config, ("num_hidden_layers", "n_layer", "n_layers", "num_layers"), where),
        hidden_size=hidden,
        attention_size=heads * head_size,
        kv_size=int(config.get("num_key_value_heads") or heads) * head_size,
        vocab_size=linears[head][0],
        is_parallel=bool(config.get("use_parallel_residual") or config.get("parallel_attn")),
        ends_in_product=ends_in_product(shapes, config),
    )


def tensors_of_model(model: Any) -> BaseTensors:
    """Return the parameters of a loaded base model.

    Args:
        model: a causal language model of transformers, without an adapter on it.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    linears: dict[str, tuple[int, int]] = {}
    last, head = model.get_output_embeddings(), "lm_head"
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            linears[name] = (module.out_features, module.in_features)
        elif isinstance(module, Conv1D):
            linears[name] = (module.nf, module.weight.shape[0])
        if module is last:  # with an adapter beside it, it holds the base's own layer
            head = name if name in linears else f"{name}.base_layer"
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return BaseTensors(
        linears=linears,
        head=head,
        parameters={name: tuple(parameter.shape) for name, parameter in model.named_parameters()},
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        attention_size=heads * head_size,
        kv_size=(getattr(config, "num_key_value_heads", None) or heads) * head_size,
        vocab_size=linears[head][0],
        is_parallel=config.model_type == "phi"
        or any(getattr(config, name, False) for name in ("use_parallel_residual", "parallel_attn")),
        ends_in_product=ends_in_product([name for name, _ in model.named_parameters()], config.to_dict()),
    )


def ends_in_product(parameters: Iterable[str], config: Mapping[str, Any]) -> bool:
    """Return whether nothing behind a layer's last product needs that product's value in the backward pass.

    Args:
        parameters: names of the model's parameters.
        config: the content of its `config.json`.

    >>> ends_in_product(["layers.0.post_feedforward_layernorm.weight"], {}), ends_in_product([], {"resid_pdrop": 0.1})
    (False, False)
    """
    has_norm = any("post_feedforward_layernorm" in name for name in parameters)
    return not has_norm and not any(config.get(name) for name in _DROPOUTS)


def header_of(path: Path) -> dict[str, Shape]:
    """Return the shape of every tensor of a safetensors file.

    Raises:
        ConfigError: if its header cannot be read.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _MOST_HEADER_BYTES:
                raise ValueError("no header")
            content = json.loads(file.read(length))
        return {name: tuple(each["shape"]) for name, each in content.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no whole safetensors file; fetch it once more") from error


def _is_table(name: str) -> bool:
    return any(mark in part for part in name.split(".") for mark in _TABLES) and not name.startswith(_HEADS)


def _first(config: Mapping[str, Any], names: Iterable[str], where: str) -> int:
    for name in names:
        if isinstance(value := config.get(name), int):
            return value
    raise ConfigError(f"the config.json of model {where!r} lacks {' and '.join(names)}; fetch it once more")


def _product(shape: Shape) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
