"""A run without a model: the very participation, clock and ledger of a run, over clients that only have sizes.

Whom to ask, how long a visit takes, who is lost and what the ledger counts are the run's own code, so a plan's bytes
and hours are those of the run. What a client would learn is left out, and nothing depends on it but lengths of
messages that are entropy-coded. Imports no torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from fedllm_train.engines.engine import Engine, InProcessEngine, Reply, Task
from fedllm_train.engines.simulated import SimulatedEngine
from fedllm_train.messages.packed_message import PackedMessage
from fedllm_train.monitoring.ledger import Ledger, LedgerKeeper
from fedllm_train.participation.clock import Clock
from fedllm_train.participation.participation_contract import Participation
from fedllm_train.planning.hollow import HollowMessage
from fedllm_train.planning.method_messages import MethodMessages, Parts
from fedllm_train.planning.planned_wire import PlannedWire
from fedllm_train.prepare import RunPlan

__all__ = ["HollowRun", "PlannedVisit", "hollow_run"]


@dataclass(frozen=True, kw_only=True)
class PlannedVisit:
    """One client's visit, as a run's record would have it."""

    step: int
    """The server step in which its reply is seen."""
    client_id: str
    download_bytes: int
    upload_bytes: int
    num_steps: int
    seconds: tuple[float, float, float] | None
    """Download, computing and upload on the clock; None where there is none."""
    kind: str
    """`arrived`, or why it was left out: `lost`, `late`, `closed`."""


@dataclass(kw_only=True)
class HollowRun:
    """What happened."""

    visits: list[PlannedVisit] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    """The clock when each step was made, in seconds; empty without a clock."""
    ledger: Ledger = field(default_factory=Ledger)
    values_down: int = 0
    """Values that the messages of all tasks stand for."""
    values_up: int = 0
    """Values that the messages of all replies stand for."""
    bytes_up: int = 0
    """Bytes of the same messages."""
    num_made: int = 0
    """Server steps that were made."""

    @property
    def lost(self) -> Counter[str]:
        """How many visits were left out, by kind."""
        return Counter(each.kind for each in self.visits if each.kind != "arrived")


class _Clients:
    """Stands for the hosts of the clients."""

    def __init__(self, lengths: Mapping[tuple[str, int], int], steps_of: Callable[[str], int], plan: RunPlan) -> None:
        self._lengths, self._steps_of, self._sizes = lengths, steps_of, plan.roster.sizes
        self._fits = getattr(plan.strategy, "fits_per_visit", 1)

    def visit(self, task: Task) -> Reply:
        """Reply with a message of the planned length."""
        steps = self._steps_of(task.client_id) if task.num_steps is None else task.num_steps
        return Reply(
            step=task.step,
            client_id=task.client_id,
            message=HollowMessage(self._lengths[task.client_id, task.step]),  # type: ignore[arg-type]
            num_rows=self._sizes.get(task.client_id, 1),
            facts={"num_steps": steps * self._fits, "seconds": 0.0, "train_loss": 0.0},
        )


def hollow_run(
    plan: RunPlan,
    participation: Participation,
    messages: MethodMessages,
    wire: PlannedWire,
    *,
    clock: Clock | None,
    steps_of: Callable[[str], int],
    num_rounds: int,
) -> HollowRun:
    """Go through the rounds of a run.

    Args:
        plan: the run.
        participation: whom it asks.
        messages: what its method sends.
        wire: how long that is.
        clock: how long visits take; None where nothing is known of machines.
        steps_of: optimizer steps of a client's visit.
        num_rounds: how many rounds, from the first.
    """
    lengths: dict[tuple[str, int], int] = {}
    updates: dict[tuple[str, int], Parts] = {}
    engine: Engine = InProcessEngine(_Clients(lengths, steps_of, plan))
    if clock is not None:
        engine = SimulatedEngine(engine, clock)
    travels = plan.strategy.traits.travels
    keeper, run = LedgerKeeper(Ledger(), travels=travels), HollowRun()
    sent: dict[tuple[str, int], int] = {}

    for step in range(num_rounds):

        def ask(client_id: str, step: int = step) -> Task:
            down, up = messages.down(client_id, step), messages.up(client_id, step)
            lengths[client_id, step] = wire.up_bytes(up, client_id, step)
            updates[client_id, step] = up
            sent[client_id, step] = wire.down_bytes(down, client_id, step)
            run.values_down += _num_values(down) if travels else 0
            task = Task(
                run="plan",
                step=step,
                client_id=client_id,
                seed=0,
                learning_rate=0.0,
                message=HollowMessage(sent[client_id, step]),  # type: ignore[arg-type]
            )
            keeper.sent(task, PackedMessage(message=task.message, num_values=0))
            return task

        made = []
        for reply in participation.replies(engine, step, ask):  # type: ignore[arg-type]
            key = reply.client_id, reply.step
            reply = _with_bytes(reply, sent[key] if travels else 0, travels=travels)
            assert reply.download_bytes is not None
            keeper.not_sent((sent[key] if travels else 0) - reply.download_bytes)
            keeper.saw(reply, None if reply.message is not None else reply.reason)
            if reply.message is not None:
                made.append((reply.client_id, updates[key]))
                run.values_up += _num_values(updates[key]) if travels else 0
                run.bytes_up += reply.upload_bytes or 0
            wire.noted(*key, is_accepted=reply.message is not None, is_lost=reply.message is None)
            run.visits.append(_visit(reply, step))
            del lengths[key], updates[key], sent[key]
        if len(made) >= plan.config.min_clients:
            run.num_made += 1
            messages.stepped(made, step)
        if isinstance(engine, SimulatedEngine):
            run.ends.append(engine.now)
    run.ledger = keeper.ledger
    return run


def _with_bytes(reply: Reply, asked: int, *, travels: bool) -> Reply:
    """A reply that says what its client was sent and has sent, as a run's (`round_plan.py`)."""
    if not travels:
        return replace(reply, download_bytes=0, upload_bytes=0)
    came = len(reply.message or b"") if reply.upload_bytes is None else reply.upload_bytes
    return replace(
        reply, download_bytes=asked if reply.download_bytes is None else reply.download_bytes, upload_bytes=came
    )


def _num_values(parts: Parts) -> int:
    return sum(math.prod(shape) for layout in parts.values() for _, shape in layout.values())


def _visit(reply: Reply, step: int) -> PlannedVisit:
    assert reply.download_bytes is not None
    assert reply.upload_bytes is not None
    times = reply.clock
    return PlannedVisit(
        step=step,
        client_id=reply.client_id,
        download_bytes=reply.download_bytes,
        upload_bytes=reply.upload_bytes,
        num_steps=int(reply.facts.get("num_steps", 0)),
        seconds=None if times is None else (times.download_seconds, times.compute_seconds, times.upload_seconds),
        kind="arrived" if reply.message is not None else reply.kind,
    )
