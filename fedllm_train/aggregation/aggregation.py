"""What the server rule will see of a step's replies: the contract, and what all of its kinds do with one reply.

`plain.py` shows every update; `private.py` only a clipped and noisy mean. Each needs a method whose server rule is
content with that (`traits.sees`); this is checked before round 0.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from safetensors import SafetensorError

from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.engines.engine import Reply
from fedllm_train.messages.update_checks import update_problem
from fedllm_train.messages.wire import Wire
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
    wire: Wire
    start_adapter: Adapter
    """What the run started from, known at both ends."""
    max_norm: float | None
    """Largest allowed norm of an adapter's change; None allows any."""

    def anchor(self, server: Parts, client_id: str, step: int) -> Adapter:
        """Return what a client's training started from, as the client has it.

        Args:
            server: the server's state when the client was asked.
            client_id: the client.
            step: the step it was asked for.
        """
        received = self.wire.as_read(self.strategy.broadcast(server, client_id, step))
        return self.strategy.anchor(received, self.start_adapter, client_id, step)

    def read(self, reply: Reply, server: Parts) -> tuple[Parts, Adapter, str | None]:
        """Return a client's update, its anchor, and why the update cannot be used, or None.

        Args:
            reply: has a message.
            server: the server's state when the client was asked.
        """
        assert reply.message is not None
        expected = self.strategy.expects(server, reply.client_id, reply.step)
        anchor = self.anchor(server, reply.client_id, reply.step)
        try:
            update = self.strategy.opened(self.wire.unpack_up(reply.message, expected, anchor))
        except (SafetensorError, ValueError) as error:
            return {}, anchor, f"its message cannot be read ({error})"
        return update, anchor, update_problem(update, expected, anchor, max_norm=self.max_norm)
