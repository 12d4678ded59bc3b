"""What the server sends in a round: a message is encoded when its client's turn comes, once if all get the same."""

from fedllm_train.adapters.arithmetic import Parts, flatten
from fedllm_train.messages import codec
from fedllm_train.strategy import Strategy

__all__ = ["Broadcast"]


class Broadcast:
    """The messages of one round, and how long they were."""

    def __init__(self, strategy: Strategy, server: Parts, round_index: int) -> None:
        """Prepare to send the server's state of a round."""
        self._strategy, self._server, self._round_index = strategy, server, round_index
        self._parts: Parts = {}
        self._message = b""
        self.num_bytes: dict[str, int] = {}
        """Length of what each client was sent so far."""

    def to(self, client_id: str) -> bytes:
        """Return the message for a client."""
        parts = self._strategy.broadcast(self._server, client_id, self._round_index)
        if not self._message or not _same(parts, self._parts):
            self._parts, self._message = parts, codec.encode(parts)
        self.num_bytes[client_id] = len(self._message)
        return self._message


def _same(a: Parts, b: Parts) -> bool:
    """Whether two messages hold the very same tensors."""
    flat_a, flat_b = flatten(a), flatten(b)
    return flat_a.keys() == flat_b.keys() and all(flat_a[name] is flat_b[name] for name in flat_a)
