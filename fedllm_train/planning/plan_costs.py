"""From the rounds of a plan to hours, memory, electricity, money and privacy. Imports no torch."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from fedllm_eval.machines.client_table import ClientTable
from fedllm_eval.machines.energy import LINE_ENERGY, LINE_KINDS, device_kwh, line_kwh
from fedllm_eval.machines.memory import memory_need
from fedllm_eval.machines.model_shape import ModelShape
from fedllm_eval.machines.money import egress_money
from fedllm_eval.machines.profiles import profile_of
from fedllm_train.clients.planned_work import PlannedWork
from fedllm_train.models.base_tensors import Shape
from fedllm_train.planning.client_settings import PlannedClient
from fedllm_train.planning.hollow_run import HollowRun
from fedllm_train.planning.planned import PlannedMemory, PlannedPartner, PlannedPower, PlannedPrivacy, PlannedTime
from fedllm_train.prepare import RunPlan
from fedllm_train.privacy.few_values import values_by_method
from fedllm_train.privacy.noise_size import needed_cohort, noise_in_clips, noise_of_methods

__all__ = ["PlanSetup", "line_kinds", "planned_memory", "planned_power", "planned_privacy", "planned_time"]

_UNKNOWN_LINES = ("fixed", "4g")
"""Kinds of line between which one that no profile names is taken to lie."""
_PRECISIONS = ("bf16", "int8", "nf4")


@dataclass(frozen=True)
class PlanSetup:
    """What is worked out before the rounds."""

    plan: RunPlan
    client: PlannedClient
    task: str
    shape: ModelShape
    work: PlannedWork
    machines: ClientTable | None
    adapter: dict[str, Shape]


def planned_time(run: HollowRun, scale: float) -> PlannedTime:
    """Return hours by the simulated clock."""
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


def planned_memory(setup: PlanSetup) -> list[PlannedMemory]:
    """Return what a client needs while it trains, by how the base is kept, and who has less."""
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


def planned_power(setup: PlanSetup, run: HollowRun, scale: float) -> PlannedPower:
    """Return electricity of machines and lines, and what the server pays."""
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


def planned_privacy(plan: RunPlan, num_values: int, shapes: Mapping[str, tuple[int, ...]]) -> PlannedPrivacy | None:
    """Return the guarantee and how its noise compares with an update; None where none is asked for.

    Args:
        plan: the run's plan.
        num_values: values that a client sends in a round.
        shapes: of the adapter's tensors.
    """
    if (of_rows := plan.row_guarantee) is not None:
        return PlannedPrivacy(
            epsilon=of_rows.epsilon(),
            delta=of_rows.delta,
            noise_multiplier=of_rows.privacy.noise_multiplier,
            clip=of_rows.privacy.clip,
            noise_in_clips=of_rows.noise_in_clips(num_values),
            share_in_noise=of_rows.noise_in_clips(num_values) * of_rows.privacy.batch_rows,
            by_accountant=of_rows.by_accountant(),
            unit="example",
            people=of_rows.people_in_words(),
            client_epsilon=of_rows.client_epsilon,
        )
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
        by_accountant=guarantee.by_accountant(guarantee.num_rounds),
        claim=guarantee.claim(guarantee.num_rounds),
        needed_cohort=needed_cohort(guarantee, num_values),
        noise_of_methods=noise_of_methods(guarantee, values_by_method(shapes)),
    )
