"""FedSA-LoRA (Guo et al. 2025, arXiv 2410.01463, ICLR): train A and B, share A alone; every client keeps its own B.

Client rule: train both from the global A and the client's own B (the starting adapter's at its first visit); send A_k,
keep what was trained in memory.
Server rule: A <- sum_k (n_k / n) A_k, the weights of the released code (FederatedScope's average).

A learns what is common, B what is the client's own. What a client ends with is the global A with its own B; a client
that was never sampled has the starting adapter's B, which is zero unless the run began from a trained adapter. So the
run's global adapter adds nothing to the base: score the personal ones. The server never sees a B, hence no
aggregation error is recorded.
"""

from dataclasses import dataclass

from fedllm_train.adapters.arithmetic import Adapter, Parts, Shapes, shapes_of
from fedllm_train.adapters.lora import check_factors_only, is_a, is_b
from fedllm_train.method_settings import MeanSettings, PersonalSettings
from fedllm_train.strategy import OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["FedSALoRA"]


class FedSALoRA(OneAdapter):
    """Share and average A; B stays with its client."""

    traits = Traits(
        title="FedSA-LoRA",
        source="Guo et al. 2025, arXiv 2410.01463",
        choose_when="clients should end with adapters of their own and share only A; the global adapter alone adds "
        "nothing to the base",
        family="lora",
        exact_aggregation=False,
        weights="rows",
        sees="mean",
        needs_lora=True,
        down="A",
        up="A",
        memory="adapter",
        personal=True,
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(PersonalSettings, MeanSettings):
        """The settings of this method."""

    def start(self, adapter: Adapter) -> Parts:
        """Begin with the starting adapter, whose B the server never changes.

        Raises:
            ConfigError: if the adapter holds anything but LoRA factors.
        """
        check_factors_only(adapter, "fedsa_lora")
        return {"adapter": adapter}

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send A."""
        return {"adapter": _only_a(state["adapter"])}

    def client_update(self, visit: Visit) -> Parts:
        """Train A and the client's own B; keep both, send A."""
        visit.memory["adapter"] = visit.fit(self.personal_adapter(visit))
        return {"adapter": _only_a(visit.memory["adapter"])}

    def personal_adapter(self, visit: Visit) -> Adapter:
        """Return the global A with the client's own B."""
        own = visit.memory.get("adapter", visit.start_adapter)
        return visit.received["adapter"] | {name: tensor for name, tensor in own.items() if is_b(name)}

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Expect A."""
        return shapes_of({"adapter": _only_a(state["adapter"])})

    def contribution(self, state: Parts, update: Parts) -> Adapter:
        """Return nothing: products need B, which stays with the client."""
        return {}

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Average A; B stays as it was."""
        return {"adapter": state["adapter"] | sums["adapter"].mean()}


def _only_a(adapter: Adapter) -> Adapter:
    return {name: tensor for name, tensor in adapter.items() if is_a(name)}
