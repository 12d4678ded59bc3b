"""The federated loop, from top to bottom: sample a cohort, send, train, collect, average, remember.

Reads like the algorithm it is (McMahan et al. 2017, Algorithm 1); everything that could vary is a name imported from
beside it: who takes part (`cohort.py`), what travels (`messages/wire.py`), where clients
run (`engines/engine.py`), how updates become the next adapter (`strategies/`, `privacy/mechanism.py`), what it cost
(`messages/ledger.py`), how a killed run goes on (`run_files/checkpoint.py`).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.adapters.base_shift import shift_change, state_sha256, update_norm
from fedllm_train.adapters.lora import ProductSum, aggregation_error
from fedllm_train.clients.client_memory import ClientMemory
from fedllm_train.cohort import sample_cohort
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.engine import ClientTask, ClientUpdate, Engine, LeftOut, in_client_order
from fedllm_train.messages.update_checks import update_problem
from fedllm_train.messages.wire import Wire
from fedllm_train.monitoring.held_out import HeldOut, should_stop
from fedllm_train.privacy.mechanism import ClientPrivacy
from fedllm_train.run_files.checkpoint import RunState, append_record, kept_rounds, save_checkpoint
from fedllm_train.schedule import cosine_learning_rate
from fedllm_train.seeds import stream_seed
from fedllm_train.strategy import Strategy

__all__ = ["Record", "RunPlan", "run_round", "run_rounds"]

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What stays the same over all rounds."""

    config: FederatedConfig
    client_ids: Sequence[str]
    """Clients that may take part."""
    cohort_size: int
    strategy: Strategy
    engine: Engine
    learning_rate: float
    """Of the first round; the cosine starts here."""
    min_learning_rate: float
    run: Path
    """The run folder."""
    spool: Path
    """An existing folder for updates that come early."""
    memory: ClientMemory
    """What clients keep between rounds; the server only prunes it."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Rows of each client, for cohort rules that weigh them."""
    wire: Wire
    start_adapter: Adapter
    """What the run started from, known at both ends."""
    privacy: ClientPrivacy | None = None
    """With differential privacy, what is known of the clients is a clipped and noisy mean."""
    held_out: HeldOut | None = None
    """Scores the global adapter now and then."""

    @property
    def cohort_seed(self) -> int:
        """What cohorts are drawn from: the run seed, but where a guarantee rests on nobody knowing who took part."""
        secret = None if self.privacy is None else self.privacy.cohort_seed
        return self.config.seed if secret is None else secret


def run_rounds(plan: RunPlan, state: RunState, callbacks: Sequence[Callable[[Record], None]]) -> RunState:
    """Run the rounds that are left, with a checkpoint after each.

    Args:
        plan: what stays the same.
        state: where to begin; a fresh run begins at round 0.
        callbacks: called with each round's record, once it is on disk.

    Returns:
        The state after the last round, or after the one in which early stopping ended the run.
    """
    config = plan.config
    while state.next_round < config.num_rounds and not should_stop(state.monitor):
        state, record = run_round(plan, state)
        if plan.held_out is not None:
            state, record = plan.held_out.look(state, record)
        save_checkpoint(plan.run, state, record, keep=config.keep_checkpoints, keep_every=config.keep_every)
        append_record(plan.run, record)
        oldest_round = kept_rounds(plan.run)[-config.keep_checkpoints :][0]
        for each in record["clients"]:
            plan.memory.prune(each["client_id"], oldest_round)
        for callback in callbacks:
            callback(record)
    return state


def run_round(plan: RunPlan, state: RunState) -> tuple[RunState, Record]:
    """Run one round: the server step from one global adapter to the next."""
    config, strategy, round_index = plan.config, plan.strategy, state.next_round
    started = time.perf_counter()

    cohort = sample_cohort(
        plan.client_ids,
        plan.cohort_size,
        seed=plan.cohort_seed,
        round_index=round_index,
        rule=config.cohort_rule,
        sizes=plan.sizes,
    )
    learning_rate = cosine_learning_rate(
        round_index, config.num_rounds, maximum=plan.learning_rate, minimum=plan.min_learning_rate
    )

    num_bytes: dict[str, int] = {}

    def send(client_id: str) -> bytes:
        message = plan.wire.pack_down(strategy.broadcast(state.server, client_id, round_index))
        num_bytes[client_id] = len(message)
        return message

    def anchor_of(client_id: str) -> Adapter:
        received = plan.wire.as_read(strategy.broadcast(state.server, client_id, round_index))
        return strategy.anchor(received, plan.start_adapter, client_id, round_index)

    def tasks() -> Iterator[ClientTask]:
        for client_id in cohort:
            yield ClientTask(
                round_index=round_index,
                client_id=client_id,
                message=send(client_id),
                learning_rate=learning_rate,
                seed=stream_seed(config.seed, "client", round_index=round_index, client_id=client_id),
            )

    ledger, travels = state.ledger, strategy.traits.travels
    sums: dict[str, Any] = {}
    private = None
    if plan.privacy is not None:
        anybody = plan.client_ids[0]
        anchor = anchor_of(anybody)
        sent = strategy.expects(state.server, anybody, round_index)["adapter"]
        private = plan.privacy.new_sum({name: anchor[name] for name in sent}, round_index)
    products = ProductSum()
    visits, left_out = [], []
    for result in in_client_order(plan.engine.run(tasks()), cohort, plan.spool):
        ledger = ledger.charge(download_bytes=num_bytes[result.client_id] if travels else 0)
        if isinstance(result, LeftOut):
            left_out.append({"client_id": result.client_id, "reason": result.reason})
            continue
        ledger = ledger.charge(
            upload_bytes=len(result.message) if travels else 0,
            num_local_steps=result.num_steps,
            client_seconds=result.seconds,
        )
        expected = strategy.expects(state.server, result.client_id, round_index)
        anchor = anchor_of(result.client_id)
        update = plan.wire.unpack_up(result.message, expected, anchor)
        if problem := update_problem(update, expected, anchor, max_norm=config.max_update_norm):
            left_out.append({"client_id": result.client_id, "reason": problem})
            plan.memory.forget(result.client_id, round_index)
            continue
        visits.append(_visit_record(result))
        if private is not None:
            private.add(update)
            continue
        weights = strategy.weigh(update, result.num_rows)
        strategy.fold(sums, update, weights)
        # Where all of HetLoRA's products are zero, so is their mean, and its weights must not add up to zero.
        products.add(strategy.contribution(state.server, update), max(weights.get("adapter", 1), 1e-300))

    if private is not None:  # a round without clients is noisy, too
        released = private.release()
        strategy.fold(sums, released, strategy.weigh(released, num_rows=1))
    enough = private is not None or len(visits) >= config.min_clients
    server = strategy.server_step(state.server, sums, round_index) if enough else state.server
    record = {
        "round_index": round_index,
        "learning_rate": learning_rate,
        "train_loss": _weighted_mean(visits, "train_loss"),
        "update_norm": update_norm(state.server, server),
        "aggregation_error": aggregation_error(server["adapter"], products.mean(), shift_change(state.server, server))
        if enough
        else None,
        "adapter_sha256": state_sha256(server),
        "clients": visits,
        "left_out": left_out,
        "server_step": enough,
        **({} if private is None else {"privacy": private.as_record()}),
        "ledger": ledger.as_record(),
        "seconds": round(time.perf_counter() - started, 3),
    }
    return RunState(next_round=round_index + 1, server=server, ledger=ledger, monitor=state.monitor), record


def _visit_record(update: ClientUpdate) -> Record:
    return {
        "client_id": update.client_id,
        "num_rows": update.num_rows,
        "num_dropped_rows": update.num_dropped_rows,
        "num_unrendered_rows": update.num_unrendered_rows,
        "num_steps": update.num_steps,
        "seconds": round(update.seconds, 3),
        **update.metrics,
    }


def _weighted_mean(visits: Sequence[Record], name: str) -> float | None:
    num_rows = sum(visit["num_rows"] for visit in visits)
    return sum(visit["num_rows"] * visit[name] for visit in visits) / num_rows if visits else None
