"""Loss scaling of fp16 training, and how gradients are read and corrected under it.

With fp16, accelerate multiplies the loss by a scale before the backward pass (torch's `GradScaler`, 65,536 at first),
so that small gradients do not vanish, and divides the gradients by it where they are clipped. What a client rule reads
or adds before that must be in the gradients' true size: they are divided by the scale, corrected, and multiplied by it
again. Scales are powers of two, so both are exact. A step with a gradient that is not finite has overflowed: the
scaler leaves it out and lowers the scale, and no rule sees its gradients.

Without a scaler, which is every other precision, nothing here touches a gradient.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["fresh_scaler", "loss_scale", "true_gradients"]


def loss_scale(trainer: Any) -> float | None:
    """Return what the loss is multiplied by, or None where a trainer scales nothing."""
    scaler = trainer.accelerator.scaler
    return None if scaler is None else float(scaler.get_scale())


def fresh_scaler(trainer: Any) -> Callable[[], None]:
    """Return a function that resets a trainer's scaler to its present state, so no visit inherits another's scale.

    Args:
        trainer: a trainer that has not trained yet.
    """
    scaler = trainer.accelerator.scaler
    if scaler is None:
        return lambda: None
    begun = scaler.state_dict()
    return lambda: scaler.load_state_dict(begun)


@contextmanager
def true_gradients(scale: float | None, gradients: Mapping[str, torch.Tensor]) -> Iterator[bool]:
    """Give gradients their true size, in place, inside the block; yield whether they may be used.

    Args:
        scale: from `loss_scale`.
        gradients: by name.

    >>> gradients = {"w": torch.tensor([8.0])}
    >>> with true_gradients(4.0, gradients) as usable:
    ...     usable, gradients["w"].add_(1.0).tolist()
    (True, [3.0])
    >>> gradients["w"].tolist()
    [12.0]
    """
    if scale is None:
        yield True
        return
    if not _all_finite(gradients.values()):
        yield False
        return
    for gradient in gradients.values():
        gradient.div_(scale)
    try:
        yield True
    finally:
        for gradient in gradients.values():
            gradient.mul_(scale)


def _all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
