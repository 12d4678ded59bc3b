"""A secure sum as an aggregation: the server rule sees the mean of the updates, and nobody ever held one of them here.

`participation/secure_cohort.py` has exchanged keys and added masked vectors before the first reply is seen; what comes
here is only whose vectors are in the sum. The rule sees the sums of a single update, the mean, with the weight of all:
for a method whose updates are folded with one weight a part (`Strategy.why_not_summed`) that is the same.
"""

from collections.abc import Mapping
from typing import Any

from fedllm_train.adapters.arithmetic import Parts
from fedllm_train.aggregation.aggregation import Inbox
from fedllm_train.aggregation.secure_vector import SummedUpdate, summed_update, vector_size
from fedllm_train.engines.engine import Reply
from fedllm_train.privacy.accounting import Guarantee
from fedllm_train.privacy.secure_sum.round_sums import RoundSums
from fedllm_train.strategy import Sums

__all__ = ["SecureAggregation"]


class SecureAggregation:
    """The sum of one step."""

    def __init__(
        self,
        inbox: Inbox,
        server: Parts,
        sums: RoundSums,
        *,
        step: int,
        anybody: str,
        min_clients: int,
        guarantee: Guarantee | None,
    ) -> None:
        """Begin a step.

        Args:
            inbox: knows the method; no message is read by it.
            server: the server's state that the step begins from.
            sums: the run's secure sums, begun here for this step.
            step: the step.
            anybody: any client that may take part; all of them start from one anchor.
            min_clients: the least number of updates that make a server step.
            guarantee: of a run with noise; None for others.
        """
        self._strategy, self._sums, self._step = inbox.strategy, sums, step
        self._min_clients, self._guarantee = min_clients, guarantee
        self._shapes = inbox.strategy.expects(server, anybody, step)
        self._anchor = inbox.anchor(server, anybody, step) if "adapter" in self._shapes else {}
        self._num_updates = 0
        self._summed: SummedUpdate | None = None
        sums.begin(step, vector_size(self._shapes, sums.spec))

    def add(self, reply: Reply) -> str | None:
        """Count a client whose vector is in the sum; return why another's is not."""
        if self._sums.reason is not None:
            return f"the round has no sum: {self._sums.reason}"
        if reply.client_id not in self._sums.contributors:
            return "its vector is not in the sum"
        self._num_updates += 1
        return None

    def is_enough(self) -> bool:
        """Return whether there is a sum, of enough clients."""
        return self._sums.total is not None and self._num_updates >= self._min_clients

    def sums(self) -> Sums:
        """Return sums of a single update, the mean of all, with the weight of all."""
        summed = self._opened()
        sums: Sums = {}
        self._strategy.fold(sums, summed.update, _as_weights(summed.weights))
        return sums

    def as_record(self) -> dict[str, Any]:
        """Return how many were summed, what that cost, and what was summed beside the updates."""
        spec = self._sums.spec
        told: dict[str, Any] = {
            "num_summed": self._num_updates,
            "reason": self._sums.reason,
            "bits": spec.bits,
            "fraction_bits": spec.fraction_bits,
            "exchange_download_bytes": self._sums.exchanged_down,
            "exchange_upload_bytes": self._sums.exchanged_up,
        }
        record: dict[str, Any] = {"secure_sum": told}
        if self._guarantee is not None:
            spent = {"epsilon": self._guarantee.epsilon(self._step + 1), "delta": self._guarantee.delta}
            return record | {"train_loss": None, "privacy": {"unit": "client", **spent}}
        if self._sums.total is None:
            return record | {"train_loss": None}
        summed = self._opened()
        told |= {"num_clipped": summed.num_clipped}
        return record | {"train_loss": summed.train_loss}

    def _opened(self) -> SummedUpdate:
        if self._summed is None:
            total, spec = self._sums.total, self._sums.spec
            assert total is not None, "asked for where there is a sum"
            self._summed = summed_update(total, self._shapes, self._anchor, len(self._sums.contributors), spec)
        return self._summed


def _as_weights(weights: Mapping[str, int]) -> dict[str, float]:
    return {part: float(weight) for part, weight in weights.items()}
