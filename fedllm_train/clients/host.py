"""`ClientHost`: where clients' rows are. It makes the visits that tasks ask for, and keeps what its clients keep.

A host is built from a `RunSpec` and rows, never from a trainer: it is the same in the server's process, in one of
several, and on a client's own machine. Token files, reference caches and clients' memory lie in its folder and are its
own; the server sees messages alone.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from fedllm_data.clients import ClientDataset
from fedllm_data.errors import DownloadError
from fedllm_eval.policy.rendering import fix_date
from fedllm_eval.policy.run_folder import CLIENT_MEMORY, WORK
from fedllm_train.adapters.arithmetic import Adapter, Parts, flatten
from fedllm_train.adapters.last_layers import with_last_layers
from fedllm_train.clients.client_memory import ClientMemory
from fedllm_train.clients.fits import VisitFits
from fedllm_train.clients.private_fits import PrivateFits, RowsOfVisit
from fedllm_train.clients.resident import ResidentTrainer
from fedllm_train.clients.resident_args import resident_args
from fedllm_train.clients.row_secret import RowSecret, StepsSpent
from fedllm_train.clients.run_spec import RunSpec, check_same, policy_digests
from fedllm_train.clients.secure_visit import SecureVisits
from fedllm_train.clients.token_cache import TokenCache
from fedllm_train.engines.engine import Reply, Task
from fedllm_train.messages.packed_message import PackedMessage
from fedllm_train.messages.wire import ClientWire
from fedllm_train.models.policy import StartingPolicy, load_starting_policy
from fedllm_train.models.tokenizer import prepared_tokenizer
from fedllm_train.privacy.secure_sum.client_side import SumRefused
from fedllm_train.privacy.secure_sum.exchanges import TrainHeader, parted
from fedllm_train.strategies import strategy_class
from fedllm_train.visit import Visit

__all__ = ["ClientHost"]

_EXCHANGES = ("keys", "shares", "unmask")
_NOT_FINITE = "its update is not finite; lower the learning rate"


class ClientHost:
    """Visits any client whose rows are here, on one model and one trainer."""

    def __init__(self, spec: RunSpec, clients: ClientDataset, folder: Path, policy: StartingPolicy) -> None:
        """Build the trainer around the policy the run starts from.

        Args:
            spec: the run's spec.
            clients: the clients whose rows are here.
            folder: the host's own, for this run alone.
            policy: loaded from `spec.policy`, with its tokenizer prepared; the model is trained in place.

        Raises:
            ConfigError: if no client has a row to train on, or TRL refuses the settings.
        """
        if spec.template_date is not None:
            fix_date(policy.tokenizer, date.fromisoformat(spec.template_date))
        args = resident_args(spec.client_args, local_steps=spec.work.num_steps(1), workspace=str(folder / WORK))
        cache = folder / WORK / "tokens"
        self.tokens = TokenCache(clients, args, policy.tokenizer, cache, loss_on=spec.loss_on)
        """Encoded rows of the clients, by client id."""
        self.resident = ResidentTrainer(
            policy.model,
            policy.tokenizer,
            args,
            self.tokens.example(),
            starts_from_base=policy.is_base,
            reference_folder=cache if spec.reference_cache else None,
            kernel=spec.kernel,
        )
        """The trainer that stays."""
        self.policy = policy
        """What the run starts from; its model is the one that trains."""
        self._spec = spec
        self._strategy = with_last_layers(strategy_class(spec.strategy)(spec.federation), spec.federation)
        self._wire = ClientWire(spec.wire, seed=spec.seed, first=self._first_download)
        self._folder = folder
        self._sums = None if spec.sums is None else SecureVisits(spec.sums, folder)
        self._announced = clients.sizes

    @classmethod
    def load(cls, spec: RunSpec, clients: ClientDataset, folder: Path) -> "ClientHost":
        """Load the policy that a run starts from, and make its host.

        Args:
            spec: the run's spec.
            clients: the clients whose rows are here.
            folder: the host's own, for this run alone.

        Raises:
            ConfigError: if something cannot be loaded, or is not what the run's other machines have.
        """
        policy = load_starting_policy(spec.policy)
        policy = replace(policy, tokenizer=prepared_tokenizer(policy.tokenizer, spec.client_args))
        host = cls(spec, clients, folder, policy)
        check_same(spec, policy_digests(policy, host.resident.start_adapter))
        return host

    @property
    def start_state(self) -> Parts:
        """The server's state before the first step, as far as a host needs it."""
        return self._strategy.start(self.resident.start_adapter)

    def visit(self, task: Task) -> Reply:
        """Follow the client rule for one client, starting from what the task's message holds.

        Raises:
            ResumeError: if what the client remembers was damaged on disk.
            VisitStopped: if the visit was ended between two steps (`ResidentTrainer.is_stopped`); nothing of it is
                kept.
        """
        if task.purpose in _EXCHANGES:
            return self._exchange(task)
        if self._sums is None or task.purpose == "personal":
            return self._visit(task, None)
        try:
            header, broadcast = parted(task.message)
        except ValueError as error:
            reason = f"what it was sent names no secure sum ({error}), and it sends its update into nothing else"
            return Reply(step=task.step, client_id=task.client_id, reason=reason)
        return self._visit(replace(task, message=broadcast), header)

    def _exchange(self, task: Task) -> Reply:
        """Answer one of the exchanges of a secure sum beside training."""
        if self._sums is None:
            reason = f"it is asked for {task.purpose}, and the run has no secure sums"
        elif task.purpose == "keys" and not (tokens := self.tokens[task.client_id]).num_rows:
            reason = tokens.why_empty()  # said before anybody counts on it
        else:
            return self._sums.exchange(task)
        return Reply(step=task.step, client_id=task.client_id, reason=reason)

    def _visit(self, task: Task, header: TrainHeader | None) -> Reply:
        """Train, or make the client's own adapter; with a header the update goes into a secure sum."""
        started = time.perf_counter()
        tokens = self.tokens[task.client_id]
        if not tokens.num_rows:
            return Reply(step=task.step, client_id=task.client_id, reason=tokens.why_empty())
        kept = ClientMemory(self._folder / CLIENT_MEMORY / task.run)
        memory = kept.load(task.client_id, kept_step=task.kept_step, oldest_step=task.oldest_step)
        hidden = self._wire.take_hidden(memory)
        try:
            received, read = self._wire.unpack_down(task, hidden)
        except DownloadError as error:
            return Reply(step=task.step, client_id=task.client_id, reason=str(error))
        num_steps = self._spec.work.num_steps(tokens.rows.num_rows)
        if task.num_steps is not None:  # a client with little time makes fewer, never more
            num_steps = min(num_steps, task.num_steps)
        fits = VisitFits(self.resident, self._rows(task, tokens.rows), task, num_steps)
        if self._spec.rows is not None:
            most = self._spec.rows.most_steps(self._spec.work.num_steps(tokens.num_all))
            secret = RowSecret(kept.folder, task.client_id)
            of_visit = RowsOfVisit(num_rows=tokens.num_all, most_steps=most, received=received, memory=dict(memory))
            fits = PrivateFits(fits, self._spec.rows, secret, of_visit)
        visit = Visit(
            client_id=task.client_id,
            round_index=task.step,
            received=received,
            start_adapter=self.resident.start_adapter,
            memory=memory,
            num_rows=tokens.num_rows,
            num_steps=num_steps,
            learning_rate=task.learning_rate,
            fitter=fits,
            stepper=fits.first_step,
            walker=fits.walk,
        )
        try:
            if task.purpose == "personal":
                update = {"adapter": self._strategy.personal_adapter(visit)}
            else:
                update = self._strategy.client_update(visit)
        except StepsSpent as error:
            return Reply(step=task.step, client_id=task.client_id, reason=str(error))
        if not _is_finite(update) or not _is_finite(visit.memory):
            return Reply(step=task.step, client_id=task.client_id, reason=_NOT_FINITE)
        if task.purpose == "personal":
            packed = PackedMessage.whole(update)  # stays where it is made; whole, whatever the wire packs
        else:
            try:
                if header is None:
                    packed, unsent = self._pack(update, visit, hidden, task)
                else:
                    packed, unsent = self._masked(update, visit, header, task, fits.metrics), {}
            except SumRefused as error:
                return Reply(step=task.step, client_id=task.client_id, reason=str(error))
            except ValueError as error:
                return Reply(step=task.step, client_id=task.client_id, reason=f"its update cannot be packed: {error}")
            if to_keep := visit.memory | read | unsent:
                kept.save(task.client_id, task.step, to_keep)
        if header is not None:
            return self._told_of_sum(task, packed, fits.total_steps, time.perf_counter() - started)
        return Reply(
            step=task.step,
            client_id=task.client_id,
            message=packed.message,
            num_rows=tokens.num_rows,
            facts={
                "num_dropped_rows": tokens.num_dropped_rows,
                "num_unrendered_rows": tokens.num_unrendered_rows,
                "num_steps": fits.total_steps,
                "seconds": round(time.perf_counter() - started, 3),
                **self._of_wire(packed),
                **fits.metrics,
            },
        )

    def _rows(self, task: Task, rows: Any) -> Any:
        """The encoded rows that a visit trains on, with what the reference says of them."""
        drawn = self._spec.work.rows_of_round(rows.num_rows, task.step)
        rows = self.resident.with_reference(task.client_id, rows)
        return rows if drawn is None else rows.select(drawn)

    def _first_download(self, client_id: str) -> Adapter:
        """What every client knows of the adapter before any download."""
        return self._strategy.first_download(self.resident.start_adapter, client_id)

    def _pack(self, update: Parts, visit: Visit, hidden: Parts, task: Task) -> tuple[PackedMessage, Parts]:
        """The message of an update, and what the client keeps of it."""
        anchor = self._strategy.anchor(visit.received, visit.start_adapter, visit.client_id, visit.round_index)
        return self._wire.pack_up(update, anchor, hidden, task)

    def _masked(
        self, update: Parts, visit: Visit, header: TrainHeader, task: Task, metrics: Mapping[str, float]
    ) -> PackedMessage:
        """The message of an update under its masks."""
        assert self._sums is not None, "a header comes with secure sums"
        anchor = self._strategy.anchor(visit.received, visit.start_adapter, visit.client_id, visit.round_index)
        weights, loss = self._strategy.weigh(update, visit.num_rows), metrics.get("train_loss", 0.0)
        return self._sums.masked(task, header, update, anchor, weights=weights, loss=loss)

    def _told_of_sum(self, task: Task, packed: PackedMessage, num_steps: int, seconds: float) -> Reply:
        """The reply of a masked update: of the client itself nothing that its host did not announce before."""
        return Reply(
            step=task.step,
            client_id=task.client_id,
            message=packed.message,
            num_rows=self._announced[task.client_id],
            facts={
                "num_steps": num_steps,
                "seconds": round(seconds, 3),
                "bits_per_value": packed.bits_per_value,
            },
        )

    def _of_wire(self, packed: PackedMessage) -> dict[str, float | None]:
        """What the record says of a message; in a private run the error would tell of a true update, without noise."""
        facts = {"bits_per_value": packed.bits_per_value}
        is_told = self._spec.wire.wire == "none" or not self._spec.federation.is_private
        return facts | {"relative_error": packed.relative_error} if is_told else facts


def _is_finite(parts: Parts) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in flatten(parts).values())
