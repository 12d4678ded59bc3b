"""What an organisation brings to a run: its rows and a base model, both named by its own people. Imports no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedllm_data.clients import ClientDataset

__all__ = ["Organisation"]


@dataclass(frozen=True, kw_only=True)
class Organisation:
    """Where the rows and the base model are."""

    data: str
    """A client repo: a folder or a Hub id."""
    model: str
    """A folder or a Hub id."""
    revision: str | None = None
    trust_remote_code: bool = False

    def clients(self, split: str) -> "ClientDataset":
        """Return the clients of a split, with their rows."""
        from fedllm_data.clients import load_clients

        return load_clients(self.data, split=split)

    def base_digest(self) -> str | None:
        """Return the digest of the base model's weights; None where it cannot be known before it is loaded."""
        from fedllm_eval.policy.base_identity import snapshot_folder, weights_digest

        return weights_digest(snapshot_folder(self.model, self.revision))
