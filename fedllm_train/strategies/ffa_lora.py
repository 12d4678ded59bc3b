"""FFA-LoRA (Sun et al. 2024, arXiv 2403.12313, ICLR): A is drawn once, shared and frozen; only B is trained.

Client rule: train B from the global B, with the A of the run's starting adapter, which every client knows.
Server rule: B <- sum_k p_k B_k, with the paper's p_k = 1 / K unless `uniform_weights` is off.

With one A for all, s Bbar A = sum_k p_k s B_k A: the average is exact, and under differential privacy the noise enters
linearly. Only B travels, in both directions.
"""

from fedllm_train.adapters.arithmetic import Adapter, Parts, Shapes, shapes_of
from fedllm_train.adapters.lora import check_factors_only, is_b
from fedllm_train.method_settings import MeanSettings
from fedllm_train.strategy import OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["FFALoRA"]


class FFALoRA(OneAdapter):
    """Freeze A everywhere; train and average B."""

    traits = Traits(
        title="FFA-LoRA",
        source="Sun et al. 2024, arXiv 2403.12313",
        choose_when="the mean should be exact with about half the bytes, or noise for privacy should enter linearly; "
        "only B is trained",
        family="lora",
        exact_aggregation=True,
        weights="uniform",
        sees="mean",
        needs_lora=True,
        down="B",
        up="B",
    )

    Settings = MeanSettings

    def start(self, adapter: Adapter) -> Parts:
        """Begin with the starting adapter, whose A stays.

        Raises:
            ConfigError: if the adapter holds anything but LoRA factors.
        """
        check_factors_only(adapter, "ffa_lora")
        return {"adapter": adapter}

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send B."""
        return {"adapter": _only_b(state["adapter"])}

    def client_update(self, visit: Visit) -> Parts:
        """Train B against the shared A."""
        return {"adapter": _only_b(visit.fit(visit.start_adapter | visit.received["adapter"], trains=is_b))}

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Expect B."""
        return shapes_of({"adapter": _only_b(state["adapter"])})

    def contribution(self, state: Parts, update: Parts) -> Adapter:
        """Return the client's B with the A of all."""
        return state["adapter"] | update["adapter"]

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Average B; A stays."""
        return {"adapter": state["adapter"] | sums["adapter"].mean()}


def _only_b(adapter: Adapter) -> Adapter:
    return {name: tensor for name, tensor in adapter.items() if is_b(name)}
