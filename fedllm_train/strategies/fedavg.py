"""FedAvg (McMahan et al. 2017, arXiv 1602.05629, Algorithm 1) on LoRA factors (FedIT, arXiv 2305.05644).

Client rule: plain local training from the global adapter.
Server rule: theta <- sum_k (n_k / n) theta_k over the cohort, n_k the rows of client k, n their sum.

A and B are averaged apart, as FedIT and FedLLM-Bench do; the mean of the products B_k A_k is another matrix.
"""

from collections.abc import Sequence

from fedllm_train.adapter import Adapter, RunningSum
from fedllm_train.config import FederatedConfig

__all__ = ["FedAvg"]


class FedAvg:
    """Average the clients' adapters, each weighted by its number of rows."""

    name = "fedavg"
    travels = True

    def __init__(self, config: FederatedConfig) -> None:
        """FedAvg has no settings of its own."""

    def participants(self, client_ids: Sequence[str]) -> list[str]:
        """Return all clients."""
        return list(client_ids)

    def fold(self, total: RunningSum, client_adapter: Adapter, num_rows: int) -> None:
        """Add n_k theta_k."""
        total.add(client_adapter, num_rows)

    def server_step(self, global_adapter: Adapter, total: RunningSum) -> Adapter:
        """Return the weighted mean of the cohort's adapters."""
        return total.mean()
