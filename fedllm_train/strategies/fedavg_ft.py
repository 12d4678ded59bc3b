"""FedAvg, then fine-tuning: the baseline of personalisation (Yu et al. 2020, arXiv 2002.04758; Cheng et al. 2021).

Rounds: as FedAvg. Afterwards every client trains the global adapter on its own rows for `personal_steps` steps at the
run's lowest learning rate, and keeps the result.
"""

from dataclasses import dataclass

from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.method_settings import FinalStepsSettings, MeanSettings, PersonalSettings
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["FedAvgFT"]


class FedAvgFT(OneAdapter):
    """FedAvg, after which every client fine-tunes the global adapter for itself."""

    traits = Traits(
        title="FedAvg + fine-tuning",
        source="Yu et al. 2020, arXiv 2002.04758",
        choose_when="each client should have an adapter of its own at little cost: one more training after the last "
        "round",
        family="personal",
        exact_aggregation=False,
        weights="rows",
        sees="mean",
        memory="none before the end",
        personal=True,
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(FinalStepsSettings, PersonalSettings, MeanSettings):
        """The settings of this method."""

    def __init__(self, federation: Federation) -> None:
        """Take the steps of the fine-tuning."""
        super().__init__(federation)
        self._personal_steps = federation.settings.personal_steps

    def client_update(self, visit: Visit) -> Parts:
        """Train from the global adapter."""
        return {"adapter": visit.fit(visit.received["adapter"])}

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Return the weighted mean of the cohort's adapters."""
        return {"adapter": sums["adapter"].mean()}

    def personal_adapter(self, visit: Visit) -> Adapter:
        """Fine-tune the global adapter."""
        return visit.fit(visit.received["adapter"], purpose="personal", num_steps=self._personal_steps)
