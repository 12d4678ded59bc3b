"""Arithmetic on adapters: tensors keyed as `peft.get_peft_model_state_dict` keys them.

Three things happen to an adapter between rounds. It is loaded into the resident model and read back (`LiveAdapter`),
client adapters are summed (`RunningSum`, in float64), and it is written to disk (`save_adapter`, `load_adapter`).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import torch
from peft import PeftModel, PeftType, get_peft_model_state_dict
from safetensors.torch import load_file, save

from fedllm_data.errors import ConfigError
from fedllm_train.run_files.files import write_bytes

__all__ = [
    "Adapter",
    "LiveAdapter",
    "Parts",
    "RunningSum",
    "Shapes",
    "adapter_sha256",
    "distance",
    "flatten",
    "load_adapter",
    "load_parts",
    "save_adapter",
    "save_parts",
    "separate",
    "shapes_of",
    "unflatten",
]

Adapter = dict[str, torch.Tensor]
Parts = dict[str, Adapter]
"""Several adapters under one roof, such as {"adapter": ..., "control": ...}: a message, a server's state, a memory."""
Shapes = dict[str, dict[str, tuple[int, ...]]]
"""Names and shapes of several adapters, without their values."""


class LiveAdapter:
    """The trained tensors of a resident model, loaded and read in place: no module is built or replaced.

    Those of its adapter, or, of a model without one, all its parameters; weights that are tied count once.
    """

    def __init__(self, model: PeftModel | torch.nn.Module, adapter_name: str = "default") -> None:
        """Find the tensors in the model.

        Raises:
            ConfigError: if PEFT saves something else for this kind of adapter than what is trained, so that a mean of
                what is saved would mean nothing.
        """
        if isinstance(model, PeftModel):
            self.parameters = _adapter_parameters(model, adapter_name)
        else:
            self.parameters = dict(model.named_parameters())
        """The parameters themselves, by the adapter's names."""

    @torch.no_grad()
    def load(self, adapter: Mapping[str, torch.Tensor]) -> None:
        """Copy an adapter of the same names and shapes into the model."""
        if adapter.keys() != self.parameters.keys():
            odd = sorted(adapter.keys() ^ self.parameters.keys())[:3]
            raise ConfigError(
                f"the adapter does not fit the model: {odd} stand on one side only; use the adapter's own LoraConfig"
            )
        for name, tensor in self.parameters.items():
            if adapter[name].shape != tensor.shape:
                raise ConfigError(
                    f"the adapter does not fit the model: {name} has shape {tuple(adapter[name].shape)}, the model's "
                    f"is {tuple(tensor.shape)}; use the same rank and target modules"
                )
            tensor.copy_(adapter[name])

    @contextmanager
    def training_only(self, trains: Callable[[str], bool] | None) -> Iterator[dict[str, torch.nn.Parameter]]:
        """Let only the tensors of some names be trained for a while; yield those that are, by name."""
        before = {name: parameter.requires_grad for name, parameter in self.parameters.items()}
        try:
            for name, parameter in self.parameters.items():
                parameter.requires_grad_(before[name] and (trains is None or trains(name)))
            yield {name: parameter for name, parameter in self.parameters.items() if parameter.requires_grad}
        finally:
            for name, parameter in self.parameters.items():
                parameter.requires_grad_(before[name])
                parameter.grad = None

    @torch.no_grad()
    def read(self) -> Adapter:
        """Return a copy of the adapter on the CPU, in its own precision."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.parameters.items()}


def _adapter_parameters(model: PeftModel, adapter_name: str) -> dict[str, torch.nn.Parameter]:
    """The parameters of an adapter by the names under which PEFT saves them."""
    config = model.peft_config[adapter_name]
    # "auto" would ask the Hub whether the base's vocabulary was changed; trained embeddings belong in LoRA's
    # modules_to_save, which is always included.
    tensors = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    projects = getattr(config, "prefix_projection", False)
    if config.peft_type in (PeftType.PROMPT_TUNING, PeftType.PREFIX_TUNING) and not projects:
        # PEFT looks the virtual tokens up, one after the other, and saves what it finds: the table itself.
        tensors["prompt_embeddings"] = model.prompt_encoder[adapter_name].embedding.weight
    places = {parameter.data_ptr(): parameter for parameter in model.parameters()}
    odd = [name for name, tensor in tensors.items() if tensor.data_ptr() not in places]
    found = {name: places[tensor.data_ptr()] for name, tensor in tensors.items() if name not in odd}
    known = {id(parameter) for parameter in found.values()}
    if "ref" not in model.peft_config:  # beside it, a frozen copy may be marked as trained
        odd += [name for name, each in model.named_parameters() if each.requires_grad and id(each) not in known]
    if odd or not found or config.peft_type == PeftType.ADALORA:
        reason = (
            "its ranks change while it trains"
            if config.peft_type == PeftType.ADALORA
            else f"what PEFT saves of it is not what is trained (such as {odd[0]})"
            if odd
            else "it has no tensors of its own"
        )
        raise ConfigError(
            f"{type(config).__name__} cannot be averaged over clients: {reason}; use LoraConfig, IA3Config, "
            "LNTuningConfig, PromptTuningConfig or PrefixTuningConfig without prefix_projection"
        )
    return found


class RunningSum:
    """Weighted sum of adapters in float64; what was added is not kept (design rules 3 and 5).

    float64 holds the product of a float32 tensor and an integer weight below 2**29 exactly, so the mean of one client
    is that client's adapter to the bit.
    """

    def __init__(self) -> None:
        """Start from nothing."""
        self._sums: dict[str, torch.Tensor] = {}
        self._dtypes: dict[str, torch.dtype] = {}
        self.total_weight = 0.0

    def add(self, adapter: Mapping[str, torch.Tensor], weight: float) -> None:
        """Add an adapter with a positive weight."""
        for name, tensor in adapter.items():
            term = tensor.to(torch.float64) * weight
            if name in self._sums:
                self._sums[name] += term
            else:
                self._sums[name] = term
                self._dtypes[name] = tensor.dtype
        self.total_weight += weight

    def mean(self) -> Adapter:
        """Return the weighted mean, rounded once to the precision of what was added."""
        return {name: (total / self.total_weight).to(self._dtypes[name]) for name, total in self._sums.items()}

    def total(self) -> Adapter:
        """Return the weighted sum itself, in float64."""
        return dict(self._sums)


def distance(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    """Return the Euclidean distance of two adapters, all tensors taken as one vector."""
    squares = [(a[name].double() - b[name].double()).square().sum() for name in sorted(a)]
    return float(torch.stack(squares).sum().sqrt())


def adapter_sha256(adapter: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of an adapter's names, shapes, precisions and bits."""
    return sha256(_serialise(adapter)).hexdigest()


def save_adapter(adapter: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write an adapter as safetensors; the file appears whole or not at all."""
    write_bytes(path, _serialise(adapter))


def load_adapter(path: Path) -> Adapter:
    """Read an adapter written by `save_adapter` or by PEFT."""
    return load_file(path)


def save_parts(parts: Parts, path: Path) -> None:
    """Write several adapters into one safetensors file, tensors named `part//tensor`."""
    save_adapter(flatten(parts), path)


def load_parts(path: Path) -> Parts:
    """Read what `save_parts` wrote."""
    return unflatten(load_file(path))


def flatten(parts: Parts) -> Adapter:
    """Return all tensors of all parts in one mapping.

    >>> list(flatten({"adapter": {"a": torch.ones(1)}}))
    ['adapter//a']
    """
    return {f"{part}//{name}": tensor for part, adapter in parts.items() for name, tensor in adapter.items()}


def unflatten(flat: Mapping[str, torch.Tensor]) -> Parts:
    """Undo `flatten`; a part without tensors is not there any more."""
    parts: Parts = {}
    for full_name, tensor in flat.items():
        part, name = full_name.split("//", 1)
        parts.setdefault(part, {})[name] = tensor
    return parts


def shapes_of(parts: Parts) -> Shapes:
    """Return the names and shapes of several adapters.

    >>> shapes_of({"adapter": {"a": torch.ones(1, 2)}})
    {'adapter': {'a': (1, 2)}}
    """
    return {part: {name: tuple(tensor.shape) for name, tensor in adapter.items()} for part, adapter in parts.items()}


def separate(adapter: Mapping[str, torch.Tensor]) -> Adapter:
    """Return the tensors by name in order, each with memory of its own, as safetensors wants them.

    Parts may hold the same tensor, such as the starting adapter of groups that nobody has visited yet.
    """
    seen: set[int] = set()
    result = {}
    for name in sorted(adapter):
        tensor = adapter[name].contiguous()
        place = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return result


def _serialise(adapter: Mapping[str, torch.Tensor]) -> bytes:
    # The metadata is what PEFT writes itself, so that PEFT can load the file.
    return save(separate(adapter), metadata={"format": "pt"})
