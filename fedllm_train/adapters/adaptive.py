"""Server steps that treat the clients' mean change as a gradient: momentum and adaptive rates.

Symbols, all tensor by tensor and in float64: theta the global adapter, D_t the mean change of round t, m_t its moving
average, v_t a running second moment, eta the server's learning rate, tau the adaptivity.

Reddi et al. 2021 (arXiv 2003.00295, Algorithm 2), with the uniform mean of the cohort's changes:

    m_t = beta1 m_{t-1} + (1 - beta1) D_t,   v_t from v_{t-1} and D_t^2,   theta <- theta + eta m_t / (sqrt(v_t) + tau)

with m_{-1} = 0 and v_{-1} = tau^2; there is no bias correction. FedLLM-Bench's released code (`benchmark_rules`) feeds
m_t^2 instead of D_t^2 into v_t and begins with m_0 = D_0.
"""

from collections.abc import Callable

import torch

from fedllm_train.adapters.arithmetic import Adapter, Parts, RunningSum
from fedllm_train.config import FederatedConfig

__all__ = ["adaptive_start", "adaptive_step", "mean_change", "moved"]

SecondMoment = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""The next v from v and the squared change."""


def mean_change(total: RunningSum, adapter: Adapter) -> Adapter:
    """Return the weighted mean of the clients' adapters minus the global one, in float64."""
    return {name: value / total.total_weight - adapter[name].double() for name, value in total.total().items()}


def moved(adapter: Adapter, step: Adapter) -> Adapter:
    """Return an adapter moved by a step, rounded once to its own precision."""
    return {name: (tensor.double() + step[name]).to(tensor.dtype) for name, tensor in adapter.items()}


def adaptive_start(adapter: Adapter, tau: float) -> Parts:
    """Return the state before round 0: m = 0, v = tau^2."""
    wide = {name: tensor.double() for name, tensor in adapter.items()}
    return {
        "adapter": adapter,
        "first_moment": {name: torch.zeros_like(tensor) for name, tensor in wide.items()},
        "second_moment": {name: torch.full_like(tensor, tau**2) for name, tensor in wide.items()},
    }


def adaptive_step(
    state: Parts,
    total: RunningSum,
    config: FederatedConfig,
    second_moment: SecondMoment,
    *,
    beta1: float,
    first_round: bool,
) -> Parts:
    """Return the state after one step of Algorithm 2.

    Args:
        state: theta, m and v.
        total: sum of the cohort's adapters, each with weight 1.
        config: eta, tau and whether to follow FedLLM-Bench's code.
        second_moment: the rule for v, which is where the three methods differ.
        beta1: share of m kept.
        first_round: whether no step was made yet.
    """
    change = mean_change(total, state["adapter"])
    keep = 0.0 if config.benchmark_rules and first_round else beta1
    m = {name: keep * before + (1 - keep) * change[name] for name, before in state["first_moment"].items()}
    fed = m if config.benchmark_rules else change
    v = {name: second_moment(before, fed[name].square()) for name, before in state["second_moment"].items()}
    step = {name: config.server_rate(1e-3) * m[name] / (v[name].sqrt() + config.server_tau) for name in m}
    return {"adapter": moved(state["adapter"], step), "first_moment": m, "second_moment": v}
