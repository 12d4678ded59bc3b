"""LoRA-FAIR (Bian et al. 2025, arXiv 2411.14961): correct the averaged B until the product fits the clients' own.

Client rule: plain training. Server rule: Abar and Bbar as in FedAvg, M = sum_k (n_k / n) B_k A_k, and then, module by
module, the correction

    dB = argmin  S(M, (Bbar + dB) Abar) + lambda ||dB||_F

The clients receive Abar and Bbar + dB. S is 1 - cosine similarity and the norm is not squared, as in the paper's
equation 8; SciPy's L-BFGS minimises it (the paper runs SGD). Such a norm has a corner at 0: where lambda is at least
the norm of S's gradient there, dB = 0 and the step is FedAvg's. With `lora_fair_similarity="frobenius"`, which is
ours, S = ||M - (Bbar + dB) Abar||_F^2 and the norm is squared, for the closed form dB = (M - Bbar Abar) Abar' (Abar
Abar' + lambda I)^{-1}: least squares as lambda -> 0, FedAvg as lambda -> infinity. The cosine is blind to scale: where
the clients disagree so much that Bbar points away from M, its cheapest correction shrinks B towards zero, and the
Frobenius norm is the safer choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Parts, RunningSum
from fedllm_train.adapters.lora import Factors, ProductSum, factor_names
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import MeanSettings
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["LoRAFair", "correction"]

_FIRST_STEP = 1e-3


class LoRAFair(OneAdapter):
    """FedAvg with the averaged B corrected on the server towards the mean product."""

    traits = Traits(
        title="LoRA-FAIR",
        source="Bian et al. 2025, arXiv 2411.14961",
        choose_when="FedAvg's bytes should stay, and what averaging factors apart loses be corrected on a server "
        "that may see each update",
        family="lora",
        exact_aggregation=False,
        weights="rows",
        sees="each",
        needs_lora=True,
        server_cost="O(d m) a module, one small optimisation a module and round",
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(MeanSettings):
        """The settings of this method."""

        lora_fair_lambda: float = field(
            default=0.01, metadata={"help": "With lora_fair: weight of the correction's norm (the paper's value)."}
        )
        lora_fair_similarity: Literal["cosine", "frobenius"] = field(
            default="cosine", metadata={"help": "With lora_fair: what the corrected product is compared by."}
        )

        def check(self) -> None:
            """Refuse a negative weight or an unknown similarity."""
            if self.lora_fair_lambda < 0:
                raise ConfigError(f"lora_fair_lambda is {self.lora_fair_lambda}; it must not be negative")
            if self.lora_fair_similarity not in ("cosine", "frobenius"):
                raise ConfigError(
                    f"lora_fair_similarity is {self.lora_fair_similarity!r}; it must be cosine or frobenius"
                )

    def __init__(self, federation: Federation) -> None:
        """Take lambda and the similarity."""
        super().__init__(federation)
        self._settings = federation.settings

    def client_update(self, visit: Visit) -> Parts:
        """Train from the global adapter."""
        return {"adapter": visit.fit(visit.received["adapter"])}

    def fold(self, sums: Sums, update: Parts, weights: Mapping[str, float]) -> None:
        """Add n_k theta_k, and n_k B_k A_k."""
        sums.setdefault("adapter", RunningSum()).add(update["adapter"], weights["adapter"])
        sums.setdefault("products", ProductSum()).add(update["adapter"], weights["adapter"])

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Average, then correct B."""
        adapter = sums["adapter"].mean()
        products = sums["products"].mean()
        for module, (a, b) in factor_names(adapter).items():
            mean = Factors(adapter[b].double(), adapter[a].double())
            change = correction(
                mean,
                products[module],
                strength=self._settings.lora_fair_lambda,
                similarity=self._settings.lora_fair_similarity,
            )
            adapter[b] = (mean.left + change).to(adapter[b].dtype)
        return {"adapter": adapter}


def correction(mean: Factors, product: Factors, *, strength: float, similarity: str) -> torch.Tensor:
    """Return dB, (d, r).

    Args:
        mean: Bbar (d, r) and Abar (r, m).
        product: M as factors of any rank.
        strength: lambda, at least 0.
        similarity: "cosine" or "frobenius".

    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> correction(Factors(one, one), Factors(3 * one, one), strength=1.0, similarity="frobenius").tolist()
    [[1.0]]
    """
    from scipy.optimize import minimize  # the only one here that needs it

    bbar, abar = mean.left, mean.right
    # Everything is needed only through (d, r) and (r, r): M Abar' and the Gram matrix of Abar.
    gram = abar @ abar.mT
    target = product.left @ (product.right @ abar.mT)
    if similarity == "frobenius":
        ridge = gram + strength * torch.eye(len(gram), dtype=gram.dtype)
        return torch.linalg.lstsq(ridge, (target - bbar @ gram).mT, driver="gelsd").solution.mT
    size = float(torch.linalg.matrix_norm(product.product()))
    if size == 0 or not bool((bbar @ gram).any()):
        return torch.zeros_like(bbar)

    def loss_and_gradient(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        change = torch.from_numpy(flat.copy()).reshape(bbar.shape).requires_grad_(True)
        b = bbar + change
        norm = ((b @ gram) * b).sum().clamp_min(1e-300).sqrt()
        # The gradient of a norm at 0 is taken as 0, so that there it is the similarity's alone.
        loss = 1 - (b * target).sum() / (norm * size) + strength * torch.linalg.vector_norm(change)
        loss.backward()
        return float(loss.detach()), change.grad.flatten().numpy()

    nothing = np.zeros(bbar.numel())
    before, slope = loss_and_gradient(nothing)
    steepness = float(np.linalg.norm(slope))
    if steepness <= strength:
        return torch.zeros_like(bbar)
    # Off the corner, downhill, by a step that is small beside Bbar.
    start = slope * (-_FIRST_STEP * float(bbar.norm()) / steepness)
    result = minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-9})
    return torch.from_numpy(result.x).reshape(bbar.shape) if result.fun < before else torch.zeros_like(bbar)
