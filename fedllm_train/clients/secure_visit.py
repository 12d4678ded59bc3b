"""A client's end of secure sums in its visits: the exchanges beside training, and the masked message of an update."""

import time
from collections.abc import Mapping
from pathlib import Path

from fedllm_eval.policy.run_folder import CLIENT_MEMORY
from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.aggregation.secure_vector import noisy_vector_of, vector_of
from fedllm_train.clients.client_memory import client_folder_name
from fedllm_train.engines.engine import Reply, Task
from fedllm_train.messages.packed_message import PackedMessage
from fedllm_train.privacy.secure_sum.client_side import SumClient, SumRefused
from fedllm_train.privacy.secure_sum.client_state import ClientState
from fedllm_train.privacy.secure_sum.exchanges import TrainHeader
from fedllm_train.privacy.secure_sum.fixed_point import SumSpec

__all__ = ["SecureVisits"]

_SECRETS = "secure_sum"
"""In a client's folder of memory."""


class SecureVisits:
    """What a host does for its clients in a run with secure sums."""

    def __init__(self, spec: SumSpec, folder: Path) -> None:
        """Take what the run has agreed on.

        Args:
            spec: the run's sums.
            folder: the host's own, where clients keep what they keep.
        """
        self._spec, self._folder = spec, folder

    def exchange(self, task: Task) -> Reply:
        """Answer one of the exchanges beside training."""
        started = time.perf_counter()
        client = self._client(task)
        answers = {"keys": client.keys, "shares": client.shares, "unmask": client.unmask}
        try:
            message = answers[task.purpose](task.step, task.message)
        except SumRefused as error:
            return Reply(step=task.step, client_id=task.client_id, reason=str(error))
        seconds = round(time.perf_counter() - started, 3)
        facts = {"num_steps": 0, "seconds": seconds}
        return Reply(step=task.step, client_id=task.client_id, message=message, facts=facts)

    def masked(
        self,
        task: Task,
        header: TrainHeader,
        update: Parts,
        anchor: Adapter,
        *,
        weights: Mapping[str, float],
        loss: float,
    ) -> PackedMessage:
        """Return the message of an update, under its masks.

        Args:
            task: of the visit.
            header: with whom it is masked.
            update: what the client rule returned.
            anchor: what the client's training started from.
            weights: part -> weight.
            loss: mean training loss of the visit.

        Raises:
            SumRefused: if the client would show more than a term of one sum.
            ValueError: if the update cannot be put into whole numbers.
        """
        client = self._client(task)
        if self._spec.noise:
            vector = noisy_vector_of(update, anchor, client, task.step, self._spec)
        else:
            vector = vector_of(update, anchor, weights, loss, self._spec)
        masked = client.masked(task.step, header, vector)
        return PackedMessage(message=masked.tobytes(), num_values=len(masked), relative_error=None)

    def _client(self, task: Task) -> SumClient:
        place = self._folder / CLIENT_MEMORY / task.run / client_folder_name(task.client_id) / _SECRETS
        return SumClient(ClientState(place), self._spec, run=task.run, client_id=task.client_id)
