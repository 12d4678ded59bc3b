"""What the server rule will see of a step's replies: the contract, and what all of its kinds do with one reply.

`plain.py` shows every update; `private.py` only a clipped and noisy mean; `estimated.py`, for EF21, only the mean of
what the server estimates of all clients. Each needs a method whose server rule is content with that (`traits.sees`);
this is checked before round 0. `staleness.py` says how an update counts that was made from an earlier step.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.engines.engine import Reply
from fedllm_train.messages.download_parts import change_between, moved_by
from fedllm_train.messages.update_checks import update_problem
from fedllm_train.messages.wire import ServerWire
from fedllm_train.strategy import Strategy, Sums

__all__ = ["Aggregation", "Inbox"]


class Aggregation(Protocol):
    """The replies of one server step."""

    def add(self, reply: Reply) -> str | None:
        """Take a reply that has a message; return why it cannot be used, or None."""
        ...

    def is_enough(self) -> bool:
        """Return whether what was added makes a server step."""
        ...

    def sums(self) -> Sums:
        """Return what the server rule sees; called once, when all replies are in."""
        ...

    def as_record(self) -> dict[str, Any]:
        """Return what the round's record says of it, JSON-ready."""
        ...


@dataclass(frozen=True, kw_only=True)
class Inbox:
    """Unpacks clients' updates at the server, or says why they cannot be used."""

    strategy: Strategy
    wire: ServerWire
    start_adapter: Adapter
    """What the run started from, known at both ends."""
    max_norm: float | None
    """Largest allowed norm of an adapter's change; None allows any."""

    def anchor(self, server: Parts, client_id: str, step: int) -> Adapter:
        """Return what a client's training would start from if it read the server's own values.

        Args:
            server: the server's state when the client was asked.
            client_id: the client.
            step: the step it was asked for.
        """
        sent = self.strategy.broadcast(server, client_id, step)
        return self.strategy.anchor(sent, self.start_adapter, client_id, step)

    def read(self, reply: Reply, server: Parts) -> tuple[Parts, Adapter, str | None]:
        """Return a client's update, its anchor, and why the update cannot be used, or None.

        The update is checked, and its norm measured, from what the client read. Where that was packed, the client's
        change is then put on the server's own values, so that what the broadcast lost is not lost for good: update and
        anchor are what they would be if the client had made this change to what the server has.

        Args:
            reply: has a message.
            server: the server's state when the client was asked.
        """
        client_id, step = reply.client_id, reply.step
        expected = self.strategy.expects(server, client_id, step)
        sent = self.strategy.broadcast(server, client_id, step)
        read = self.wire.as_read(sent, client_id, step)
        anchor = self.strategy.anchor(read, self.start_adapter, client_id, step)
        try:
            update = self.strategy.opened(self.wire.unpack_up(reply, expected, anchor))
        except ValueError as error:
            return {}, anchor, f"its message cannot be read ({error})"
        problem = update_problem(update, expected, anchor, max_norm=self.max_norm)
        if problem is None and read is not sent and "adapter" in update:
            own = self.strategy.anchor(sent, self.start_adapter, client_id, step)
            change = change_between(update["adapter"], anchor)
            update = {**update, "adapter": moved_by(change, {name: own[name] for name in update["adapter"]})}
            anchor = own
        return update, anchor, problem
