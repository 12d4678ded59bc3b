"""FedMomentum (2026, arXiv 2603.08014): the mean product, r directions in the adapter, the others in the base.

Client rule: plain local training from the global A and B on the shifted base.
Server rule: M = sum_k p_k B_k A_k, p_k = n_k / n, and U S V' = M, module by module. The r largest components become
the next factors, S shared evenly between them,

    B <- U_r S_r^(1/2),        A <- S_r^(1/2) V_r',

so that both keep the size that training gave the product and its direction in the next round; components r + 1, ...,
r_eff go into the base, W0 <- W0 + s sum_i S_i u_i v_i', and the rest is dropped: r_eff is the first number of
components that hold `residual_energy` (0.9999) of M's squared norm. So a round loses at most the root of what is left
of it, 1 % of the norm of M, and nothing with 1.

That is FlexLoRA's best approximation with what FedEx-LoRA adds to the base: what it costs is FedEx-LoRA's, downloads
that grow with the residuals (`adapters/base_shift.py`), and the server needs each B_k A_k. A component of no size has
an orthonormal row in A and zero in B: with a zero in both, its direction could never be trained again. Signs are fixed
(the largest entry of each column of U is positive).

The rule is that of another library's implementation (FedLLM-Factory), which forgets the scaling s of what goes into
the base; the authors' code was not at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.adapters.base_shift import add_to_shift, travelling
from fedllm_train.adapters.lora import Factors, ProductSum, check_factors_only, factor_names, truncated_factors
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import MeanSettings
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["FedMomentum", "split_product"]

_NOTHING = 1e-12
"""Singular values below this share of the largest are rounding."""


class FedMomentum(OneAdapter):
    """Take the adapter from the first directions of the mean product, and shift the base by the others."""

    traits = Traits(
        title="FedMomentum",
        source="arXiv 2603.08014 (2026)",
        choose_when="the product should be all but exact and the adapter keep its main directions from round to "
        "round; the server may see each update, and downloads may grow",
        family="lora",
        exact_aggregation=False,
        weights="rows",
        sees="each",
        needs_lora=True,
        down="adapter + shift of the base weights",
        server_cost="O(d m) per module once the shift has full rank, one SVD a module and round",
        shifts_base=True,
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(MeanSettings):
        """The settings of this method."""

        residual_energy: float = field(
            default=0.9999,
            metadata={
                "help": "With fedmomentum: share of the mean product's squared norm that adapter and base keep; 1 "
                "keeps all."
            },
        )

        def check(self) -> None:
            """Refuse what is no share."""
            if not 0 < self.residual_energy <= 1:
                raise ConfigError(f"residual_energy is {self.residual_energy}; it must lie in (0, 1]")

    def __init__(self, federation: Federation) -> None:
        """Take how much is kept."""
        super().__init__(federation)
        self._energy = federation.settings.residual_energy

    def start(self, adapter: Adapter) -> Parts:
        """Begin with the starting adapter and an unshifted base.

        Raises:
            ConfigError: if the adapter holds anything but LoRA factors.
        """
        check_factors_only(adapter, "fedmomentum")
        return {"adapter": adapter}

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send the factors and the shift."""
        return {"adapter": state["adapter"], "base_shift": travelling(state.get("base_shift", {}))}

    def client_update(self, visit: Visit) -> Parts:
        """Train from the global factors on the shifted base."""
        return {"adapter": visit.fit(visit.received["adapter"], base_shift=visit.received.get("base_shift"))}

    def fold(self, sums: Sums, update: Parts, weights: Mapping[str, float]) -> None:
        """Add p_k B_k A_k."""
        sums.setdefault("products", ProductSum()).add(update["adapter"], weights["adapter"])

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Split the mean product into the next adapter and a shift of the base."""
        products = sums["products"].mean()
        adapter, residual = dict(state["adapter"]), {}
        for module, (a, b) in factor_names(adapter).items():
            factors, rest = split_product(products[module], adapter[a].shape[0], self._energy)
            adapter[a], adapter[b] = factors.right.to(adapter[a].dtype), factors.left.to(adapter[b].dtype)
            residual[module] = rest
        return {"adapter": adapter, "base_shift": add_to_shift(state.get("base_shift", {}), residual)}


def split_product(product: Factors, rank: int, energy: float) -> tuple[Factors, Factors]:
    """Return the first directions of a matrix as balanced factors, and the next ones.

    Args:
        product: M, of any rank.
        rank: r, of the first.
        energy: share of the squared norm of M that both together hold.

    >>> matrix = torch.diag(torch.tensor([9.0, 4.0, 0.01])).double()
    >>> first, rest = split_product(Factors(torch.eye(3).double(), matrix), 1, 0.999)
    >>> first.left.norm().item() == first.right.norm().item(), rest.product().diag().round(decimals=6).tolist()
    (True, [0.0, 4.0, 0.0])
    """
    side = min(product.left.shape[0], product.right.shape[1], product.left.shape[1])
    whole, singular = truncated_factors(product, max(rank, side))
    size = torch.zeros(whole.left.shape[1], dtype=torch.float64)
    size[: len(singular)] = singular
    root = torch.where(size > _NOTHING * size.max(), size.sqrt(), torch.ones_like(size))[:rank]
    first = Factors(whole.left[:, :rank] / root, root[:, None] * whole.right[:rank])
    held = size.square().cumsum(0)
    # The first number of components that hold enough; with 1, all that are more than rounding.
    enough = int((held < energy * held[-1]).sum()) + 1 if energy < 1 else int((size > _NOTHING * size.max()).sum())
    return first, Factors(whole.left[:, rank : max(rank, enough)], whole.right[rank : max(rank, enough)])
