"""FedYogi (Reddi et al. 2021, arXiv 2003.00295, Algorithm 2): Yogi on the server.

Client rule: plain local training from the global adapter. Server rule (`adapters/adaptive.py`): v <- v - (1 - beta2)
D^2 sign(v - D^2), D the uniform mean of the cohort's changes.
"""

from __future__ import annotations

from fedllm_train.adapters.adaptive import AdaptiveServer
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import MomentSettings
from fedllm_train.strategy import Traits

__all__ = ["FedYogi"]


class FedYogi(AdaptiveServer):
    """Yogi on the clients' mean change."""

    traits = Traits(
        title="FedYogi",
        source="Reddi et al. 2021, arXiv 2003.00295, Algorithm 2",
        choose_when="FedAdam suits you, and rounds with large changes upset it: this second moment grows in smaller "
        "steps",
        family="classic",
        exact_aggregation=False,
        weights="uniform",
        sees="mean",
        server_cost="O(adapter), two moments",
    )

    Settings = MomentSettings

    def second_moment(self, v: torch.Tensor, squared_change: torch.Tensor) -> torch.Tensor:
        """Move v towards the squared change by a bounded amount."""
        beta2 = self._settings.server_beta2
        return v - (1 - beta2) * squared_change * torch.sign(v - squared_change)
