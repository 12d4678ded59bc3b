"""Server steps that treat the clients' mean change as a gradient: momentum and adaptive rates.

Symbols, all tensor by tensor and in float64: theta the global adapter, D_t the mean change of round t, m_t its moving
average, v_t a running second moment, eta the server's learning rate, tau the adaptivity.

Reddi et al. 2021 (arXiv 2003.00295, Algorithm 2), with the uniform mean of the cohort's changes:

    m_t = beta1 m_{t-1} + (1 - beta1) D_t,   v_t from v_{t-1} and D_t^2,   theta <- theta + eta m_t / (sqrt(v_t) + tau)

with m_{-1} = 0 and v_{-1} = tau^2; there is no bias correction. FedLLM-Bench's released code (`benchmark_rules`) feeds
m_t^2 instead of D_t^2 into v_t and begins with m_0 = D_0.
"""

from __future__ import annotations

from abc import abstractmethod

from fedllm_train.adapters.arithmetic import Adapter, Parts, RunningSum
from fedllm_train.lazy_torch import torch
from fedllm_train.strategy import Federation, OneAdapter, Sums
from fedllm_train.visit import Visit

__all__ = ["AdaptiveServer", "mean_change", "moved"]


def mean_change(total: RunningSum, adapter: Adapter) -> Adapter:
    """Return the weighted mean of the clients' adapters minus the global one, in float64."""
    return {name: value / total.weight_of(name) - adapter[name].double() for name, value in total.total().items()}


def moved(adapter: Adapter, step: Adapter) -> Adapter:
    """Return an adapter moved by a step, rounded once to its own precision."""
    return {name: (tensor.double() + step[name]).to(tensor.dtype) for name, tensor in adapter.items()}


class AdaptiveServer(OneAdapter):
    """Plain local training, and Algorithm 2 on the server; a method says how v moves and what beta1 is."""

    default_beta1 = 0.9
    """Share of m kept where `server_momentum` is not given."""

    def __init__(self, federation: Federation) -> None:
        """Take eta, tau and the moments' rates from the config."""
        super().__init__(federation)
        self._settings = federation.settings

    @abstractmethod
    def second_moment(self, v: torch.Tensor, squared_change: torch.Tensor) -> torch.Tensor:
        """Return the next v."""

    def start(self, adapter: Adapter) -> Parts:
        """Begin with m = 0 and v = tau^2."""
        wide = {name: tensor.double() for name, tensor in adapter.items()}
        return {
            "adapter": adapter,
            "first_moment": {name: torch.zeros_like(tensor) for name, tensor in wide.items()},
            "second_moment": {
                name: torch.full_like(tensor, self._settings.server_tau**2) for name, tensor in wide.items()
            },
        }

    def client_update(self, visit: Visit) -> Parts:
        """Train from the global adapter."""
        return {"adapter": visit.fit(visit.received["adapter"])}

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Move m and v by the mean change, and theta by their quotient."""
        config = self._settings
        change = mean_change(sums["adapter"], state["adapter"])
        beta1 = config.momentum(self.default_beta1)
        keep = 0.0 if config.benchmark_rules and round_index == 0 else beta1
        m = {name: keep * before + (1 - keep) * change[name] for name, before in state["first_moment"].items()}
        fed = m if config.benchmark_rules else change
        v = {name: self.second_moment(before, fed[name].square()) for name, before in state["second_moment"].items()}
        step = {name: config.server_rate(1e-3) * m[name] / (v[name].sqrt() + config.server_tau) for name in m}
        return {"adapter": moved(state["adapter"], step), "first_moment": m, "second_moment": v}
