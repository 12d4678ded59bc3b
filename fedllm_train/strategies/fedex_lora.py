"""FedEx-LoRA (Singhal et al. 2025, arXiv 2410.09432, ACL): averaging apart, and what that loses goes into the base.

Client rule: plain local training from Abar and Bbar on the shifted base.
Server rule: Abar, Bbar as FedAvg; W0 <- W0 + s (sum_k p_k B_k A_k - Bbar Abar), so that

    W0' + s Bbar Abar = W0 + s sum_k p_k B_k A_k.

The p_k are 1/K, the paper's, unless `uniform_weights` is off. The residual of a round is sum_k p_k (B_k - Bbar) (A_k -
Abar), of rank (K - 1) r at most. What a client downloads is Abar, Bbar and the sum of all residuals so far
(`adapters/base_shift.py`): a client sampled now may have missed those before, and a client that keeps nothing between
rounds has none of them. The server needs each B_k A_k, so secure sums cannot hide them.
"""

from collections.abc import Mapping

from fedllm_train.adapters.arithmetic import Adapter, Parts, RunningSum
from fedllm_train.adapters.base_shift import add_to_shift, travelling
from fedllm_train.adapters.lora import Factors, ProductSum, check_factors_only, factor_names, side_by_side
from fedllm_train.method_settings import MeanSettings
from fedllm_train.strategy import OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["FedExLoRA"]


class FedExLoRA(OneAdapter):
    """Average A and B apart, and shift the base weights by what that loses."""

    traits = Traits(
        title="FedEx-LoRA",
        source="Singhal et al. 2025, arXiv 2410.09432",
        choose_when="the product should be exact with both factors trained, the server may see each update, and "
        "downloads may grow",
        family="lora",
        exact_aggregation=True,
        weights="uniform",
        sees="each",
        needs_lora=True,
        down="adapter + shift of the base weights",
        server_cost="O(d m) per module once the shift has full rank",
        shifts_base=True,
    )

    Settings = MeanSettings

    def start(self, adapter: Adapter) -> Parts:
        """Begin with the starting adapter and an unshifted base.

        Raises:
            ConfigError: if the adapter holds anything but LoRA factors.
        """
        check_factors_only(adapter, "fedex_lora")
        return {"adapter": adapter}

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send the factors and the shift."""
        return {"adapter": state["adapter"], "base_shift": travelling(state.get("base_shift", {}))}

    def client_update(self, visit: Visit) -> Parts:
        """Train from the means on the shifted base."""
        return {"adapter": visit.fit(visit.received["adapter"], base_shift=visit.received.get("base_shift"))}

    def fold(self, sums: Sums, update: Parts, weights: Mapping[str, float]) -> None:
        """Add p_k A_k, p_k B_k and p_k B_k A_k."""
        sums.setdefault("adapter", RunningSum()).add(update["adapter"], weights["adapter"])
        sums.setdefault("products", ProductSum()).add(update["adapter"], weights["adapter"])

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Average the factors and shift the base by the residual."""
        total, products = sums["adapter"], sums["products"].mean()
        # In float64: against means rounded to float32 the residual would have the full rank of rounding noise.
        mean = {name: tensor / total.total_weight for name, tensor in total.total().items()}
        residual = {
            module: side_by_side([products[module], Factors(-mean[b], mean[a])])
            for module, (a, b) in factor_names(mean).items()
        }
        return {"adapter": total.mean(), "base_shift": add_to_shift(state.get("base_shift", {}), residual)}
