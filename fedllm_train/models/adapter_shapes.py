"""Names and shapes of a fresh adapter's tensors, as PEFT makes and names them, without a model.

LoRA (Hu et al. 2021, arXiv 2106.09685) puts A (r, inputs) and B (outputs, r) beside a linear module, DoRA (Liu et al.
2024, arXiv 2402.09353) one magnitude an output too. `all-linear` means all linear modules but the output layer; a list
names ends of modules; one text is a pattern of a module's whole name. Imports no torch.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedllm_data.errors import ConfigError
from fedllm_train.models.base_tensors import BaseTensors, Shape, header_of

__all__ = ["AdapterSettings", "adapter_shapes", "modules_of", "num_values", "on_head", "saved_adapter_shapes"]

_LORA = ("lora", "dora", "rslora")
_PREFIX = "base_model.model."


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """What decides the tensors that are trained."""

    kind: str = "lora"
    """A `--peft-type`, or "full" where all weights are trained."""
    rank: int = 8
    targets: str | Sequence[str] = "all-linear"
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    """Pattern of a module's name, or of its end -> its rank."""


def adapter_shapes(base: BaseTensors, settings: AdapterSettings) -> dict[str, Shape]:
    """Return the trained tensors by the names under which they travel.

    Args:
        base: the base model's parameters.
        settings: the adapter's.

    Raises:
        ConfigError: for a kind of adapter whose tensors only PEFT can name, or targets that the base lacks.

    >>> tables = {"model.embed_tokens.weight": (10, 4)}
    >>> base = BaseTensors(linears={"q": (6, 4), "lm_head": (10, 4)}, head="lm_head", parameters=tables,
    ...     num_layers=1, hidden_size=4, attention_size=4, kv_size=4, vocab_size=10)
    >>> adapter_shapes(base, AdapterSettings(rank=2))
    {'base_model.model.q.lora_A.weight': (2, 4), 'base_model.model.q.lora_B.weight': (6, 2)}
    """
    if settings.kind == "full":
        return dict(base.parameters)
    if settings.kind not in _LORA:
        raise ConfigError(
            f"peft_type {settings.kind} trains tensors that only PEFT can name, so what it costs cannot be planned; "
            f"plan {', '.join(_LORA)} or full_finetuning"
        )
    if settings.rank < 1:
        raise ConfigError(f"lora_r is {settings.rank}; it must be at least 1")
    shapes: dict[str, Shape] = {}
    for module in _targets(base, settings.targets):
        outputs, inputs = base.linears[module]
        rank = _rank(settings, module)
        shapes[f"{_PREFIX}{module}.lora_A.weight"] = (rank, inputs)
        shapes[f"{_PREFIX}{module}.lora_B.weight"] = (outputs, rank)
        if settings.kind == "dora":
            shapes[f"{_PREFIX}{module}.lora_magnitude_vector"] = (outputs,)
    return shapes


def saved_adapter_shapes(adapter: str) -> dict[str, Shape]:
    """Return the tensors of a trained adapter in a folder, which a run may start from.

    Args:
        adapter: a run folder or a PEFT folder.

    Raises:
        ConfigError: if there is no adapter's file.
    """
    for folder in (Path(adapter) / "adapter", Path(adapter)):
        if (file := folder / "adapter_model.safetensors").is_file():
            return header_of(file)
    raise ConfigError(
        f"adapter {adapter!r} holds no adapter_model.safetensors, from whose header its shapes are read; give a run "
        "folder or a PEFT folder on this machine"
    )


def num_values(shapes: Mapping[str, Shape]) -> int:
    """Return how many values some tensors hold.

    >>> num_values({"a": (2, 3), "b": (4,)})
    10
    """
    return sum(math.prod(shape) for shape in shapes.values())


def modules_of(shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Return the modules that LoRA factors stand beside, with the rank of each.

    >>> modules_of({"base_model.model.q.lora_A.weight": (2, 4), "base_model.model.q.lora_B.weight": (6, 2)})
    {'q': 2}
    """
    return {
        name.removeprefix(_PREFIX).partition(".lora_A.")[0]: shape[0]
        for name, shape in shapes.items()
        if ".lora_A." in name
    }


def on_head(kind: str, tied: str = "") -> str:
    """Return why an adapter on the output layer is refused.

    Args:
        kind: the name of PEFT's config.
        tied: further settings to leave out.

    >>> on_head("LoraConfig").partition(", and")[0]
    'this LoraConfig puts an adapter on lm_head'
    """
    return (
        f"this {kind} puts an adapter on lm_head, and TRL computes log-probabilities from the head's "
        f"weights alone, without it; leave lm_head{tied} out, or use modules_to_save=['lm_head']"
    )


def _targets(base: BaseTensors, targets: str | Sequence[str]) -> list[str]:
    if isinstance(targets, str) and targets.lower() == "all-linear":
        return [module for module in base.linears if module != base.head]
    if isinstance(targets, str) and not targets.isidentifier():
        try:
            found = [module for module in base.linears if re.fullmatch(targets, module)]
        except re.error as error:
            raise ConfigError(f"lora_target_modules is {targets!r}, which is no pattern ({error}); mend it") from error
        if not found:
            raise ConfigError(f"lora_target_modules is {targets!r}, and no linear module is called so; {_like(base)}")
        return found
    chosen: set[str] = set()
    for name in [targets] if isinstance(targets, str) else targets:
        found = [module for module in base.linears if f".{module}".endswith(f".{name}")]
        if not found:
            raise ConfigError(f"lora_target_modules has {name!r}, and no linear module is called so; {_like(base)}")
        chosen |= {*found}
    return [module for module in base.linears if module in chosen]


def _rank(settings: AdapterSettings, module: str) -> int:
    """The first pattern that fits decides, as in PEFT."""
    for pattern, rank in settings.rank_pattern.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return rank
    return settings.rank


def _like(base: BaseTensors) -> str:
    ends = sorted({module.rpartition(".")[2] for module in base.linears if module != base.head})
    return f"they are called {', '.join(ends)}"
