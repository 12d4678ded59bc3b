"""A message with what is known of it where it was packed: how many values it stands for, and how far it is off.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedllm_train.adapters.arithmetic import Parts, flatten
from fedllm_train.messages.codec import encode

if TYPE_CHECKING:
    import torch

__all__ = ["PackedMessage", "relative_error"]


@dataclass(frozen=True, kw_only=True)
class PackedMessage:
    """A message, before it is sent."""

    message: bytes
    num_values: int
    """Values of all parts that whoever receives it will read."""
    relative_error: float | None = None
    """||decoded - true|| / ||true|| of what was packed; 0 where values travel whole, None where it is not known."""

    @classmethod
    def whole(cls, parts: Parts) -> PackedMessage:
        """Return the message that carries some parts, values unchanged.

        >>> import torch
        >>> PackedMessage.whole({"adapter": {"a": torch.zeros(4)}}).num_values
        4
        """
        num_values = sum(tensor.numel() for tensor in flatten(parts).values())
        return cls(message=encode(parts), num_values=num_values, relative_error=0.0)

    @property
    def bits_per_value(self) -> float | None:
        """How many bits the message takes for each value it stands for, header included; None if it stands for none.

        >>> PackedMessage(message=b"four", num_values=16).bits_per_value
        2.0
        """
        return 8 * len(self.message) / self.num_values if self.num_values else None


def relative_error(decoded: torch.Tensor, true: torch.Tensor) -> float | None:
    """Return how far a decoded vector is from the true one, as a share of its norm.

    Args:
        decoded: what the other end has, d values in float64.
        true: what was packed.

    Returns:
        A number from 0 on: 0 if nothing was lost, 1 if what was decoded is no nearer than zeros would be. None if the
        true vector is all zeros and the decoded one is not.

    >>> import torch
    >>> relative_error(torch.tensor([3.0, 0.0]), torch.tensor([3.0, 4.0]))
    0.8
    """
    off, size = float((decoded - true).norm()), float(true.norm())
    if off == 0:
        return 0.0
    return off / size if size else None
