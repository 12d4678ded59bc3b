"""Losses without gradients: what a method that only compares losses sees of an optimizer step's batches.

The trainer goes through a visit as ever: the rows in their order, the collator, the batches of an accumulated step and
TRL's own loss. Where a gradient step would be made, the client rule is asked instead, with a function that gives the
loss of that step's batches at any adapter. Every evaluation of a step draws the same dropout.
"""

from collections.abc import Callable
from typing import Any

import torch

from fedllm_train.adapters.live import LiveAdapter
from fedllm_train.visit import TakeStep

__all__ = ["LossWalk"]


class LossWalk:
    """Collects the batches of a step, then lets the client rule take it."""

    def __init__(self, take_step: TakeStep, live_adapter: LiveAdapter) -> None:
        """Take the rule's step, and the tensors that adapters are loaded into."""
        self._take_step, self._live = take_step, live_adapter
        self._batches: list[Callable[[], torch.Tensor]] = []

    def add(self, trainer: Any, batch_loss: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Take one batch; with the last one of a step, let the rule take the step.

        Args:
            trainer: the resident trainer, inside its loop.
            batch_loss: computes the batch's loss, scaled as its share of the step's, at what the model holds.

        Returns:
            The mean of the losses that the rule asked for, for the trainer's log; 0 before the last batch.
        """
        self._batches.append(batch_loss)
        device = trainer.accelerator.device
        if not trainer.accelerator.sync_gradients:
            return torch.zeros((), device=device)
        drawn, seen = _random_state(device), []

        @torch.no_grad()
        def loss(adapter: Any) -> float:
            self._live.load(adapter)
            _set_random_state(device, drawn)
            # A step's loss is the sum of its batches' shares; in float64, since rules take differences.
            seen.append(sum(float(each()) for each in self._batches))
            return seen[-1]

        self._take_step(loss)
        self._batches.clear()
        if trainer.accelerator.scaler is not None:  # which looks for gradients of the step that it is told of
            resting = next(iter(self._live.parameters.values()))
            resting.grad = torch.zeros_like(resting)
            trainer.accelerator.scaler.scale(torch.zeros((), device=device))  # it has no scale before the first loss
        return torch.tensor(sum(seen) / len(seen) if seen else 0.0, device=device)


def _random_state(device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _set_random_state(device: torch.device, state: tuple[torch.Tensor, torch.Tensor | None]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
