"""What a run has cost so far: bytes in both directions, client steps, seconds.

Bytes are the lengths of the messages themselves, summed over the clients of a round: a broadcast to ten clients is ten
downloads.
"""

from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Ledger"]


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
