"""FedRot-LoRA (Zhang et al. 2026, arXiv 2602.23638, ICML): FedAvg of factors that clients turned towards each other's.

For any rotation R (r, r), B R and R' A have the product of B and A. Clients that learned the same product may send
factors that are turned against one another, and the mean of those loses what they agree on. So each client turns its
own towards the last global ones before it sends them.

Client rule: train A and B from the global A_ref and B_ref. In round 0 send them as they are (B_ref is zero, or nobody
has trained yet). After that, module by module, with M = A_ref A' in odd rounds and M = B_ref' B in even ones, (r, r),
and U S V' = M:

    R* = V diag(1, ..., 1, det(U V')) U',             the rotation that brings A (or B) nearest to the global one,
    R  = the rotation nearest to (1 - lambda) I + lambda R*,           `rotation_strength`, the paper's 0.5,

and send R' A and B R. Server rule: FedAvg of both factors, p_k = n_k / n.

The products stay each client's own; `aggregation_error` of the record, what averaging the factors apart loses, is what
it lowers. lambda 0 is FedAvg, lambda 1 turns all the way. The nearest rotation is P diag(1, ..., 1, det(P Q')) Q' for
the singular vectors P, Q' of its argument. All of it happens at the client, in float64: bytes are FedAvg's, and secure
sums and differential privacy work as with FedAvg. A module whose M is zero says nothing and is sent as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.adapters.lora import check_factors_only, factor_names
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import MeanSettings
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["FedRotLoRA", "aligned", "rotation"]


class FedRotLoRA(OneAdapter):
    """FedAvg of factors that every client has turned towards the global ones."""

    traits = Traits(
        title="FedRot-LoRA",
        source="Zhang et al. 2026, arXiv 2602.23638",
        choose_when="FedAvg's bytes and privacy should stay, and averaging A and B apart lose less, without a server "
        "that sees each update",
        family="lora",
        exact_aggregation=False,
        weights="rows",
        sees="mean",
        needs_lora=True,
    )

    @dataclass(frozen=True, kw_only=True)
    class Settings(MeanSettings):
        """The settings of this method."""

        rotation_strength: float = field(
            default=0.5,
            metadata={
                "help": "With fedrot_lora: how far clients turn their factors towards the global ones, from 0 (not) "
                "to 1 (as near as they come); the paper's 0.5."
            },
        )

        def check(self) -> None:
            """Refuse what is no share of the way."""
            if not 0 <= self.rotation_strength <= 1:
                raise ConfigError(f"rotation_strength is {self.rotation_strength}; it must lie in [0, 1]")

    def __init__(self, federation: Federation) -> None:
        """Take lambda."""
        super().__init__(federation)
        self._strength = federation.settings.rotation_strength

    def start(self, adapter: Adapter) -> Parts:
        """Begin with the starting adapter.

        Raises:
            ConfigError: if the adapter holds anything but LoRA factors, whose product a rotation leaves as it is.
        """
        check_factors_only(adapter, "fedrot_lora")
        return {"adapter": adapter}

    def client_update(self, visit: Visit) -> Parts:
        """Train both factors, then turn them towards those that were sent."""
        reference = visit.received["adapter"]
        return {"adapter": aligned(visit.fit(reference), reference, visit.round_index, self._strength)}

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Return the mean of the cohort's adapters."""
        return {"adapter": sums["adapter"].mean()}


def aligned(
    adapter: Mapping[str, torch.Tensor], reference: Mapping[str, torch.Tensor], round_index: int, strength: float
) -> Adapter:
    """Return an adapter of the same products whose factors are turned towards those of another.

    Args:
        adapter: what a client trained.
        reference: the global adapter it trained from.
        round_index: 0 turns nothing, odd rounds look at A, even ones at B.
        strength: lambda, in [0, 1].

    >>> half_turn = {"q.lora_A.weight": -torch.eye(2), "q.lora_B.weight": -torch.eye(2)}
    >>> there = {"q.lora_A.weight": torch.eye(2), "q.lora_B.weight": torch.eye(2)}
    >>> (aligned(half_turn, there, 1, 1.0)["q.lora_B.weight"] - torch.eye(2)).abs().max().item() < 1e-6
    True
    """
    result = dict(adapter)
    if round_index == 0 or strength == 0:
        return result
    for a, b in factor_names(adapter).values():
        own_a, own_b = adapter[a].double(), adapter[b].double()
        overlap = reference[a].double() @ own_a.mT if round_index % 2 else reference[b].double().mT @ own_b
        # A client whose training broke sends what it has: its host sees that it is not finite and says so.
        if not bool(overlap.any()) or not bool(overlap.isfinite().all()):
            continue
        turn = rotation(overlap, strength)
        result[a] = (turn.mT @ own_a).to(adapter[a].dtype)
        result[b] = (own_b @ turn).to(adapter[b].dtype)
    return result


def rotation(overlap: torch.Tensor, strength: float) -> torch.Tensor:
    """Return the rotation R of part of the way, (r, r) in float64.

    Args:
        overlap: M, (r, r): the global factor times the client's, over their long side.
        strength: lambda, the share of the way.

    >>> rotation(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).double(), 1.0).round(decimals=6).tolist()
    [[0.0, -1.0], [1.0, 0.0]]
    """
    u, _, vt = torch.linalg.svd(overlap)
    whole = _made_proper(vt.mT, u.mT)
    there = (1 - strength) * torch.eye(len(overlap), dtype=overlap.dtype) + strength * whole
    p, _, qt = torch.linalg.svd(there)
    return _made_proper(p, qt)


def _made_proper(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The product of two orthogonal matrices, the last direction mirrored where that would be no rotation."""
    sign = torch.linalg.det(left @ right).sign()
    return torch.cat([left[:, :-1], left[:, -1:] * sign], dim=1) @ right
