"""One candidate's costs: the run's own rules on shapes, clients' sizes and machines. Imports no torch of its own.

Symbols as in `fedllm_eval/machines/`: N weights of the base, n trained values, d values that a client sends.
"""

import math
from collections.abc import Callable

from fedllm_data.errors import ConfigError
from fedllm_data.roster import Roster
from fedllm_train.clients.planned_work import planned_work
from fedllm_train.flags import OurFlags
from fedllm_train.messages.wire_names import PRESETS
from fedllm_train.models.adapter_shapes import adapter_shapes, modules_of, on_head, saved_adapter_shapes
from fedllm_train.models.base_tensors import BaseTensors
from fedllm_train.models.training_shape import training_shape
from fedllm_train.participation.clock import Clock
from fedllm_train.participation.turnout import make_participation
from fedllm_train.planning.client_settings import adapter_settings, planned_client
from fedllm_train.planning.hollow_run import HollowRun, hollow_run
from fedllm_train.planning.method_messages import MethodMessages
from fedllm_train.planning.plan_costs import PlanSetup, planned_memory, planned_power, planned_privacy, planned_time
from fedllm_train.planning.planned import (
    PlannedBytes,
    PlannedRun,
)
from fedllm_train.planning.planned_wire import PlannedWire
from fedllm_train.prepare import RunPlan, prepare
from fedllm_train.privacy.row_refusals import check_row_adapter_kind, check_row_task

__all__ = ["MOST_VISITS", "plan_one"]

MOST_VISITS = 200_000
"""More are not gone through one by one: the first rounds stand for all."""
_STAND_FOR_ALL = 40
"""Visits over which the length of an upload by another wire is averaged."""


def plan_one(flags: OurFlags, task: str, roster: Roster, base: BaseTensors) -> PlannedRun:
    """Return what a run would cost.

    Args:
        flags: its command line.
        task: sft, dpo or kto.
        roster: the training clients.
        base: the base model's parameters.

    Raises:
        ConfigError: if a run would refuse it, or it cannot be planned.
    """
    setup = _set_up(flags, task, roster, base)
    plan, config = setup.plan, setup.plan.config
    messages = MethodMessages(plan, setup.adapter)
    wire = PlannedWire(config, seed=config.seed)
    per_round = max(1, plan.cohort_size)
    num_rounds = min(config.num_rounds, max(1, MOST_VISITS // per_round))
    clock = None if setup.machines is None else _clock(setup, messages, wire)
    run = hollow_run(
        plan,
        make_participation(
            config,
            plan.turnout,
            plan.participants,
            seed=config.seed,
            sizes=roster.sizes,
            spool=None,
        ),
        messages,
        wire,
        clock=clock,
        steps_of=_steps_of(setup),
        num_rounds=num_rounds,
    )
    scale = config.num_rounds / num_rounds
    flops = sum(setup.work.flops(each.num_steps) for each in run.visits)
    visits = max(1, len(run.visits))
    values = [sum(math.prod(shape) for shape in part.get("adapter", {}).values()) for part in _shapes(plan, messages)]
    return PlannedRun(
        strategy=config.strategy,
        wire=config.wire,
        download_wire=config.download_wire,
        cohort_size=plan.cohort_size,
        num_rounds=config.num_rounds,
        num_visits=round(len(run.visits) * scale),
        steps_visit=sum(each.num_steps for each in run.visits) / visits,
        num_trainable=setup.shape.num_trainable,
        num_sent_values=max(values),
        visit_flops=flops / visits,
        total_flops=flops * scale,
        travel=_travel(setup, run, (messages, wire), scale),
        uploads=_uploads(setup, run),
        time=None if clock is None else planned_time(run, scale),
        memory=planned_memory(setup),
        power=planned_power(setup, run, scale),
        privacy=planned_privacy(plan, max(values), setup.adapter),
        notes=_notes(setup, flags),
    )


def _set_up(flags: OurFlags, task: str, roster: Roster, base: BaseTensors) -> PlanSetup:
    client, _ = planned_client(flags)
    config = flags.federated
    if config.protects_rows:
        check_row_task(task)
        check_row_adapter_kind("dora" if client.use_dora else flags.run.peft_type)
    plan = prepare(config, roster, client)
    if flags.run.adapter is None:
        adapter = adapter_shapes(base, adapter_settings(flags, client))
    else:
        adapter = saved_adapter_shapes(flags.run.adapter)
    if base.head in modules_of(adapter):
        raise ConfigError(on_head("LoraConfig"))
    shape = training_shape(base, adapter)
    work = planned_work(
        shape,
        task,  # type: ignore[arg-type]
        client,
        tokens_per_row=config.tokens_per_row,
        keeps_reference=config.reference_cache,
        takes_gradients=getattr(plan.strategy.traits, "takes_gradients", True),
    )
    return PlanSetup(plan, client, task, shape, work, plan.machines, adapter)


def _clock(setup: PlanSetup, messages: MethodMessages, wire: PlannedWire) -> Clock:
    plan, steps_of = setup.plan, _steps_of(setup)
    assert setup.machines is not None
    return Clock(
        seed=plan.config.seed,
        machine_of=setup.machines.machine,
        flops_of=lambda client_id, steps: setup.work.flops(steps),
        steps_of=steps_of,
        upload_bytes_of=lambda client_id: wire.up_bytes(messages.up(client_id, 0), client_id, 0),
        fits_per_visit=getattr(plan.strategy, "fits_per_visit", 1),
        drop_out=plan.config.drop_out,
        travels=plan.strategy.traits.travels,
    )


def _steps_of(setup: PlanSetup) -> Callable[[str], int]:
    plan = setup.plan
    pooled = plan.federation.cohort_size if plan.config.strategy == "centralized" else 1
    total = sum(plan.roster.sizes.values())
    return lambda client_id: pooled * plan.work.num_steps(plan.roster.sizes.get(client_id, total))


def _shapes(plan: RunPlan, messages: MethodMessages) -> list[dict[str, dict[str, tuple[int, ...]]]]:
    """What the first client sends in two rounds in a row."""
    first = plan.participants[0]
    return [
        {
            part: {name: shape for name, (_, shape) in layout.items()}
            for part, layout in messages.up(first, index).items()
        }
        for index in (0, 1)
    ]


def _travel(
    setup: PlanSetup,
    run: HollowRun,
    ends: tuple[MethodMessages, PlannedWire],
    scale: float,
) -> PlannedBytes:
    messages, wire = ends
    ledger, visits = run.ledger, max(1, len(run.visits))
    rounds = setup.plan.config.num_rounds / scale
    arrived = [each for each in run.visits if each.kind == "arrived"]
    down = ledger.download_bytes / visits
    up = sum(each.upload_bytes for each in arrived) / max(1, len(arrived))
    return PlannedBytes(
        down=round(ledger.download_bytes * scale),
        up=round(ledger.upload_bytes * scale),
        down_visit=down,
        up_visit=up,
        down_round=ledger.download_bytes / rounds,
        up_round=ledger.upload_bytes / rounds,
        down_bits=8 * ledger.download_bytes / run.values_down if run.values_down else None,
        up_bits=8 * run.bytes_up / run.values_up if run.values_up else None,
        is_down_exact=wire.is_exact["down"] and not messages.grows,
        is_up_exact=wire.is_exact["up"],
        why_estimate=_why_estimate(setup, messages, wire, scale),
    )


def _uploads(setup: PlanSetup, run: HollowRun) -> dict[str, float]:
    """The mean length of an upload by the wire, over the clients and rounds that stand for all."""
    config, plan = setup.plan.config, setup.plan
    arrived = [each.upload_bytes for each in run.visits if each.kind == "arrived"]
    found = {config.wire: sum(arrived) / max(1, len(arrived))}
    if not plan.strategy.traits.travels:
        return found
    asked = list(dict.fromkeys((each.client_id, each.step % 2) for each in run.visits))[:_STAND_FOR_ALL]
    messages = MethodMessages(plan, setup.adapter)
    if "adapter" not in messages.up(plan.participants[0], 1):
        return found
    for wire in PRESETS:
        if wire in found:
            continue
        packed = PlannedWire(config, seed=config.seed, wire=wire)
        lengths = [packed.up_bytes(messages.up(client_id, step), client_id, step) for client_id, step in asked]
        found[wire] = sum(lengths) / max(1, len(lengths))
    return found


def _why_estimate(setup: PlanSetup, messages: MethodMessages, wire: PlannedWire, scale: float) -> list[str]:
    plan, why = setup.plan, []
    if not plan.strategy.traits.travels:
        return []
    if not all(wire.is_exact.values()):
        why.append("entropy")
    if messages.grows:
        why.append("shift")
    if _draws_from_a_secret(plan):
        why.append("secret")
    elif plan.guarantee is None and setup.plan.config.early_stopping_patience is not None:
        why.append("early")
    if scale != 1:
        why.append("scaled")
    return why


def _draws_from_a_secret(plan: RunPlan) -> bool:
    """Whether who takes part follows from a secret that no plan knows."""
    made, config = plan.guarantee, plan.config
    if made is None or not made.has_noise or config.cohort_rule in ("all", "fixed"):
        return False
    return config.cohort_rule == "poisson" or made.num_clients is not None or made.related is not None


def _notes(setup: PlanSetup, flags: OurFlags) -> list[str]:
    notes = [] if setup.machines is None else list(setup.machines.notes())
    if setup.client.packing:
        notes.append("packing joins rows, so that a step trains on fewer, longer ones; rows are counted as max_length")
    _, unread = planned_client(flags)
    if unread:
        notes.append(f"not looked at, since no cost here depends on it: {', '.join(unread)}")
    return notes
