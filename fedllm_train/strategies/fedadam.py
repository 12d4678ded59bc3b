"""FedAdam (Reddi et al. 2021, arXiv 2003.00295, Algorithm 2): Adam on the server, without bias correction.

Client rule: plain local training from the global adapter.
Server rule (`adapters/adaptive.py`): v <- beta2 v + (1 - beta2) D^2, D the uniform mean of the cohort's changes.
"""

from typing import Any

import torch

from fedllm_train.adapters.adaptive import adaptive_start, adaptive_step
from fedllm_train.adapters.arithmetic import Adapter, Parts, RunningSum
from fedllm_train.strategy import Federation, OneAdapter, Traits
from fedllm_train.visit import Visit

__all__ = ["FedAdam"]


class FedAdam(OneAdapter):
    """Adam on the clients' mean change."""

    traits = Traits(
        title="FedAdam",
        source="Reddi et al. 2021, arXiv 2003.00295, Algorithm 2",
        family="classic",
        exact_aggregation=False,
        weights="uniform",
        secure_sum=True,
        plain_mean=True,
        server_cost="O(adapter), two moments",
        settings=(
            "server_learning_rate",
            "server_momentum",
            "server_beta2",
            "server_tau",
            "benchmark_rules",
            "uniform_weights",
        ),
    )

    def __init__(self, federation: Federation) -> None:
        """Take eta, tau and the moments' rates from the config."""
        super().__init__(federation)
        self._config = federation.config

    def start(self, adapter: Adapter) -> Parts:
        """Begin with m = 0 and v = tau^2."""
        return adaptive_start(adapter, self._config.server_tau)

    def client_update(self, visit: Visit) -> Parts:
        """Train from the global adapter."""
        return {"adapter": visit.fit(visit.received["adapter"])}

    def fold(self, sums: dict[str, Any], update: Parts, num_rows: int) -> None:
        """Add theta_k; every client counts alike."""
        sums.setdefault("adapter", RunningSum()).add(update["adapter"], self.weight_of(num_rows))

    def server_step(self, state: Parts, sums: dict[str, Any], round_index: int) -> Parts:
        """Average the squared changes into v and take the scaled step."""
        beta2 = self._config.server_beta2

        def second_moment(v: torch.Tensor, squared_change: torch.Tensor) -> torch.Tensor:
            return beta2 * v + (1 - beta2) * squared_change

        return adaptive_step(
            state,
            sums["adapter"],
            self._config,
            second_moment,
            beta1=self._config.momentum(0.9),
            first_round=round_index == 0,
        )
