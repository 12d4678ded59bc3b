"""FlexLoRA (Bai et al. 2024, arXiv 2402.11505): average the products, hand every client its best approximation.

Client rule: plain training of factors of the client's own rank r_k. Server rule: M = sum_k (n_k / n) s B_k A_k; its
singular value decomposition gives the factors of every rank: a client of rank r receives the best approximation of
rank r (Eckart and Young 1936), which is the first r components of one decomposition, B = U_r S_r and A = V_r' as in
the released code: A has orthonormal rows. The global adapter has the largest rank R; what it loses is sqrt(sum_{i > R}
sigma_i^2). The scaling s is the same for all and stays in the module, so it cancels (`adapters/ranks.py`); the
released code fixes lora_alpha at 16, so there it differs with the rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.adapters.lora import ProductSum, factor_names, truncated_factors
from fedllm_train.adapters.ranks import check_ranks, padded, rank_of, sliced
from fedllm_train.method_settings import MeanSettings, RankSettings
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["FlexLoRA"]


class FlexLoRA(OneAdapter):
    """Average the products B A and redistribute them by singular value decomposition."""

    traits = Traits(
        title="FlexLoRA",
        source="Bai et al. 2024, arXiv 2402.11505",
        choose_when="clients have different ranks and each should receive the best approximation of its rank; the "
        "server may see each update",
        family="lora",
        exact_aggregation=False,
        weights="rows",
        sees="each",
        mixed_ranks=True,
        needs_lora=True,
        down="adapter of the client's rank",
        up="adapter of the client's rank",
        server_cost="O(d m) a module, one SVD a round",
        adapter_down="own",
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(RankSettings, MeanSettings):
        """The settings of this method."""

    def __init__(self, federation: Federation) -> None:
        """Take the clients' ranks."""
        super().__init__(federation)
        self._ranks = federation.ranks

    def start(self, adapter: Adapter) -> Parts:
        """Begin with the starting adapter, which has the largest rank.

        Raises:
            ConfigError: if a client's rank is larger, or the adapter has no LoRA factors.
        """
        check_ranks(self._ranks, adapter)
        return {"adapter": adapter}

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send the best approximation of the client's rank."""
        rank = self._ranks.get(client_id)
        return {"adapter": state["adapter"] if rank is None else sliced(state["adapter"], rank)}

    def client_update(self, visit: Visit) -> Parts:
        """Train at the client's rank."""
        received = visit.received["adapter"]
        trained = visit.fit(padded(received, rank_of(visit.start_adapter)))
        return {"adapter": sliced(trained, rank_of(received))}

    def fold(self, sums: Sums, update: Parts, weights: Mapping[str, float]) -> None:
        """Add n_k B_k A_k."""
        sums.setdefault("products", ProductSum()).add(update["adapter"], weights["adapter"])

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Decompose the mean product."""
        adapter = dict(state["adapter"])
        names = factor_names(adapter)
        for module, product in sums["products"].mean().items():
            a, b = names[module]
            best, _ = truncated_factors(product, adapter[a].shape[0])
            adapter[a], adapter[b] = best.right.to(adapter[a].dtype), best.left.to(adapter[b].dtype)
        return {"adapter": adapter}
