"""SCAFFOLD (Karimireddy et al. 2020, arXiv 1910.06378, Algorithm 1): control variates take the clients' drift out.

Symbols: c the server's control variate, c_k client k's, S the cohort, N the clients that can take part: those that the
cohort rule may sample. The c_k of the others are zero for ever.

Client rule: every gradient becomes g - c_k + c before it is clipped and before the optimizer sees it; afterwards
c_k' = the mean of the uncorrected gradients over the local steps. Under plain SGD this is the paper's option II,
c_k - c + (theta_global - theta_k) / (K lr), and it stays a gradient under AdamW, where that formula is not one
(FedLLM-Bench applies it to AdamW steps and nudges the weights after the optimizer).
Server rule: theta <- (1 / |S|) sum_{k in S} theta_k, as in the paper with a global step of 1 (FedLLM-Bench weighs by
rows: `uniform_weights` off); c <- c + (1 / N) sum_{k in S} (c_k' - c_k).
"""

from __future__ import annotations

from collections.abc import Mapping

from fedllm_train.adapters.arithmetic import Adapter, Parts, RunningSum, Shapes, shapes_of
from fedllm_train.lazy_torch import torch
from fedllm_train.method_settings import MeanSettings
from fedllm_train.strategy import Federation, OneAdapter, Sums, Traits
from fedllm_train.visit import Visit

__all__ = ["Scaffold"]


class Scaffold(OneAdapter):
    """FedAvg with gradients corrected by control variates."""

    traits = Traits(
        title="SCAFFOLD",
        source="Karimireddy et al. 2020, arXiv 1910.06378, Algorithm 1",
        choose_when="drift is what hurts and the same clients come back often; twice as much travels, and each "
        "client keeps a control variate",
        family="classic",
        exact_aggregation=False,
        weights="uniform",
        sees="sum",
        down="adapter + control variate",
        up="adapter + change of control variate",
        memory="control variate",
        server_cost="O(adapter) for c",
    )

    Settings = MeanSettings

    def __init__(self, federation: Federation) -> None:
        """Take who can take part."""
        super().__init__(federation)
        self._num_clients = len(federation.eligible)

    def start(self, adapter: Adapter) -> Parts:
        """Begin with control variates of zero."""
        return {"adapter": adapter, "control": zeros_like(adapter)}

    def broadcast(self, state: Parts, client_id: str, round_index: int) -> Parts:
        """Send the global adapter and c."""
        return state

    def client_update(self, visit: Visit) -> Parts:
        """Train with corrected gradients; keep c_k', send c_k' - c_k."""
        server = visit.received["control"]
        own = visit.memory.get("control") or zeros_like(server)
        seen = RunningSum()

        def correct(gradients: Adapter, values: Adapter) -> None:
            seen.add({name: gradient.cpu() for name, gradient in gradients.items()}, 1)
            for name, gradient in gradients.items():
                gradient.add_((server[name] - own[name]).to(gradient))

        adapter = visit.fit(visit.received["adapter"], correct=correct)
        visit.memory["control"] = own | seen.mean()
        return {"adapter": adapter, "control_change": {n: visit.memory["control"][n] - own[n] for n in own}}

    def expects(self, state: Parts, client_id: str, round_index: int) -> Shapes:
        """Expect an adapter and a change of the control variate."""
        return shapes_of({"adapter": state["adapter"], "control_change": state["control"]})

    def weigh(self, update: Parts, num_rows: int) -> Mapping[str, float]:
        """Weigh theta_k as in any mean, and c_k' - c_k alike, whatever the client's rows."""
        return {"adapter": self.weight_of(num_rows), "control_change": 1}

    def server_step(self, state: Parts, sums: Sums, round_index: int) -> Parts:
        """Average the adapters; move c by the share of the clients that took part."""
        change = sums["control_change"].total()
        control = {n: (c.double() + change[n] / self._num_clients).to(c.dtype) for n, c in state["control"].items()}
        return {"adapter": sums["adapter"].mean(), "control": control}


def zeros_like(adapter: Adapter) -> Adapter:
    """Return zeros of the same names, shapes and precisions."""
    return {name: torch.zeros_like(tensor) for name, tensor in adapter.items()}
