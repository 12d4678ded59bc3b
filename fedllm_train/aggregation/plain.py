"""Plain aggregation: the server rule sees every update, folded into running sums; nothing else of it is kept."""

from collections.abc import Callable, Mapping
from typing import Any

from fedllm_train.adapters.arithmetic import Parts
from fedllm_train.aggregation.aggregation import Inbox
from fedllm_train.aggregation.staleness import ServerStates, as_of_today
from fedllm_train.engines.engine import Reply
from fedllm_train.strategy import Sums

__all__ = ["PlainAggregation"]


class PlainAggregation:
    """The sums of one step's updates."""

    def __init__(
        self,
        inbox: Inbox,
        states: ServerStates,
        *,
        min_clients: int,
        watch: Callable[[Parts, Mapping[str, float]], None] = lambda update, weights: None,
    ) -> None:
        """Begin with nothing.

        Args:
            inbox: unpacks replies.
            states: the server's state that the step begins from, and those that old updates were made from.
            min_clients: the least number of updates that make a server step.
            watch: called with each update that is folded in and its weights.
        """
        self._inbox, self._states, self._min_clients, self._watch = inbox, states, min_clients, watch
        self._sums: Sums = {}
        self._num_updates = 0

    def add(self, reply: Reply) -> str | None:
        """Fold an update in; return why it cannot be used, or None."""
        strategy = self._inbox.strategy
        states = self._states
        update, anchor, problem = self._inbox.read(reply, states.of(reply.step))
        if problem is None and reply.step < states.step:
            today = self._inbox.anchor(states.newest, reply.client_id, states.step)
            moved = as_of_today(update["adapter"], anchor, today, states.weight_of(reply.step))
            update = update | {"adapter": moved}
        if problem is None:
            weights = strategy.weigh(update, reply.num_rows)
            strategy.fold(self._sums, update, weights)
            self._watch(update, weights)
            self._num_updates += 1
        return problem

    def is_enough(self) -> bool:
        """Return whether there are enough updates for a server step."""
        return self._num_updates >= self._min_clients

    def sums(self) -> Sums:
        """Return the sums of all updates."""
        return self._sums

    def as_record(self) -> dict[str, Any]:
        """Return nothing: a round's record lists its clients anyway."""
        return {}
