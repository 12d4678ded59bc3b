"""Training alone, without exchange: the baseline every federated method has to beat.

With `local_client` one named client trains, and its adapter is the run's (FedLLM-Bench's "local" baselines). Without
it every client trains alone: each keeps its own adapter between its visits, the cohort is sampled as in a federated
run so that everyone makes as many steps at the same learning rates, and the global adapter stays the starting one.

Client rule: plain local training from the own adapter. Server rule: none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts, Shapes, shapes_of
from fedllm_train.method_settings import PersonalSettings
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["Local"]

_MOST_COMPARED = 20_000
"""Client ids that a misspelt one is compared with."""


class Local(OneAdapter):
    """Train every client, or one named client, on its own."""

    traits = Traits(
        title="Local",
        source="baseline",
        choose_when="you want the baseline: what each client has by training alone, which a federated method must "
        "beat",
        family="baseline",
        exact_aggregation=True,
        weights="none",
        sees="nothing",
        down="nothing",
        up="nothing",
        memory="its adapter",
        server_cost="none",
        personal=True,
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(PersonalSettings):
        """The settings of this method."""

        local_client: str | None = field(default=None, metadata={"help": "With strategy local: the client to train."})

    def __init__(self, federation: Federation) -> None:
        """Take the client that trains, if it is a single one; one client alone needs no name."""
        super().__init__(federation)
        self._client_id = federation.settings.local_client
        self._is_single = self._client_id is not None or federation.num_clients == 1

    def participants(self, client_ids: Sequence[str]) -> Sequence[str]:
        """Return the named client, or all of them.

        Raises:
            ConfigError: if the named client does not exist.
        """
        if self._client_id is None or len(client_ids) == 1:
            return client_ids
        if self._client_id not in client_ids:
            hint = did_you_mean(self._client_id, islice(client_ids, _MOST_COMPARED))
            raise ConfigError(
                f"local_client {self._client_id!r} is not among the {len(client_ids)} clients; "
                f"{hint}name one of them, such as {min(client_ids)!r}"
            )
        return [self._client_id]

    def client_update(self, visit: Visit) -> Parts:
        """Go on training the own adapter; only a named client's becomes the run's."""
        if self._is_single:
            return {"adapter": visit.fit(visit.received["adapter"])}
        visit.memory["adapter"] = visit.fit(visit.memory.get("adapter", visit.start_adapter))
        return {}

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Expect nothing, but of a named client."""
        return shapes_of({"adapter": state["adapter"]}) if self._is_single else {}

    def fold(self, sums: Sums, update: Parts, weights: Mapping[str, float]) -> None:
        """Take what there is."""
        sums.update(update)

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Return the named client's adapter; else nothing changes."""
        return {"adapter": sums.get("adapter", state["adapter"])}

    def personal_adapter(self, visit: Visit) -> Adapter:
        """Return the own adapter; a client that never took part still has the starting one."""
        return visit.memory.get("adapter", visit.received["adapter"])
