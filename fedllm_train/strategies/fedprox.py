"""FedProx (Li et al. 2020, arXiv 1812.06127, Algorithm 2): local training is pulled towards the global adapter.

Client rule: minimise F_k(theta) + (mu / 2) ||theta - theta_global||^2, so every gradient gains mu (theta -
theta_global); it is added before the gradient is clipped, as if it were in the loss. Server rule: as FedAvg.
"""

from dataclasses import dataclass, field

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.method_settings import LayerSettings, MeanSettings
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["FedProx"]


class FedProx(OneAdapter):
    """FedAvg with a proximal term in the local loss."""

    traits = Traits(
        title="FedProx",
        source="Li et al. 2020, arXiv 1812.06127, Algorithm 2",
        choose_when="clients make many steps on rows that differ much, and FedAvg's clients drift apart from one "
        "another",
        family="classic",
        exact_aggregation=False,
        weights="rows",
        sees="mean",
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(LayerSettings, MeanSettings):
        """The settings of this method."""

        prox_mu: float = field(
            default=0.01, metadata={"help": "With fedprox: weight of the proximal term (FedLLM-Bench's value)."}
        )

        def check(self) -> None:
            """Refuse a pull away from the global adapter."""
            if self.prox_mu < 0:
                raise ConfigError(f"prox_mu is {self.prox_mu}; it must not be negative")

    def __init__(self, federation: Federation) -> None:
        """Take mu from `config.prox_mu`."""
        super().__init__(federation)
        self._mu = federation.settings.prox_mu

    def client_update(self, visit: Visit) -> Parts:
        """Train from the global adapter, pulled back to it."""
        start = visit.received["adapter"]

        def add_pull(gradients: Adapter, values: Adapter) -> None:
            for name, gradient in gradients.items():
                gradient.add_(values[name] - start[name].to(values[name]), alpha=self._mu)

        return {"adapter": visit.fit(start, correct=add_pull)}

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Return the weighted mean of the cohort's adapters."""
        return {"adapter": sums["adapter"].mean()}
