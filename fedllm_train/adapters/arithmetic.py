"""Arithmetic on adapters: tensors keyed as `peft.get_peft_model_state_dict` keys them.

Between rounds client adapters are summed (`RunningSum`, in float64) and written to disk (`save_adapter`,
`load_adapter`); in and out of a resident model they go by `adapters/live.py`. Imports no torch before it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from fedllm_data.in_place import write_file
from fedllm_train.lazy_torch import torch

__all__ = [
    "Adapter",
    "Parts",
    "RunningSum",
    "Shapes",
    "adapter_sha256",
    "change_of",
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

Adapter = dict[str, "torch.Tensor"]
Parts = dict[str, dict[str, "torch.Tensor"]]
"""Several adapters by name, such as {"adapter": ..., "control": ...}: a message, a server's state, a memory."""
Shapes = dict[str, dict[str, tuple[int, ...]]]
"""Names and shapes of several adapters, without their values."""


class RunningSum:
    """Weighted sum of adapters in float64; what was added is not kept (design rules 3 and 5).

    float64 holds the product of a float32 tensor and an integer weight below 2**29 exactly, so the mean of one client
    is that client's adapter to the bit.
    """

    def __init__(self) -> None:
        """Start from nothing."""
        self._sums: dict[str, torch.Tensor] = {}
        self._dtypes: dict[str, torch.dtype] = {}
        self._weights: dict[str, float] = {}
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
            self._weights[name] = self._weights.get(name, 0.0) + weight
        self.total_weight += weight

    def mean(self) -> Adapter:
        """Return the weighted mean, rounded once to the precision of what was added; each tensor's over its own."""
        return {name: (total / self._weights[name]).to(self._dtypes[name]) for name, total in self._sums.items()}

    def weight_of(self, name: str) -> float:
        """Return the weight of all that was added of a tensor: `total_weight`, if it was in every adapter."""
        return self._weights[name]

    def total(self) -> Adapter:
        """Return the weighted sum itself, in float64."""
        return dict(self._sums)


def distance(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    """Return the Euclidean distance of two adapters, all tensors taken as one vector."""
    squares = [(a[name].double() - b[name].double()).square().sum() for name in sorted(a)]
    return float(torch.stack(squares).sum().sqrt())


def change_of(adapter: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor]) -> Adapter:
    """Return how an adapter's tensors differ from those it started from, in float64.

    >>> change_of({"a": torch.tensor([3.0])}, {"a": torch.tensor([1.0]), "b": torch.zeros(2)})["a"].tolist()
    [2.0]
    """
    return {name: tensor.double() - start[name].double() for name, tensor in adapter.items()}


def adapter_sha256(adapter: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of an adapter's names, shapes, precisions and bits."""
    return sha256(_serialise(adapter)).hexdigest()


def save_adapter(adapter: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write an adapter as safetensors; the file appears whole or not at all.

    Nothing waits for the disk: the file is one of a folder's, and `fill_folder` waits for all of them.
    """
    write_file(path, _serialise(adapter), sync=False)


def load_adapter(path: Path) -> Adapter:
    """Read an adapter written by `save_adapter` or by PEFT."""
    from safetensors.torch import load_file

    return load_file(path)


def save_parts(parts: Parts, path: Path) -> None:
    """Write several adapters into one safetensors file, tensors named `part//tensor`."""
    save_adapter(flatten(parts), path)


def load_parts(path: Path) -> Parts:
    """Read what `save_parts` wrote."""
    return unflatten(load_adapter(path))


def flatten(parts: Parts) -> Adapter:
    """Return all tensors of all parts in one mapping.

    >>> list(flatten({"adapter": {"a": torch.ones(1)}}))
    ['adapter//a']
    """
    return {f"{part}//{name}": tensor for part, adapter in parts.items() for name, tensor in adapter.items()}


def unflatten(flat: Mapping[str, torch.Tensor]) -> Parts:
    """Undo `flatten`; a part without tensors is lost."""
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
    """Return the tensors by name in order, each with memory of its own, as safetensors requires.

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
    from safetensors.torch import save

    # The metadata is what PEFT writes itself, so that PEFT can load the file.
    return save(separate(adapter), metadata={"format": "pt"})
