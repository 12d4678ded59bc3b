"""What an algorithm is: a client rule and a server rule, and the record of what it can and cannot do.

Server state, messages and updates are all `Parts`: adapters by name, such as {"adapter": ..., "control": ...}. The
server's state always holds "adapter", the global adapter. A strategy keeps nothing in itself between calls: all that
must survive a stop is in the server's state (checkpointed) or in a client's memory (`visit.memory`, on that client's
disk), so that a resumed run goes on to the same bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.cohort import eligible_clients
from fedllm_train.config import FederatedConfig
from fedllm_train.visit import Visit

__all__ = ["Federation", "OneAdapter", "Strategy", "Traits", "Weights", "counts_alike"]

Weights = Literal["rows", "uniform", "norms", "none"]
"""How clients count in a mean: by their rows, alike, by the norm of what they learned; or there is no mean."""


@dataclass(frozen=True, kw_only=True)
class Federation:
    """What is known before the model is loaded; given to a strategy when it is made."""

    config: FederatedConfig
    client_ids: Sequence[str]
    sizes: Mapping[str, int]
    """Rows of each client."""
    ranks: Mapping[str, int] = field(default_factory=dict)
    """LoRA rank of each client; empty where all have the adapter's own."""
    languages: Mapping[str, str] = field(default_factory=dict)
    """Main language of each client; `und` where nobody knows."""

    @property
    def eligible(self) -> list[str]:
        """The clients that the cohort rule may sample: who takes part, of all clients of the dataset."""
        return eligible_clients(self.config, self.client_ids)


@dataclass(frozen=True, kw_only=True)
class Traits:
    """The capability record of a method, as `fedllm-train methods` shows it."""

    title: str
    source: str
    """Paper, arXiv number, equation or algorithm."""
    family: Literal["baseline", "classic", "lora", "personal"]
    exact_aggregation: bool
    """Whether the product B A, with what is added to the base, becomes the weighted mean of the clients' products."""
    weights: Weights = "rows"
    """How clients count in the server's mean by the method's source; `uniform_weights` overrides it."""
    secure_sum: bool
    """Whether the server needs sums over clients only, so that secure aggregation can hide each update."""
    plain_mean: bool = False
    """Whether the server's next state depends on the mean of the clients' adapters alone, whatever their rows, so that
    a clipped and noisy mean may stand for it (`privacy/mechanism.py`)."""
    mixed_ranks: bool = False
    """Whether clients may have LoRA adapters of different ranks."""
    needs_lora: bool = False
    """Whether it needs LoRA factors; else any adapter or the whole model will do."""
    down: str = "adapter"
    """What the server sends to a client in a round."""
    up: str = "adapter"
    """What a client sends back."""
    memory: str = "none"
    """What a client keeps between rounds."""
    server_cost: str = "O(adapter)"
    """Server memory and work, beyond receiving the updates."""
    personal: bool = False
    """Whether clients end with adapters of their own."""
    shifts_base: bool = False
    """Whether the server adds to the base weights beside the adapter (`adapters/base_shift.py`)."""
    travels: bool = True
    """Whether anything goes over a network; if not, the ledger counts no bytes."""
    settings: tuple[str, ...] = ()
    """Fields of `FederatedConfig` that this method reads and others may not."""


class Strategy(Protocol):
    """An algorithm; made once a run as `STRATEGIES[name](federation)`."""

    traits: Traits

    def participants(self, client_ids: Sequence[str]) -> list[str]:
        """Return the clients that may be sampled."""
        ...

    def start(self, adapter: Adapter) -> Parts:
        """Return the server's state before round 0; its part "adapter" is the starting adapter."""
        ...

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Return what the server sends to a client."""
        ...

    def client_update(self, visit: Visit) -> Parts:
        """The client rule: train, perhaps change `visit.memory`, and return what is sent back."""
        ...

    def expects(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Return tensors of the names and shapes of the client's update; part "adapter" holds what it started from."""
        ...

    def contribution(self, state: Parts, update: Parts, num_rows: int) -> tuple[Adapter, float]:
        """Return the adapter a client ended with, as far as the server knows it, and its weight.

        For the record only: what the server's next state is measured against (`lora.aggregation_error`).
        """
        ...

    def fold(self, sums: dict[str, Any], update: Parts, num_rows: int) -> None:
        """Add one client's update to the running sums of the round; nothing else of it is kept."""
        ...

    def server_step(self, state: Parts, sums: dict[str, Any], round_index: int) -> Parts:
        """The server rule: return the next state."""
        ...

    def personal_adapter(self, visit: Visit) -> Adapter:
        """After the last round, where `traits.personal`: return the adapter the client keeps."""
        ...


class OneAdapter:
    """The plumbing of methods whose server state and messages are one adapter; the rules stand in their own files."""

    traits: Traits
    _counts_alike = False

    def __init__(self, federation: Federation) -> None:
        """Take how clients count; a method with settings of its own takes them after this."""
        self._counts_alike = counts_alike(federation.config, self.traits.weights)

    def weight_of(self, num_rows: int) -> int:
        """Return the weight in the mean of a client with some rows."""
        return 1 if self._counts_alike else num_rows

    def participants(self, client_ids: Sequence[str]) -> list[str]:
        """Return all clients."""
        return list(client_ids)

    def start(self, adapter: Adapter) -> Parts:
        """Return the global adapter, which is all there is."""
        return {"adapter": adapter}

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send the global adapter."""
        return {"adapter": state["adapter"]}

    def expects(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Expect a whole adapter."""
        return {"adapter": state["adapter"]}

    def personal_adapter(self, visit: Visit) -> Adapter:
        """Keep the global adapter; methods that personalise say otherwise."""
        return visit.received["adapter"]

    def contribution(self, state: Parts, update: Parts, num_rows: int) -> tuple[Adapter, float]:
        """Return what the client sent, with its weight in the mean."""
        return update.get("adapter", {}), self.weight_of(num_rows)


def counts_alike(config: FederatedConfig, weights: Weights) -> bool:
    """Return whether every client counts alike in a mean, whatever its rows.

    Args:
        config: the settings of the federation; `uniform_weights` decides where it is given.
        weights: what the method's source says.

    >>> by_rows = FederatedConfig(output_dir="run", uniform_weights=False)
    >>> counts_alike(by_rows, "uniform"), counts_alike(FederatedConfig(output_dir="run"), "uniform")
    (False, True)
    """
    return weights == "uniform" if config.uniform_weights is None else config.uniform_weights
