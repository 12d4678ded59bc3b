"""A strategy on its own, without a model; and the kit of the trainer tests."""

import sys

import pytest
import torch

from fedllm_train.config import FederatedConfig
from fedllm_train.participation.cohort_rules import eligible_clients
from fedllm_train.strategies import STRATEGIES
from fedllm_train.strategy import Federation
from fedllm_train.visit import Visit


def make(name, *, client_ids=("a", "b", "c", "d"), ranks=None, languages=None, **settings):
    """A strategy for four clients."""
    config = FederatedConfig(output_dir="unused", strategy=name, **settings)
    return STRATEGIES[name](
        Federation(
            settings=config.method,
            seed=config.seed,
            num_clients=len(client_ids),
            cohort_size=config.cohort_size,
            eligible=eligible_clients(config, list(client_ids)),
            sizes=dict.fromkeys(client_ids, 1),
            ranks=ranks or {},
            languages=languages or {},
        )
    )


def one(**tensors):
    """An adapter of small tensors."""
    return {name: torch.tensor(value) for name, value in tensors.items()}


def step(strategy, state, updates, round_index=0):
    """The server's next state after updates [(adapter or parts, rows)]."""
    sums = {}
    for update, num_rows in updates:
        fold(strategy, sums, update if "adapter" in update else {"adapter": update}, num_rows)
    return strategy.server_step(state, sums, round_index)


def fold(strategy, sums, update, num_rows):
    """Add an update to the sums of a round as plain aggregation does."""
    strategy.fold(sums, update, strategy.weigh(update, num_rows))


def visit(received, fitter, **changes):
    """A visit whose training is a plain function of (start, correct)."""
    settings = {"client_id": "a", "round_index": 0, "num_rows": 4, "num_steps": 2, "learning_rate": 0.5}
    settings |= {"start_adapter": received.get("adapter", {}), "received": received, **changes}
    return Visit(fitter=lambda start, **options: fitter(start, options), **settings)


@pytest.fixture
def rules():
    """The makers above, as attributes."""
    return sys.modules[__name__]


def product(adapter, module="x"):
    return adapter[f"{module}.lora_B.weight"].double() @ adapter[f"{module}.lora_A.weight"].double()


def shift_matrix(state, module="x"):
    shift = state.get("base_shift", {})
    if f"{module}.matrix" in shift:
        return shift[f"{module}.matrix"]
    if f"{module}.left" in shift:
        return shift[f"{module}.left"] @ shift[f"{module}.right"]
    return torch.zeros(1, dtype=torch.float64)


def added(state, module="x"):
    """What a server's state adds to W0, without the scaling s: a dense matrix."""
    return product(state["adapter"], module) + shift_matrix(state, module)
