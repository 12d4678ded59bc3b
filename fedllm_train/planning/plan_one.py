"""One candidate's costs: the run's own rules on shapes, clients' sizes and machines. Imports no torch of its own.

Symbols as in `fedllm_eval/machines/`: N weights of the base, n trained values, d values that a client sends.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from fedllm_data.roster import Roster
from fedllm_eval.machines.client_table import ClientTable
from fedllm_eval.machines.energy import LINE_ENERGY, LINE_KINDS, device_kwh, line_kwh
from fedllm_eval.machines.memory import memory_need
from fedllm_eval.machines.model_shape import ModelShape
from fedllm_eval.machines.money import egress_money
from fedllm_eval.machines.profiles import profile_of
from fedllm_train.clients.planned_work import PlannedWork, planned_work
from fedllm_train.flags import OurFlags
from fedllm_train.messages.wire_names import PRESETS
from fedllm_train.models.adapter_shapes import adapter_shapes
from fedllm_train.models.base_tensors import BaseTensors, Shape
from fedllm_train.models.training_shape import training_shape
from fedllm_train.participation.clock import Clock
from fedllm_train.participation.turnout import make_participation
from fedllm_train.planning.client_settings import PlannedClient, adapter_settings, planned_client
from fedllm_train.planning.hollow_run import HollowRun, hollow_run
from fedllm_train.planning.method_messages import MethodMessages, Parts
from fedllm_train.planning.planned import (
    PlannedBytes,
    PlannedMemory,
    PlannedPartner,
    PlannedPower,
    PlannedPrivacy,
    PlannedRun,
    PlannedTime,
)
from fedllm_train.planning.planned_wire import PlannedWire
from fedllm_train.prepare import RunPlan, prepare
from fedllm_train.privacy.noise_size import noise_in_clips

__all__ = ["MOST_VISITS", "line_kinds", "plan_one"]

MOST_VISITS = 200_000
"""More are not gone through one by one: the first rounds stand for all."""
_PRECISIONS = ("bf16", "int8", "nf4")
_STAND_FOR_ALL = 40
"""Visits over which the length of an upload by another wire is averaged."""
_UNKNOWN_LINES = ("fixed", "4g")
"""Kinds of line between which one that no profile names is taken to lie."""


@dataclass(frozen=True)
class _Setup:
    """What is worked out before the rounds."""

    plan: RunPlan
    client: PlannedClient
    task: str
    shape: ModelShape
    work: PlannedWork
    machines: ClientTable | None
    adapter: dict[str, Shape]


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
    first = plan.participants[0]
    sent = (messages.down(first, 0), messages.up(first, 0))
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
        download_wire=getattr(config, "download_wire", "none"),
        cohort_size=plan.cohort_size,
        num_rounds=config.num_rounds,
        num_visits=round(len(run.visits) * scale),
        steps_visit=sum(each.num_steps for each in run.visits) / visits,
        num_trainable=setup.shape.num_trainable,
        num_sent_values=max(values),
        visit_flops=flops / visits,
        total_flops=flops * scale,
        travel=_travel(setup, run, sent, (messages, wire), scale),
        uploads=_uploads(setup, run),
        time=None if clock is None else _time(run, scale),
        memory=_memory(setup),
        power=_power(setup, run, scale),
        privacy=_privacy(plan, max(values)),
        notes=_notes(setup, flags),
    )


def _set_up(flags: OurFlags, task: str, roster: Roster, base: BaseTensors) -> _Setup:
    client, _ = planned_client(flags)
    config = flags.federated
    plan = prepare(config, roster, client)
    adapter = adapter_shapes(base, adapter_settings(flags, client))
    shape = training_shape(base, adapter)
    work = planned_work(
        shape,
        task,  # type: ignore[arg-type]
        client,
        tokens_per_row=config.tokens_per_row,
        keeps_reference=config.reference_cache,
    )
    return _Setup(plan, client, task, shape, work, plan.machines, adapter)


def _clock(setup: _Setup, messages: MethodMessages, wire: PlannedWire) -> Clock:
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


def _steps_of(setup: _Setup) -> Callable[[str], int]:
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
    setup: _Setup,
    run: HollowRun,
    sent: tuple[Parts, Parts],
    ends: tuple[MethodMessages, PlannedWire],
    scale: float,
) -> PlannedBytes:
    messages, wire = ends
    ledger, visits = run.ledger, max(1, len(run.visits))
    rounds = setup.plan.config.num_rounds / scale
    values = [sum(math.prod(shape) for layout in parts.values() for _, shape in layout.values()) for parts in sent]
    travels = setup.plan.strategy.traits.travels
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
        down_bits=8 * down / values[0] if travels and values[0] else None,
        up_bits=8 * up / values[1] if travels and values[1] else None,
        is_down_exact=wire.is_exact["down"] and not messages.grows,
        is_up_exact=wire.is_exact["up"],
        why_estimate=_why_estimate(setup, messages, wire, scale),
    )


def _uploads(setup: _Setup, run: HollowRun) -> dict[str, float]:
    """The mean length of an upload by the wire, over the clients and rounds that stand for all."""
    config, plan = setup.plan.config, setup.plan
    arrived = [each.upload_bytes for each in run.visits if each.kind == "arrived"]
    found = {config.wire: sum(arrived) / max(1, len(arrived))}
    if not plan.strategy.traits.travels:
        return found
    asked = list(dict.fromkeys((each.client_id, each.step % 2) for each in run.visits))[:_STAND_FOR_ALL]
    for wire in PRESETS:
        if wire in found:
            continue
        messages, packed = MethodMessages(plan, setup.adapter), PlannedWire(config, seed=config.seed, wire=wire)
        if "adapter" not in messages.up(plan.participants[0], 1):
            continue
        lengths = [packed.up_bytes(messages.up(client_id, step), client_id, step) for client_id, step in asked]
        found[wire] = sum(lengths) / max(1, len(lengths))
    return found


def _why_estimate(setup: _Setup, messages: MethodMessages, wire: PlannedWire, scale: float) -> list[str]:
    plan, why = setup.plan, []
    if not plan.strategy.traits.travels:
        return []
    if not all(wire.is_exact.values()):
        why.append("entropy")
    if messages.grows:
        why.append("shift")
    if plan.guarantee is not None and plan.guarantee.has_noise and plan.config.cohort_rule == "poisson":
        why.append("secret")
    elif plan.guarantee is None and setup.plan.config.early_stopping_patience is not None:
        why.append("early")
    if scale != 1:
        why.append("scaled")
    return why


def _time(run: HollowRun, scale: float) -> PlannedTime:
    rounds = [end - start for start, end in zip([0.0, *run.ends], run.ends, strict=False)]
    timed = [each.seconds for each in run.visits if each.seconds is not None]
    means = [sum(part) / max(1, len(timed)) for part in zip(*timed, strict=True)] or [0.0, 0.0, 0.0]
    of_partner: dict[str, list[Any]] = defaultdict(list)
    for visit in run.visits:
        of_partner[visit.client_id].append(visit)
    partners = [
        PlannedPartner(
            client_id=client_id,
            num_visits=round(len(visits) * scale),
            num_bytes=round(scale * sum(each.download_bytes + each.upload_bytes for each in visits)),
            hours=scale * sum(sum(each.seconds or ()) for each in visits) / 3600,
        )
        for client_id, visits in of_partner.items()
    ]
    total = run.ends[-1] if run.ends else 0.0
    return PlannedTime(
        total_hours=total * scale / 3600,
        median_round_seconds=median(rounds) if rounds else 0.0,
        slowest_round_seconds=max(rounds, default=0.0),
        download_seconds=means[0],
        compute_seconds=means[1],
        upload_seconds=means[2],
        rounds_a_day=86400 * len(rounds) / total if total else math.inf,
        num_lost={kind: round(number * scale) for kind, number in sorted(run.lost.items())},
        num_made=round(run.num_made * scale),
        partners=sorted(partners, key=lambda each: (-each.hours, each.client_id)),
    )


def _memory(setup: _Setup) -> list[PlannedMemory]:
    sizes = None
    if setup.machines is not None:
        known = [setup.machines.machine(client_id).memory_gb for client_id in setup.plan.roster]
        sizes = [each for each in known if each is not None] or None
    found = []
    for precision in _PRECISIONS if not setup.shape.trains_base else ("fp32",):
        need = memory_need(
            setup.shape,
            precision,  # type: ignore[arg-type]
            batch_size=setup.client.train_batch_size * (2 if setup.task == "dpo" else 1),
            sequence_length=setup.work.tokens_per_row,
            recompute=setup.work.work.recompute,
        )
        low, high = need.total_gb
        too_small = None if sizes is None else sum(not need.fits(each) for each in sizes)
        found.append(PlannedMemory(precision=precision, low_gb=low, high_gb=high, num_too_small=too_small))
    return found


def _power(setup: _Setup, run: HollowRun, scale: float) -> PlannedPower:
    device: float | None = None if setup.machines is None else 0.0
    low = high = 0.0
    kinds: set[str] = set()
    kind_of: dict[str, list[str]] = {}
    for visit in run.visits:
        machine = None if setup.machines is None else setup.machines.machine(visit.client_id)
        profile = "" if machine is None else machine.profile
        of_line = kind_of.setdefault(profile, line_kinds(profile))
        ranges = [line_kwh(visit.download_bytes + visit.upload_bytes, kind) for kind in of_line]
        low += min(each.low for each in ranges)
        high += max(each.high for each in ranges)
        kinds |= {*of_line}
        if machine is not None and device is not None and visit.seconds is not None:
            device = None if machine.watts is None else device + device_kwh(visit.seconds[1], machine.watts)
    money = egress_money(run.ledger.download_bytes * scale)
    return PlannedPower(
        device_kwh=None if device is None else device * scale,
        line_kwh=(low * scale, high * scale),
        line_kinds=[kind for kind in LINE_ENERGY if kind in kinds],
        egress=(money.low, money.high),
    )


def line_kinds(profile: str) -> list[str]:
    """Return the kinds of line that a machine's may be: its profile's, or what lies around those that are not known.

    >>> line_kinds("phone-4g"), line_kinds("")
    (['4g'], ['fixed', '4g'])
    """
    name = profile.partition("~")[0]
    kind = LINE_KINDS.get(profile_of(name).line) if name else None
    return [*_UNKNOWN_LINES] if kind is None else [kind]


def _privacy(plan: RunPlan, num_values: int) -> PlannedPrivacy | None:
    guarantee = plan.guarantee
    if guarantee is None:
        return None
    ratio = noise_in_clips(guarantee, num_values)
    return PlannedPrivacy(
        epsilon=guarantee.epsilon(guarantee.num_rounds),
        delta=guarantee.delta,
        noise_multiplier=guarantee.noise_multiplier,
        clip=guarantee.clip,
        noise_in_clips=ratio,
        share_in_noise=ratio * guarantee.expected_cohort,
    )


def _notes(setup: _Setup, flags: OurFlags) -> list[str]:
    notes = [] if setup.machines is None else list(setup.machines.notes())
    if setup.client.packing:
        notes.append("packing joins rows, so that a step trains on fewer, longer ones; rows are counted as max_length")
    _, unread = planned_client(flags)
    if unread:
        notes.append(f"not looked at, since no cost here depends on it: {', '.join(unread)}")
    return notes
