"""What a run has cost so far: bytes in both directions, client steps, seconds.

Bytes are the lengths of the messages themselves, summed over the clients of a round: a broadcast to ten clients is ten
downloads.
"""

from dataclasses import dataclass, replace
from typing import Any

from fedllm_train.engines.engine import Reply, Task
from fedllm_train.messages.packed_message import PackedMessage
from fedllm_train.monitoring.observer import Observer, Record, Step

__all__ = ["Ledger", "LedgerKeeper"]


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Totals since round 0; kept in every checkpoint, so that a resumed run counts on."""

    download_bytes: int = 0
    """Server to clients."""
    upload_bytes: int = 0
    """Clients to server."""
    num_local_steps: int = 0
    client_seconds: float = 0.0
    """Time the clients spent training, whether or not they ran side by side."""

    def charge(
        self,
        *,
        download_bytes: int = 0,
        upload_bytes: int = 0,
        num_local_steps: int = 0,
        client_seconds: float = 0.0,
    ) -> "Ledger":
        """Return the ledger with some costs added.

        >>> Ledger(upload_bytes=3).charge(upload_bytes=4).upload_bytes
        7
        """
        return replace(
            self,
            download_bytes=self.download_bytes + download_bytes,
            upload_bytes=self.upload_bytes + upload_bytes,
            num_local_steps=self.num_local_steps + num_local_steps,
            client_seconds=self.client_seconds + client_seconds,
        )

    def as_record(self) -> dict[str, Any]:
        """Return the totals as a JSON-ready mapping."""
        return {
            "download_bytes": self.download_bytes,
            "upload_bytes": self.upload_bytes,
            "num_local_steps": self.num_local_steps,
            "client_seconds": round(self.client_seconds, 3),
        }


class LedgerKeeper(Observer):
    """Charges what travels and what clients spend."""

    def __init__(self, ledger: Ledger, *, travels: bool) -> None:
        """Go on from what a run has cost so far.

        Args:
            ledger: the totals so far.
            travels: whether messages go over a network; if not, none of their bytes count.
        """
        self.ledger, self.travels = ledger, travels

    def sent(self, task: Task, packed: PackedMessage) -> None:
        """Charge a task's message."""
        self.ledger = self.ledger.charge(download_bytes=self._bytes(task.message))

    def not_sent(self, num_bytes: int) -> None:
        """Take back the charge for bytes that a client was to be sent and was not: it was given up before."""
        self.ledger = self.ledger.charge(download_bytes=-num_bytes)

    def exchanged(self, download_bytes: int, upload_bytes: int) -> None:
        """Charge what travels beside tasks and updates: the exchanges of a secure sum."""
        self.ledger = self.ledger.charge(download_bytes=download_bytes, upload_bytes=upload_bytes)

    def saw(self, reply: Reply, problem: str | None) -> None:
        """Charge what a client did and sent, whether or not it arrived and could be used."""
        sent = self._bytes(reply.message or b"") if reply.upload_bytes is None else reply.upload_bytes
        if reply.message is not None or reply.clock is not None:
            self.ledger = self.ledger.charge(
                upload_bytes=sent,
                num_local_steps=reply.facts.get("num_steps", 0),
                client_seconds=reply.facts.get("seconds", 0.0),
            )

    def stepped(self, step: Step) -> Record:
        """Return the totals."""
        return {"ledger": self.ledger.as_record()}

    def _bytes(self, message: bytes) -> int:
        return len(message) if self.travels else 0
