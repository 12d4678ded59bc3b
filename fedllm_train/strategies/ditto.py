"""Ditto (Li et al. 2021, arXiv 2012.04221, Algorithm 1): a personal adapter beside the global one, kept close to it.

Client rule: train the global adapter as in FedAvg and send it; train the own adapter v_k on F_k(v) + (lambda / 2) ||v
- theta_global||^2 for as many steps and keep it. Server rule: as FedAvg (the released code draws clients by rows and
averages them alike, which has the same mean). A client that never took part makes its adapter from the final global
one in the same way, after the last round.
"""

from dataclasses import dataclass, field

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.method_settings import MeanSettings, PersonalSettings
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["Ditto"]


class Ditto(OneAdapter):
    """FedAvg, with a personal adapter per client that is pulled towards the global one."""

    traits = Traits(
        title="Ditto",
        source="Li et al. 2021, arXiv 2012.04221, Algorithm 1",
        choose_when="clients differ much and each should have an adapter of its own from the first round on; local "
        "work doubles",
        family="personal",
        exact_aggregation=False,
        weights="rows",
        sees="mean",
        memory="personal adapter",
        personal=True,
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(PersonalSettings, MeanSettings):
        """The settings of this method."""

        ditto_lambda: float = field(
            default=0.1, metadata={"help": "With ditto: how strongly personal adapters are pulled to the global one."}
        )

        def check(self) -> None:
            """Refuse a pull away from the global adapter."""
            if self.ditto_lambda < 0:
                raise ConfigError(f"ditto_lambda is {self.ditto_lambda}; it must not be negative")

    fits_per_visit = 2

    def __init__(self, federation: Federation) -> None:
        """Take lambda from the config."""
        super().__init__(federation)
        self._pull = federation.settings.ditto_lambda

    def client_update(self, visit: Visit) -> Parts:
        """Train the global adapter, then the own one."""
        update = visit.fit(visit.received["adapter"])
        visit.memory["adapter"] = self._train_own(visit, visit.memory.get("adapter", visit.start_adapter))
        return {"adapter": update}

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Return the weighted mean of the cohort's adapters."""
        return {"adapter": sums["adapter"].mean()}

    def personal_adapter(self, visit: Visit) -> Adapter:
        """Return the own adapter."""
        own = visit.memory.get("adapter")
        return own if own is not None else self._train_own(visit, visit.received["adapter"])

    def _train_own(self, visit: Visit, start: Adapter) -> Adapter:
        centre = visit.received["adapter"]

        def add_pull(gradients: Adapter, values: Adapter) -> None:
            for name, gradient in gradients.items():
                gradient.add_(values[name] - centre[name].to(values[name]), alpha=self._pull)

        return visit.fit(start, correct=add_pull, purpose="personal")
