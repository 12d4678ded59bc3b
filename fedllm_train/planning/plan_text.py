"""A plan as text: two tables that fit into 80 columns, and sentences below, in English."""

from collections.abc import Callable, Sequence

from fedllm_data.wording.forms import bytes_text
from fedllm_train.monitoring.time_left import duration_text
from fedllm_train.planning.plan_all import Plan
from fedllm_train.planning.planned import ACCOUNTANTS, WHY, PlannedPrivacy, PlannedRun

__all__ = ["candidate_label", "flops_text", "plan_lines", "varying"]

_WIDTH = 80
_NAMED = 3
"""Partners that are named: those who give most hours."""


def plan_lines(plan: Plan) -> list[str]:
    """Return what a terminal shows."""
    names = varying(plan.runs)
    known = [(index, each) for index, each in enumerate(plan.runs, 1) if each.refused is None]
    lines = [*_wrapped(_opening(plan)), ""]
    labels = {index: candidate_label(each, names) for index, each in enumerate(plan.runs, 1)}
    lines += _table(
        ["", "candidate", "down", "up", "whole run", "bits", "round", "hours"],
        [[str(index), labels[index], *_traffic(each), *_hours(each)] for index, each in known],
    )
    lines += [
        "",
        *_wrapped(
            "down, up: of one client's visit; whole run: both ways, all clients; bits: of each value that "
            "comes up; round: the median; int4/int8: packing up/down; x10: ten clients a round."
        ),
    ]
    if any(not each.travel.is_exact for _, each in known if each.travel is not None):
        lines += _wrapped(
            "~ stands before an estimate; the other sizes and hours are those of the run's ledger and clock."
        )
    precisions = [each.precision for each in known[0][1].memory]
    lines += ["", *_costs(known, precisions)]
    for said in [
        *_partners(known, plan),
        *_privacy(known),
        *_losses(known),
        *_estimates(known),
        *_refusals(plan, labels),
    ]:
        lines += ["", *_wrapped(said)]
    lines += ["", *_wrapped(_split(plan))]
    for note in dict.fromkeys(note for _, each in known for note in each.notes):
        lines += ["", *_wrapped(f"note: {note}")]
    if plan.client_table is None:
        lines += [
            "",
            *_wrapped(
                "Hours, kWh of machines and who cannot hold the model need --client-table, such as "
                "--client-table profile:phone-4g; fedllm-train machines lists profiles."
            ),
        ]
    else:
        lines += [
            "",
            *_wrapped(
                "Sources of the machines: "
                + "; ".join(f"{what}: {source} ({date})" for what, source, date in plan.sources)
                + "."
            ),
        ]
    return lines


def varying(runs: Sequence[PlannedRun]) -> list[str]:
    """Return the names of what differs between candidates, in the order of a label; the method always stands there."""
    found = {
        "wire": lambda each: (each.wire, each.download_wire),
        "cohort_size": lambda each: each.cohort_size,
    }
    return ["strategy", *(name for name, of in found.items() if len({of(each) for each in runs}) > 1)]


def candidate_label(run: PlannedRun, names: Sequence[str]) -> str:
    """Return what a candidate is called beside others.

    >>> run = PlannedRun(strategy="fedavg", wire="int4", download_wire="none", cohort_size=10)
    >>> candidate_label(run, ["strategy", "wire", "cohort_size"])
    'fedavg, int4, x10'
    """
    both = run.wire if run.download_wire == "none" else f"{run.wire}/{run.download_wire}"
    says: dict[str, str] = {"strategy": run.strategy, "wire": both, "cohort_size": f"x{run.cohort_size}"}
    return ", ".join(says[name] for name in names)


def flops_text(flops: float) -> str:
    """Return operations with the prefix that fits.

    >>> flops_text(3.3e15), flops_text(1.5e12), flops_text(20)
    ('3.3 P', '1.5 T', '20 ')
    """
    for power, unit in ((18, "E"), (15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if flops >= 10**power:
            return f"{flops / 10**power:.3g} {unit}"
    return f"{flops:.3g} "


def _opening(plan: Plan) -> str:
    known = plan.known[0]
    share = known.num_trainable / max(1, plan.num_parameters)
    return (
        f"{plan.task} of {plan.model} ({plan.num_parameters:,} weights, {known.num_trainable:,} trained, {share:.2%}) "
        f"on {plan.data}: {plan.num_clients:,} clients with {plan.num_rows:,} rows, {known.num_rounds:,} rounds, "
        f"{plan.local_steps:g} steps a visit of {plan.rows_per_step} rows, {plan.tokens_per_row} tokens a row at most"
    )


def _traffic(run: PlannedRun) -> list[str]:
    travel = run.travel
    assert travel is not None
    bits = "-" if travel.up_bits is None else f"{travel.up_bits:.3g}"
    sizes = [
        (travel.down_visit, travel.is_down_exact),
        (travel.up_visit, travel.is_up_exact),
        (travel.down + travel.up, travel.is_exact),
    ]
    return [*(f"{'' if is_exact else '~'}{bytes_text(size)}" for size, is_exact in sizes), bits]


def _hours(run: PlannedRun) -> list[str]:
    if run.time is None:
        return ["-", "-"]
    mark = "" if run.travel is None or run.travel.is_exact else "~"
    return [f"{mark}{duration_text(run.time.median_round_seconds)}", f"{mark}{run.time.total_hours:.3g}"]


def _costs(known: Sequence[tuple[int, PlannedRun]], precisions: Sequence[str]) -> list[str]:
    heads = ["", "FLOP", *precisions, "kWh", "kWh lines", "US$"]
    rows = []
    for index, run in known:
        assert run.power is not None
        power = run.power
        memory = [f"{each.high_gb:.3g}" for each in run.memory]
        device = "-" if power.device_kwh is None else f"{power.device_kwh:.3g}"
        rows.append(
            [str(index), flops_text(run.visit_flops), *memory, device, _range(power.line_kwh), _range(power.egress)]
        )
    lines = _table(heads, rows)
    lines += [
        "",
        *_wrapped(
            "FLOP: of a visit; bf16 and the like: GB of memory that a client needs at most, by how the base is kept; "
            "kWh of the machines, kWh of the lines and what the server pays for downloads: of the whole run, from the "
            "lowest published figure to the highest."
        ),
    ]
    too_small = {each.precision: each.num_too_small for each in known[0][1].memory if each.num_too_small is not None}
    if too_small:
        said = ", ".join(f"{number:,} in {precision}" for precision, number in too_small.items())
        lines += _wrapped(f"Clients that cannot hold it: {said}.")
    return lines


def _range(ends: tuple[float, float]) -> str:
    low, high = (f"{each:.2g}" for each in ends)
    return low if low == high else f"{low}-{high}"


def _partners(known: Sequence[tuple[int, PlannedRun]], plan: Plan) -> list[str]:
    said = []
    for index, run in known[:1]:
        if run.time is None:
            continue
        worst = run.time.partners[:_NAMED]
        named = ", ".join(f"{each.client_id} {each.hours:.3g} h in {each.num_visits} visits" for each in worst)
        hours = sorted(each.hours for each in run.time.partners)
        usual = hours[len(hours) // 2] if hours else 0.0
        said.append(
            f"Hours of a partner's machine and line ({index}): {usual:.3g} in the middle; most give {named}. "
            f"{run.time.rounds_a_day:,.1f} rounds a day."
        )
    return said


def _privacy(known: Sequence[tuple[int, PlannedRun]]) -> list[str]:
    said = []
    for index, run in known:
        if (one := run.privacy) is None:
            continue
        epsilon = "no epsilon: nothing but clipping" if one.epsilon is None else f"epsilon {one.epsilon:.4g}"
        if one.unit == "example":
            said.append(
                f"Privacy ({index}): {epsilon} at delta {one.delta:g}, unit: example, and {one.people}; noise "
                f"multiplier {one.noise_multiplier:.4g}, in every step of a client. A step's noise on the mean "
                f"gradient is {one.noise_in_clips:.3g} times the clip, which bounds the mean itself."
            )
            continue
        said.append(
            f"Privacy ({index}): {epsilon} at delta {one.delta:g}, unit: client; noise multiplier "
            f"{one.noise_multiplier:.4g}. A round's noise on the mean is {one.noise_in_clips:.3g} times the clip, "
            f"which bounds the mean itself, and {one.share_in_noise:.3g} times what one client can add to it."
            f"{_what_would_do(one)}"
        )
    return said


def _what_would_do(one: PlannedPrivacy) -> str:
    """Epsilon by the other accountants, the cohort that is needed and what fewer values would leave."""
    if one.epsilon is None:
        return ""
    others = [
        f"{ACCOUNTANTS[name]} {value:.4g}"
        for name, value in one.by_accountant.items()
        if value is not None and name != one.claim
    ]
    beside = f" Epsilon is {ACCOUNTANTS[one.claim]}'s" + (f", beside {' and '.join(others)}." if others else ".")
    cohort = f" With {one.needed_cohort:,} clients a round the noise is as long as the clip."
    methods = ", ".join(f"{name} {ratio:.3g}" for name, ratio in one.noise_of_methods.items())
    return beside + cohort + (f" In clips, by the values that a method trains: {methods}." if methods else "")


def _losses(known: Sequence[tuple[int, PlannedRun]]) -> list[str]:
    said = []
    for index, run in known:
        if run.time is not None and run.time.num_lost:
            lost = ", ".join(f"{number:,} {kind}" for kind, number in run.time.num_lost.items())
            said.append(
                f"Left out ({index}): {lost} of {run.num_visits:,} visits; {run.time.num_made:,} server steps."
            )
    return said


def _estimates(known: Sequence[tuple[int, PlannedRun]]) -> list[str]:
    why: dict[str, list[int]] = {}
    for index, run in known:
        for each in () if run.travel is None else run.travel.why_estimate:
            why.setdefault(each, []).append(index)
    return [f"Estimates ({', '.join(map(str, each))}): {WHY[reason]}." for reason, each in why.items()]


def _refusals(plan: Plan, labels: dict[int, str]) -> list[str]:
    why: dict[str, list[str]] = {}
    for index, each in enumerate(plan.runs, 1):
        if each.refused is not None:
            why.setdefault(each.refused, []).append(f"{index} ({labels[index]})")
    return [f"A run would refuse {' and '.join(each)}: {reason}." for reason, each in why.items()]


def _split(plan: Plan) -> str:
    assert plan.split is not None
    return (
        "For a client that cannot hold the base, split learning would send "
        f"{bytes_text(plan.split.step_bytes)} in every step ({bytes_text(plan.split.visit_bytes)} a visit; half of "
        "it where the server may see the answers)."
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they must be; the label is cut where a line would be longer than 80."""
    widths = [max(len(row[index]) for row in [heads, *rows]) for index in range(len(heads))]
    over = sum(widths) + 2 * (len(widths) - 1) - _WIDTH
    if over > 0 and "candidate" in heads:
        widths[1] = max(12, widths[1] - over)
    cut: Callable[[str, int], str] = lambda text, width: text if len(text) <= width else text[: width - 1] + "…"  # noqa: E731
    lines = []
    for row in [heads, *rows]:
        cells = [cut(cell, width) for cell, width in zip(row, widths, strict=True)]
        padded = [
            cell.ljust(width) if heads[index] == "candidate" else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def _wrapped(text: str) -> list[str]:
    from textwrap import wrap

    return wrap(text, _WIDTH, break_on_hyphens=False, break_long_words=False)
