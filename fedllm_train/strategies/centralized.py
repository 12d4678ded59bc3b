"""Centralized training: the rows of all clients pooled in one place. The upper bound that federation gives up.

One pooled client trains on everything; with cohorts of S clients (`cohort_size`, or all with `cohort_rule` all) and K
local steps a round has S K optimizer steps, so that the run makes as many as a federated one, at the same learning
rates. Nothing travels.
"""

from collections.abc import Mapping, Sequence

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Parts
from fedllm_train.settings import NoSettings
from fedllm_train.strategy import POOLED, Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["Centralized"]


class Centralized(OneAdapter):
    """Train on the rows of all clients at once."""

    traits = Traits(
        title="Centralized",
        source="baseline",
        choose_when="you want the bound to compare with and all rows may lie in one place; nothing is federated",
        family="baseline",
        exact_aggregation=True,
        weights="none",
        sees="nothing",
        down="nothing",
        up="nothing",
        server_cost="holds all rows",
    )

    Settings = NoSettings

    def __init__(self, federation: Federation) -> None:
        """Take how many clients' steps a round stands for.

        Raises:
            ConfigError: if a client's steps depend on its rows.
        """
        super().__init__(federation)
        if not federation.has_fixed_steps:
            raise ConfigError(
                "strategy centralized takes as many steps as a whole cohort with local_steps each; epochs and "
                "round_rows of one client mean nothing there, leave them out"
            )
        self._cohort_size = federation.cohort_size

    def participants(self, client_ids: Sequence[str]) -> Sequence[str]:
        """Return the pooled client.

        Raises:
            ConfigError: if a client has the pool's name.
        """
        if POOLED in client_ids:
            raise ConfigError(
                f"a client is called {POOLED!r}, which names the pool of strategy centralized; rename it"
            )
        return [POOLED]

    def client_update(self, visit: Visit) -> Parts:
        """Go on training, for the whole cohort."""
        return {"adapter": visit.fit(visit.received["adapter"], num_steps=visit.num_steps * self._cohort_size)}

    def fold(self, sums: Sums, update: Parts, weights: Mapping[str, float]) -> None:
        """Take the one update."""
        sums["adapter"] = update["adapter"]

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Return what was trained."""
        return {"adapter": sums["adapter"]}
