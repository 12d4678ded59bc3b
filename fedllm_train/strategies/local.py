"""Training alone: one client, no exchange. The baseline every federated method has to beat.

Client rule: plain local training. Server rule: keep what the client has. The rounds remain, so that the client makes
as many steps at the same learning rates as it would in a federated run (FedLLM-Bench's "local" baselines).
"""

from collections.abc import Sequence

from fedllm_data.errors import ConfigError
from fedllm_train.adapter import Adapter, RunningSum
from fedllm_train.config import FederatedConfig

__all__ = ["Local"]


class Local:
    """Train one named client on its own."""

    name = "local"
    travels = False

    def __init__(self, config: FederatedConfig) -> None:
        """Take the client from `config.local_client`."""
        self._client_id = config.local_client

    def participants(self, client_ids: Sequence[str]) -> list[str]:
        """Return the one client.

        Raises:
            ConfigError: if no client is named and there are several, or the named one does not exist.
        """
        if self._client_id is None and len(client_ids) == 1:
            return list(client_ids)
        if self._client_id is None:
            raise ConfigError(
                f"strategy local trains one client and there are {len(client_ids)}; name one with local_client, "
                f"such as {sorted(client_ids)[0]!r}"
            )
        if self._client_id not in client_ids:
            raise ConfigError(
                f"local_client {self._client_id!r} is not among the {len(client_ids)} clients; "
                f"name one of them, such as {sorted(client_ids)[0]!r}"
            )
        return [self._client_id]

    def fold(self, total: RunningSum, client_adapter: Adapter, num_rows: int) -> None:
        """Take the one update."""
        total.add(client_adapter, num_rows)

    def server_step(self, global_adapter: Adapter, total: RunningSum) -> Adapter:
        """Return the client's own adapter."""
        return total.mean()
