"""EF21's aggregation: clients send corrections of what the server takes for their changes; it sees the mean of those.

Symbols: c_k the correction that client k sends, g_k <- g_k + c_k the server's estimate of its change, S the server's
own adapter, w_k the clients' weights. The server rule sees one update, S + sum_k w_k g_k / sum_k w_k over all clients
of the roster that were heard so far, whether or not their upload came in this round (`messages/estimates.py`). It is
content with the mean of the adapters (`Traits.sees` is "mean"); this is checked before round 0.
"""

from typing import Any

from fedllm_train.adapters.arithmetic import Parts, shapes_of
from fedllm_train.aggregation.aggregation import Inbox
from fedllm_train.engines.engine import Reply
from fedllm_train.messages.update_checks import update_problem
from fedllm_train.strategy import Sums

__all__ = ["EstimatedAggregation"]


class EstimatedAggregation:
    """The corrections of a step's clients, and the mean of the estimates afterwards."""

    def __init__(self, inbox: Inbox, server: Parts, *, step: int, anybody: str, min_clients: int) -> None:
        """Begin a step.

        Args:
            inbox: its wire keeps the estimates.
            server: the server's state that the step begins from.
            step: the step.
            anybody: any client that may take part; all of them start from one anchor.
            min_clients: the least number of corrections that make a server step.
        """
        self._inbox, self._min_clients = inbox, min_clients
        anchor = inbox.anchor(server, anybody, step)
        self._start = {name: anchor[name] for name in sorted(inbox.strategy.expects(server, anybody, step)["adapter"])}
        self._num_updates = 0

    def add(self, reply: Reply) -> str | None:
        """Move a client's estimate; return why its message cannot be used, or None."""
        try:
            correction = self._inbox.wire.correction(reply, self._start)
        except ValueError as error:
            return f"its message cannot be read ({error})"
        update = {"adapter": correction}
        problem = update_problem(update, shapes_of({"adapter": self._start}), self._start, max_norm=None)
        if problem is None:
            weight = self._inbox.strategy.weigh(update, reply.num_rows)["adapter"]
            self._inbox.wire.estimates.add(reply.client_id, correction, weight)
            self._num_updates += 1
        return problem

    def is_enough(self) -> bool:
        """Return whether there are enough corrections for a server step."""
        return self._num_updates >= self._min_clients

    def sums(self) -> Sums:
        """Return sums of a single update, the mean of the estimates: with "mean" that is all the server rule needs."""
        strategy, estimates = self._inbox.strategy, self._inbox.wire.estimates.mean()
        adapter = {name: (start.double() + estimates[name]).to(start.dtype) for name, start in self._start.items()}
        update: Parts = {"adapter": adapter}
        sums: Sums = {}
        strategy.fold(sums, update, strategy.weigh(update, num_rows=1))
        return sums

    def as_record(self) -> dict[str, Any]:
        """Return nothing: a round's record lists its clients anyway."""
        return {}
