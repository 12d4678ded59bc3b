"""What the plan's page says, in the language that is spoken: sentences, tiles and the lines of its tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from fedllm_data.wording.catalogue import marked, plural_words, words
from fedllm_data.wording.forms import bytes_text, interval_text, listed, minus, sentences
from fedllm_eval.machines.energy import LINE_ENERGY
from fedllm_eval.machines.money import EGRESS
from fedllm_train.planning.plan_all import Plan
from fedllm_train.planning.plan_text import candidate_label, flops_text, varying
from fedllm_train.planning.planned import ACCOUNTANTS, WHY, PlannedPrivacy, PlannedRun

__all__ = [
    "LINE_NAMES",
    "PlanRow",
    "plan_estimates",
    "plan_losses",
    "plan_privacy",
    "plan_rows",
    "plan_sources",
    "plan_split",
    "plan_summary",
    "plan_tiles",
]

LINE_NAMES = {
    "fixed": marked("fixed line"),
    "mobile": marked("mobile, all kinds"),
    "3g": marked("mobile, 3G"),
    "4g": marked("mobile, 4G"),
    "5g": marked("mobile, 5G"),
}

_KINDS = {
    "lost": marked("lost on the way"),
    "late": marked("too late"),
    "closed": marked("cut off when their machine's window closed"),
}


@dataclass(frozen=True)
class PlanRow:
    """A candidate's line of the tables, as text."""

    label: str
    refused: str | None
    down: str = ""
    up: str = ""
    whole: str = ""
    share: str = "0"
    bits: str = ""
    median: str = ""
    slowest: str = ""
    hours: str = ""
    flops: str = ""
    device_kwh: str = ""
    line_kwh: str = ""
    egress: str = ""


def plan_summary(plan: Plan) -> str:
    """Return what the page begins with: who sends least, whose run is the shortest, how many are refused."""
    names, known = varying(plan.runs), plan.known
    least = min(known, key=_sent)
    said = []
    if len(known) > 1:
        said.append(
            words(
                "{candidate} sends least: {size} in the whole run, of all clients together.",
                candidate=candidate_label(least, names),
                size=bytes_text(_sent(least)),
            )
        )
    else:
        said.append(words("{size} travel in the whole run, of all clients together.", size=bytes_text(_sent(least))))
    timed = [(each.time.total_hours, each) for each in known if each.time is not None]
    if timed:
        hours, fastest = min(timed, key=lambda one: one[0])
        said.append(
            words(
                "The shortest run takes {hours} hours ({candidate}).",
                hours=_number(hours),
                candidate=candidate_label(fastest, names),
            )
        )
    else:
        said.append(words("How long it takes is not known without a client table; the form below takes your numbers."))
    num_refused = len(plan.runs) - len(known)
    if num_refused:
        said.append(
            plural_words(
                "{num} candidate would be refused by a run.",
                "{num} candidates would be refused by a run.",
                num_refused,
            )
        )
    return sentences(said)


def plan_tiles(plan: Plan) -> list[tuple[str, str]]:
    """Return the figures of the first candidate that stand large: (figure, what it is)."""
    first = plan.known[0]
    share = first.num_trainable / max(1, plan.num_parameters)
    tiles = [
        (f"{first.num_trainable:,}", words("weights are trained, {share} of the model's", share=f"{share:.2%}")),
        (f"{first.num_visits:,}", words("visits of clients in the whole run")),
    ]
    if first.time is not None and first.time.partners:
        worst = first.time.partners[0]
        tiles.append(
            (_number(worst.hours), words("hours at most of one partner's machine: {partner}", partner=worst.client_id))
        )
        tiles.append((_number(first.time.rounds_a_day), words("rounds a day")))
    if first.privacy is not None and first.privacy.epsilon is not None:
        of_row = first.privacy.unit == "example"
        what = (
            words("epsilon, the privacy loss of a row") if of_row else words("epsilon, the privacy loss of a client")
        )
        tiles.append((_number(first.privacy.epsilon), what))
    return tiles


def plan_rows(plan: Plan) -> list[PlanRow]:
    """Return the lines of the tables, one a candidate."""
    names = varying(plan.runs)
    most = max(_sent(each) for each in plan.known) or 1
    return [_row(each, candidate_label(each, names), most) for each in plan.runs]


def _row(run: PlannedRun, label: str, most: int) -> PlanRow:
    if run.travel is None or run.power is None:
        return PlanRow(label, run.refused)
    travel, time, power = run.travel, run.time, run.power

    def size(value: float, *, is_exact: bool) -> str:
        return f"{'' if is_exact else '~'}{bytes_text(value)}"

    mark = "" if travel.is_exact else "~"
    return PlanRow(
        label,
        None,
        down=size(travel.down_visit, is_exact=travel.is_down_exact),
        up=size(travel.up_visit, is_exact=travel.is_up_exact),
        whole=size(_sent(run), is_exact=travel.is_exact),
        share=f"{100 * _sent(run) / most:.1f}",
        bits="–" if travel.up_bits is None else _number(travel.up_bits),
        median="–" if time is None else mark + _seconds(time.median_round_seconds),
        slowest="–" if time is None else mark + _seconds(time.slowest_round_seconds),
        hours="–" if time is None else mark + _number(time.total_hours),
        flops=f"{flops_text(run.visit_flops)}FLOP",
        device_kwh="–" if power.device_kwh is None else _number(power.device_kwh),
        line_kwh=_range(power.line_kwh),
        egress=_range(power.egress),
    )


def _sent(run: PlannedRun) -> int:
    return 0 if run.travel is None else run.travel.down + run.travel.up


def plan_estimates(plan: Plan) -> list[str]:
    """Return, a sentence each, why sizes are estimates and whose."""
    names = varying(plan.runs)
    why: dict[str, list[str]] = {}
    for run in plan.known:
        for reason in () if run.travel is None else run.travel.why_estimate:
            why.setdefault(reason, []).append(candidate_label(run, names))
    return [
        words("Estimates, since {reason}: {candidates}.", reason=words(WHY[reason]), candidates="; ".join(labels))
        for reason, labels in why.items()
    ]


def plan_split(plan: Plan) -> str:
    """Return what split learning would send."""
    assert plan.split is not None
    return words(
        "For a client that cannot hold the base: split learning would send {step} in every step, {visit} a visit, and "
        "half of it where the server may see the answers.",
        step=bytes_text(plan.split.step_bytes),
        visit=bytes_text(plan.split.visit_bytes),
    )


def plan_losses(plan: Plan) -> list[str]:
    """Return, a sentence each, how many visits would be left out."""
    names = varying(plan.runs)
    said = []
    for run in plan.known:
        for kind, number in () if run.time is None else run.time.num_lost.items():
            said.append(
                words(
                    "{candidate}: {number} of {visits} visits would be {kind}.",
                    candidate=candidate_label(run, names),
                    number=f"{number:,}",
                    visits=f"{run.num_visits:,}",
                    kind=words(_KINDS[kind]),
                )
            )
    return said


def plan_privacy(plan: Plan) -> list[str]:
    """Return, a sentence each, the guarantees and how their noise compares with an update."""
    names = varying(plan.runs)
    said = []
    for run in plan.known:
        if (one := run.privacy) is None:
            continue
        label = candidate_label(run, names)
        if one.epsilon is None:
            said.append(words("{candidate}: no epsilon, since nothing is done but clipping.", candidate=label))
            continue
        if one.unit == "example":
            said.append(
                words(
                    "{candidate}: epsilon {epsilon} at delta {delta} for one row of a client, and {client} for a "
                    "client with all of its rows, by a noise multiplier of {noise} in every step of a client. A "
                    "step's noise on the mean gradient is {ratio} times the clip, which bounds the mean itself.",
                    candidate=label,
                    epsilon=_number(one.epsilon),
                    client=_number(one.client_epsilon or 0.0),
                    delta=f"{one.delta:g}",
                    noise=_number(one.noise_multiplier),
                    ratio=_number(one.noise_in_clips),
                )
            )
            continue
        said.append(
            words(
                "{candidate}: epsilon {epsilon} at delta {delta} for a client with all of its rows, by a noise "
                "multiplier of {noise}. In a round the noise on the mean is {ratio} times the clip, which bounds the "
                "mean itself, and {share} times what one client can add to it.",
                candidate=label,
                epsilon=_number(one.epsilon),
                delta=f"{one.delta:g}",
                noise=_number(one.noise_multiplier),
                ratio=_number(one.noise_in_clips),
                share=_number(one.share_in_noise),
            )
        )
        said += _what_would_do(one)
    return said


def _what_would_do(one: PlannedPrivacy) -> list[str]:
    """Epsilon by the other accountants, the cohort that is needed and what fewer values would leave."""
    others = [
        f"{ACCOUNTANTS[name]} {_number(value)}"
        for name, value in one.by_accountant.items()
        if value is not None and name != one.claim
    ]
    said = []
    if others:
        claim = ACCOUNTANTS[one.claim]
        said.append(words("That epsilon is {claim}'s; beside it: {others}.", claim=claim, others=listed(others)))
    needed = f"{one.needed_cohort:,}"
    said.append(words("With {cohort} clients a round the noise would be as long as the clip.", cohort=needed))
    if one.noise_of_methods:
        ratios = [f"{name} {_number(ratio)}" for name, ratio in one.noise_of_methods.items()]
        said.append(
            words(
                "By the values that a method trains on the same modules, the noise in multiples of the clip: "
                "{ratios}.",
                ratios=listed(ratios),
            )
        )
    return said


def plan_sources(plan: Plan) -> list[tuple[str, str, str]]:
    """Return where figures come from: (what, source, date)."""
    kinds = dict.fromkeys(kind for each in plan.known if each.power is not None for kind in each.power.line_kinds)
    found: list[tuple[str, str, str]] = list(plan.sources)
    for kind in kinds:
        line = words(LINE_NAMES[kind])
        found += [(f"{each.kwh_per_gb:g} kWh/GB, {line}", each.source, each.year) for each in LINE_ENERGY[kind]]
    found += [(f"US$ {each.per_gb:g}/GB, {name}", each.source, each.date) for name, each in EGRESS.items()]
    return found


def _number(value: float) -> str:
    return minus(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}")


def _seconds(value: float) -> str:
    if value < 120:
        return words("{number} s", number=_number(value))
    return words("{number} min", number=_number(value / 60))


def _range(ends: Sequence[float]) -> str:
    low, high = (_number(each) for each in ends)
    return low if low == high else interval_text(low, high)
