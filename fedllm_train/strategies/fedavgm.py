"""FedAvgM (Hsu et al. 2019, arXiv 1909.06335, section 4.3): momentum on the server.

Client rule: plain local training from the global adapter.
Server rule: m <- beta m + D, theta <- theta + eta m, with D = sum_k (n_k / n) (theta_k - theta) and m = 0 at first.

FedLLM-Bench's released code (`benchmark_rules`) averages instead of adding: m <- beta m + (1 - beta) D, with m = D in
round 0; its values are beta 0.5 and eta 1.
"""

from __future__ import annotations

from fedllm_train.adapters.adaptive import mean_change, moved
from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import ServerStepSettings
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["FedAvgM"]


class FedAvgM(OneAdapter):
    """Momentum on the clients' weighted mean change."""

    traits = Traits(
        title="FedAvgM",
        source="Hsu et al. 2019, arXiv 1909.06335, section 4.3",
        choose_when="cohorts are small and the mean change swings from round to round: momentum carries it over "
        "rounds",
        family="classic",
        exact_aggregation=False,
        weights="rows",
        sees="mean",
        server_cost="O(adapter), one moment",
    )

    Settings = ServerStepSettings

    def __init__(self, federation: Federation) -> None:
        """Take eta and beta from the config."""
        super().__init__(federation)
        self._settings = federation.settings

    def start(self, adapter: Adapter) -> Parts:
        """Begin without momentum."""
        moment = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in adapter.items()}
        return {"adapter": adapter, "first_moment": moment}

    def client_update(self, visit: Visit) -> Parts:
        """Train from the global adapter."""
        return {"adapter": visit.fit(visit.received["adapter"])}

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Update the momentum and move along it."""
        change = mean_change(sums["adapter"], state["adapter"])
        keep, take = self._settings.momentum(0.9), 1.0
        if self._settings.benchmark_rules:
            keep, take = (0.0, 1.0) if round_index == 0 else (keep, 1.0 - keep)
        moment = {name: keep * before + take * change[name] for name, before in state["first_moment"].items()}
        eta = self._settings.server_rate(1.0)
        step = {name: eta * value for name, value in moment.items()}
        return {"adapter": moved(state["adapter"], step), "first_moment": moment}
