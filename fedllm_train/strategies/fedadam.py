"""FedAdam (Reddi et al. 2021, arXiv 2003.00295, Algorithm 2): Adam on the server, without bias correction.

Client rule: plain local training from the global adapter.
Server rule (`adapters/adaptive.py`): v <- beta2 v + (1 - beta2) D^2, D the uniform mean of the cohort's changes.
"""

from __future__ import annotations

from fedllm_train.adapters.adaptive import AdaptiveServer
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import MomentSettings
from fedllm_train.strategy import Traits

__all__ = ["FedAdam"]


class FedAdam(AdaptiveServer):
    """Adam on the clients' mean change."""

    traits = Traits(
        title="FedAdam",
        source="Reddi et al. 2021, arXiv 2003.00295, Algorithm 2",
        choose_when="parameters need steps of different sizes on the server, and you can tune its learning rate",
        family="classic",
        exact_aggregation=False,
        weights="uniform",
        sees="mean",
        server_cost="O(adapter), two moments",
    )

    Settings = MomentSettings

    def second_moment(self, v: torch.Tensor, squared_change: torch.Tensor) -> torch.Tensor:
        """Average the squared changes."""
        beta2 = self._settings.server_beta2
        return beta2 * v + (1 - beta2) * squared_change
