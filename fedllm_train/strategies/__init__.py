"""The federated algorithms: one file each, client rule and server rule side by side.

A strategy is chosen by name from `STRATEGIES`; adding one is a file with a class of this shape and a line below.
"""

from collections.abc import Sequence
from typing import Protocol

from fedllm_train.adapter import Adapter, RunningSum
from fedllm_train.strategies.fedavg import FedAvg
from fedllm_train.strategies.local import Local

__all__ = ["STRATEGIES", "FedAvg", "Local", "Strategy"]


class Strategy(Protocol):
    """An algorithm: who may take part, how updates are summed, and how the sum moves the global adapter."""

    name: str
    travels: bool
    """Whether adapters go over a network; if not, the ledger counts no bytes."""

    def participants(self, client_ids: Sequence[str]) -> list[str]:
        """Return the clients that may be sampled."""
        ...

    def fold(self, total: RunningSum, client_adapter: Adapter, num_rows: int) -> None:
        """Add one client's update to the running sum."""
        ...

    def server_step(self, global_adapter: Adapter, total: RunningSum) -> Adapter:
        """Return the next global adapter."""
        ...


STRATEGIES = {"fedavg": FedAvg, "local": Local}
