"""FedAdagrad (Reddi et al. 2021, arXiv 2003.00295, Algorithm 2): Adagrad on the server.

Client rule: plain local training from the global adapter.
Server rule (`adapters/adaptive.py`): v <- v + D^2, D the uniform mean of the cohort's changes; beta1 = 0 unless
`server_momentum` is given, as in the paper's experiments and in FedLLM-Bench.
"""

from __future__ import annotations

from fedllm_train.adapters.adaptive import AdaptiveServer
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import AdaptiveSettings
from fedllm_train.strategy import Traits

__all__ = ["FedAdagrad"]


class FedAdagrad(AdaptiveServer):
    """Adagrad on the clients' mean change."""

    traits = Traits(
        title="FedAdagrad",
        source="Reddi et al. 2021, arXiv 2003.00295, Algorithm 2",
        choose_when="the server's steps should become smaller by themselves as the run goes on, and you can tune its "
        "learning rate",
        family="classic",
        exact_aggregation=False,
        weights="uniform",
        sees="mean",
        server_cost="O(adapter), two moments",
    )

    Settings = AdaptiveSettings
    default_beta1 = 0.0

    def second_moment(self, v: torch.Tensor, squared_change: torch.Tensor) -> torch.Tensor:
        """Add the squared change."""
        return v + squared_change
