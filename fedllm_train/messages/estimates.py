"""EF21 at the server: the sum of what it takes for its clients' changes, of which each message sends a correction.

Symbols: g_k the estimate of client k's change, w_k its weight, c_k the correction that it sends. The server keeps
G = sum_k w_k g_k over the clients that it has heard so far, not each g_k: G <- G + w_k c_k is all it needs, its memory
does not grow with the clients (design rule 5), and a client that is not heard in a round stays in the mean G / sum w_k
with the g_k that it has. So the mean is over the whole roster in every round, which is what EF21 is proven for
(Richtarik et al. 2021, arXiv 2106.05203, Algorithm 2), and why a cohort that is drawn afresh is refused.

A client counts from the round in which it is first heard, with the weight that it has then.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.messages.wire_state import WireState

__all__ = ["Estimates"]

_PART = "estimate"


class Estimates:
    """The weighted sum of the clients' estimated changes, in float64."""

    def __init__(self, state: WireState) -> None:
        """Go on from what the server remembers."""
        self._sum: Adapter = dict(state.tensors.get(_PART, {}))
        self._weights = dict(state.weights)

    def add(self, client_id: str, correction: Adapter, weight: float) -> None:
        """Move a client's estimate.

        Args:
            client_id: the client.
            correction: what it sent, in float64.
            weight: the client's weight in the mean; the one it was first heard with stays.

        >>> import torch
        >>> estimates = Estimates(WireState())
        >>> estimates.add("ann", {"a": torch.tensor([1.0]).double()}, 3)
        >>> estimates.add("bob", {"a": torch.tensor([5.0]).double()}, 1)
        >>> estimates.mean()["a"].tolist()  # (3 * 1 + 1 * 5) / 4
        [2.0]
        """
        weight = self._weights.setdefault(client_id, weight)
        for name, tensor in correction.items():
            term = tensor * weight
            self._sum[name] = self._sum[name] + term if name in self._sum else term

    def mean(self) -> Adapter:
        """Return the weighted mean of the estimates of all clients that were heard so far."""
        total = sum(self._weights.values())
        return {name: tensor / total for name, tensor in self._sum.items()}

    def state(self) -> tuple[Mapping[str, Adapter], Mapping[str, float]]:
        """Return the sum, as a part, and the weights, for `WireState`."""
        return ({_PART: dict(self._sum)} if self._sum else {}), dict(self._weights)
