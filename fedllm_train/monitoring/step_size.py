"""How far a server step moved the model, what it lost by averaging factors apart, and the digest of where it ended."""

from collections.abc import Mapping

from fedllm_train.adapters.arithmetic import Parts
from fedllm_train.adapters.base_shift import shift_change, state_sha256, update_norm
from fedllm_train.adapters.lora import ProductSum, aggregation_error
from fedllm_train.monitoring.observer import Observer, Record, Step
from fedllm_train.strategy import Strategy

__all__ = ["AggregationError", "StepSize"]

_LEAST_WEIGHT = 1e-300
"""Where all of HetLoRA's products are zero, so is their mean, and its weights must not add up to zero."""


class StepSize(Observer):
    """The norm of the step and the digest of the state after it."""

    def stepped(self, step: Step) -> Record:
        """Measure the step."""
        return {"update_norm": update_norm(step.before, step.after), "adapter_sha256": state_sha256(step.after)}


class AggregationError(Observer):
    """How far the server's next product lies from the mean of the clients' products (`adapters/lora.py`).

    Sees single updates, which only plain aggregation shows (`aggregation/plain.py`); None if it saw none.
    """

    def __init__(self, strategy: Strategy) -> None:
        """Take the method, which says what adapter an update stands for."""
        self._strategy = strategy
        self._products = ProductSum()

    def watch(self, server: Parts, update: Parts, weights: Mapping[str, float]) -> None:
        """Add the product of the adapter that a client ended with."""
        weight = max(weights.get("adapter", 1), _LEAST_WEIGHT)
        self._products.add(self._strategy.contribution(server, update), weight)

    def stepped(self, step: Step) -> Record:
        """Measure the step, and begin again."""
        products, self._products = self._products, ProductSum()
        error = None
        if step.is_made:
            change = shift_change(step.before, step.after)
            error = aggregation_error(step.after["adapter"], products.mean(), change)
        return {"aggregation_error": error}
