"""FedAvg (McMahan et al. 2017, arXiv 1602.05629, Algorithm 1) on LoRA factors (FedIT, arXiv 2305.05644).

Client rule: plain local training from the global adapter.
Server rule: theta <- sum_k (n_k / n) theta_k over the cohort, n_k the rows of client k, n their sum.

A and B are averaged apart, as FedIT and FedLLM-Bench do; the mean of the products B_k A_k is another matrix.
"""

from dataclasses import dataclass

from fedllm_train.adapters.arithmetic import Parts
from fedllm_train.method_settings import LayerSettings, MeanSettings
from fedllm_train.strategy import OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["FedAvg"]


class FedAvg(OneAdapter):
    """Average the clients' adapters, each weighted by its number of rows."""

    traits = Traits(
        title="FedAvg",
        source="McMahan et al. 2017, arXiv 1602.05629, Algorithm 1; on LoRA: FedIT, arXiv 2305.05644",
        choose_when="you begin: it is the plainest, and secure sums and differential privacy can stand around it",
        family="classic",
        exact_aggregation=False,
        weights="rows",
        sees="mean",
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(LayerSettings, MeanSettings):
        """The settings of this method."""

    def client_update(self, visit: Visit) -> Parts:
        """Train from the global adapter."""
        return {"adapter": visit.fit(visit.received["adapter"])}

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Return the weighted mean of the cohort's adapters."""
        return {"adapter": sums["adapter"].mean()}
