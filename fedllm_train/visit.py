"""A visit: what a client rule sees of its client in one round, and how it trains there.

A rule reads what was received, calls `fit` once or more, may keep something in `memory`, and returns what is sent
back:

    def client_update(self, visit):                          # FedProx
        start = visit.received["adapter"]
        return {"adapter": visit.fit(start, correct=pull_towards(start, mu))}
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from fedllm_train.adapters.arithmetic import Adapter, Parts

__all__ = ["Correction", "Fit", "Loss", "TakeStep", "Visit"]

Correction = Callable[[Adapter, Adapter], None]
"""Changes the gradients of an optimizer step in place, given (gradients, current values), before they are clipped.

Only tensors that are trained are in either. The values must not be changed. Gradients have their true size whatever
the loss is scaled by; a step that overflowed in fp16, which the optimizer does not make, is not shown.
"""

Loss = Callable[[Adapter], float]
"""The loss of one optimizer step's batches at an adapter, without gradients; see `Visit.walk`."""
TakeStep = Callable[[Loss], None]
"""What a method makes of one step of which it only sees losses."""


class Fit(Protocol):
    """Trains an adapter on the client's rows; see `Visit.fit`."""

    def __call__(
        self,
        start: Adapter,
        *,
        correct: Correction | None,
        trains: Callable[[str], bool] | None,
        purpose: str,
        num_steps: int | None,
        base_shift: Adapter | None,
    ) -> Adapter:
        """Return the adapter after local training."""
        ...


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One client in one round."""

    client_id: str
    round_index: int
    received: Parts
    """What the server sent."""
    start_adapter: Adapter
    """The adapter the run started from, known to every client."""
    memory: Parts = field(default_factory=dict)
    """What this client kept from its last visit, empty at the first; what stands here after the rule is kept."""
    num_rows: int
    num_steps: int
    """Optimizer steps of a `fit`, unless it says otherwise."""
    learning_rate: float
    fitter: Fit
    stepper: Callable[[Adapter], Adapter] | None = None
    """Behind `first_step`."""
    walker: Callable[[TakeStep], None] | None = None
    """Behind `walk`."""

    def fit(
        self,
        start: Adapter,
        *,
        correct: Correction | None = None,
        trains: Callable[[str], bool] | None = None,
        purpose: str = "client",
        num_steps: int | None = None,
        base_shift: Adapter | None = None,
    ) -> Adapter:
        """Train on the client's rows and return the adapter after it.

        Args:
            start: every tensor of the adapter.
            correct: changes the gradients before each optimizer step.
            trains: says by name whether a tensor is trained; by default all are. Others come back as they were.
            purpose: names the random stream; two calls of a visit name different ones. Metrics of purposes other
                than "client" are recorded as `purpose/metric`.
            num_steps: by default the visit's own.
            base_shift: what is added to the base weights during training, as `adapters/base_shift.py` keeps it.
        """
        return self.fitter(
            start, correct=correct, trains=trains, purpose=purpose, num_steps=num_steps, base_shift=base_shift
        )

    def first_step(self, start: Adapter) -> Adapter:
        """Return what full fine-tuning with AdamW would first add to the adapted weights; nothing is trained.

        Args:
            start: every tensor of the adapter; the gradients are summed there, over the batches of a `fit`.

        Returns:
            A shift of the base weights (`adapters/base_shift.py`) with `{module}.matrix` for every LoRA module.
        """
        assert self.stepper is not None
        return self.stepper(start)

    def walk(self, take_step: TakeStep) -> None:
        """Call a function for every step of a `fit`, over the same batches, with their loss at any adapter.

        Args:
            take_step: called with a function from an adapter to the loss that training would have there, dropout
                included; no gradient is computed. One step's evaluations draw the same dropout.
        """
        assert self.walker is not None
        self.walker(take_step)
