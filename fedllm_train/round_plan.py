"""What stays the same over a run's rounds, and what is kept of each: the plan that `rounds.py` follows.

A client's memory is the client's alone. The server only says which of it counts: everything up to the step before the
one it asks for, unless the client's last update was refused or lost; of those clients it remembers the step
(`refused` in `RunState`), until one of their updates is accepted again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fedllm_train.adapters.arithmetic import Parts
from fedllm_train.aggregation.aggregation import Aggregation
from fedllm_train.aggregation.robust import RobustMemory
from fedllm_train.engines.engine import NO_STEP, Engine, Purpose, Reply, Task
from fedllm_train.engines.simulated import SimulatedEngine
from fedllm_train.messages.packed_message import PackedMessage
from fedllm_train.messages.wire import ServerWire
from fedllm_train.monitoring.held_out import should_stop
from fedllm_train.monitoring.ledger import LedgerKeeper
from fedllm_train.monitoring.observer import Observer, Record, Step
from fedllm_train.participation.participation_contract import Participation
from fedllm_train.run_files.checkpoint import RunState, append_record, oldest_step_needed, save_checkpoint
from fedllm_train.schedule import cosine_learning_rate
from fedllm_train.seeds import stream_seed
from fedllm_train.strategy import Strategy

__all__ = ["RoundPlan"]


@dataclass(kw_only=True)
class RoundPlan:
    """Everything that a run's rounds have in common."""

    run: Path
    """The run folder."""
    run_key: str
    seed: int
    num_rounds: int
    learning_rate: float
    """Learning rate of the first round; the cosine starts here."""
    min_learning_rate: float
    keep_checkpoints: int
    keep_every: int | None
    strategy: Strategy
    wire: ServerWire
    engine: Engine
    participation: Participation
    robust: RobustMemory = field(default_factory=lambda: RobustMemory({}))
    """What a robust sum remembers between rounds; nothing for other runs."""
    aggregate: Callable[[RunState], Aggregation]
    """From the state that a step begins from to the empty aggregation of that step."""
    ledger: LedgerKeeper
    observers: Sequence[Observer]
    """All others that look on, in the order in which the record holds what they say."""
    privacy_memory: Callable[[], Mapping[str, Any]] = dict
    """What the server of a private run remembers after a round, for the checkpoint."""
    _oldest_step: int = field(default=NO_STEP, init=False)
    _refused: dict[str, int] = field(default_factory=dict, init=False)
    _started: float = field(default=0.0, init=False)
    _sent: dict[tuple[str, int], int] = field(default_factory=dict, init=False)
    """Client and step -> length of the message that it was sent and has not answered."""

    @property
    def on_clock(self) -> SimulatedEngine | None:
        """The engine, where it keeps a clock."""
        return self.engine if isinstance(self.engine, SimulatedEngine) else None

    def is_done(self, state: RunState) -> bool:
        """Return whether there is no further round."""
        return state.next_round >= self.num_rounds or should_stop(state.monitor)

    def open_aggregation(self, state: RunState) -> Aggregation:
        """Begin a round, and return what its replies are added to."""
        self._started = time.perf_counter()
        self._refused = dict(state.refused)
        self._oldest_step = self.oldest_step()
        return self.aggregate(state)

    def ask_again(self, state: RunState) -> None:
        """Ask those clients again that were under way when the run was stopped: from the states they were sent.

        Their messages, seeds and memory are the same, so their replies are, too. They were charged for before.
        """
        self._oldest_step = self.oldest_step()
        for each in state.under_way:
            ask = self.task_for(replace(state, server=state.earlier[each.step]), step=each.step, charge=False)
            self.engine.submit([replace(ask(each.client_id), asked=each.asked, num_steps=each.num_steps)])

    def oldest_step(self) -> int:
        """Return the earliest step after which the run could go on, or from which it could ask somebody again."""
        return oldest_step_needed(self.run)

    def task_for(
        self, state: RunState, *, purpose: Purpose = "train", step: int | None = None, charge: bool = True
    ) -> Callable[[str], Task]:
        """Return a function that makes a client's task; the message is packed, and charged, when it is called.

        Args:
            state: the server's state.
            purpose: what the visit is for.
            step: by default the next round's index.
            charge: whether the message is charged.
        """
        index = state.next_round if step is None else step
        if purpose == "train":
            learning_rate = self._learning_rate(index)
        else:
            learning_rate = self.min_learning_rate

        def ask(client_id: str) -> Task:
            stream = {"client_id": client_id} | ({"round_index": index} if purpose == "train" else {})
            parts = self.strategy.broadcast(state.server, client_id, index)
            if purpose == "train":
                packed = self.wire.pack_down(parts, client_id, index)
            else:  # the finished adapter, to be kept: whole, whatever the wire packs
                packed = PackedMessage.whole(parts)
            task = Task(
                run=self.run_key,
                step=index,
                client_id=client_id,
                purpose=purpose,
                seed=stream_seed(self.seed, "client" if purpose == "train" else purpose, **stream),
                learning_rate=learning_rate,
                kept_step=state.refused.get(client_id, index) - 1,
                oldest_step=self._oldest_step,
                message=packed.message,
            )
            if purpose == "train":
                self._sent[client_id, index] = len(task.message)
                if charge:
                    for observer in (self.ledger, *self.observers):
                        observer.sent(task, packed)
            return task

        return ask

    def note(self, reply: Reply, problem: str | None) -> None:
        """Show a reply to all observers, and remember whose update was refused or lost."""
        if problem is None:
            self._refused.pop(reply.client_id, None)
        else:  # a client whose answer was lost may have kept something, too
            self._refused.setdefault(reply.client_id, reply.step)
        self.wire.noted(reply, problem)
        reply = self._with_bytes(reply)
        for observer in (self.ledger, *self.observers):
            observer.saw(reply, problem)

    def _with_bytes(self, reply: Reply) -> Reply:
        """Say what a client was sent and has sent; what was charged and never sent is given back."""
        if not self.ledger.travels:
            return replace(reply, download_bytes=0, upload_bytes=0)
        asked = self._sent.pop((reply.client_id, reply.step), 0)
        sent = asked if reply.download_bytes is None else reply.download_bytes
        self.ledger.not_sent(asked - sent)
        came = len(reply.message or b"") if reply.upload_bytes is None else reply.upload_bytes
        return replace(reply, download_bytes=sent, upload_bytes=came)

    def remember(self, state: RunState, server: Parts, aggregation: Aggregation) -> RunState:
        """Return the state after a round; its record and a checkpoint are on disk then.

        Args:
            state: the state before the round.
            server: the server's state after it.
            aggregation: what its replies were added to.
        """
        is_made = aggregation.is_enough()
        step = Step(index=state.next_round, before=state.server, after=server, is_made=is_made, monitor=state.monitor)
        record: Record = {"round_index": step.index, "learning_rate": self._learning_rate(step.index)}
        record |= {"server_step": is_made, **aggregation.as_record()}
        for observer in (self.ledger, *self.observers):
            record |= observer.stepped(step)
        if (on_clock := self.on_clock) is not None:
            under_way = tuple(on_clock.under_way())
            states = {**state.earlier, state.next_round: state.server}
            earlier = {each: states[each] for each in sorted({one.step for one in under_way})}
            state = replace(state, clock=on_clock.now, under_way=under_way, earlier=earlier)
            record |= {"clock_seconds": on_clock.now, "num_under_way": len(under_way)}
        state = replace(
            state,
            next_round=step.index + 1,
            server=server,
            ledger=self.ledger.ledger,
            monitor=record.get("monitor", state.monitor),
            refused=self._refused,
            wire=self.wire.state(),
            privacy=self.privacy_memory(),
            robust=self.robust.parts,
        )
        seconds = time.perf_counter() - self._started - record.get("eval_seconds", 0.0)
        record["seconds"] = round(seconds, 3)
        save_checkpoint(self.run, state, record, keep=self.keep_checkpoints, keep_every=self.keep_every)
        append_record(self.run, record)
        for observer in self.observers:
            observer.recorded(record)
        return state

    def _learning_rate(self, step: int) -> float:
        return cosine_learning_rate(step, self.num_rounds, maximum=self.learning_rate, minimum=self.min_learning_rate)
