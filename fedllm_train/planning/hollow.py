"""Tensors and messages that have a size and no values: what a method sends can be told from them, without torch.

A method's `broadcast` and `expects` mostly choose tensors by name and cut them to a rank. Given hollow tensors they do
so all the same. A method whose rules calculate needs torch for it (`method_messages.py`). Imports no torch.
"""

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["HollowMessage", "HollowTensor"]


@dataclass(frozen=True)
class HollowTensor:
    """The shape and precision of a tensor."""

    shape: tuple[int, ...]
    dtype: str = "F32"
    """As safetensors calls it."""

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def numel(self) -> int:
        """Return the number of values.

        >>> HollowTensor((2, 3)).numel()
        6
        """
        return math.prod(self.shape)

    def contiguous(self) -> "HollowTensor":
        """Return the tensor itself."""
        return self

    def any(self) -> bool:
        """Return whether a value differs from zero: a fresh adapter adds nothing."""
        return False

    def to(self, *_: Any) -> "HollowTensor":
        """Return it in float32, the one precision in which changes of the base travel."""
        return HollowTensor(self.shape)

    def __getitem__(self, places: Any) -> "HollowTensor":
        """Return a part of it: `[:r]` or `[:, :r]`.

        >>> HollowTensor((4, 5))[:, :2].shape, HollowTensor((4, 5))[:9].shape
        ((4, 2), (4, 5))
        """
        chosen = places if isinstance(places, tuple) else (places,)
        cut = [len(range(size)[part]) for size, part in zip(self.shape, chosen, strict=False)]
        return HollowTensor((*cut, *self.shape[len(cut) :]), self.dtype)


@dataclass(frozen=True)
class HollowMessage:
    """A message of which the length is known alone."""

    num_bytes: int

    def __len__(self) -> int:
        """Return its length.

        >>> len(HollowMessage(7))
        7
        """
        return self.num_bytes
