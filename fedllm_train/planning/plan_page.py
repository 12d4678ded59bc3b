"""A plan as one HTML page that loads nothing: tables that stand without scripts, and a form that works the costs out.

What the form says follows from the lengths and operations that the plan found, by the formulas of `quick_costs.py`,
which the page's script repeats. The page speaks English and Japanese.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader

from fedllm_data.in_place import fill_folder
from fedllm_data.reporting.page_frame import SHARED, Body, whole_page
from fedllm_data.reporting.templates import page_environment
from fedllm_data.wording.catalogue import marked, plural_words, words
from fedllm_data.wording.forms import bytes_text, interval_text, minus, sentences
from fedllm_eval.machines.energy import LINE_ENERGY
from fedllm_eval.machines.money import EGRESS
from fedllm_train.planning.plan_all import Plan
from fedllm_train.planning.plan_text import candidate_label, flops_text, varying
from fedllm_train.planning.planned import WHY, PlannedRun
from fedllm_train.planning.quick_costs import line_rates

__all__ = ["page_data", "render_plan", "write_plan"]

_MOST_PARTNERS = 10
_INPUTS = (
    ("num_rounds", marked("rounds"), ""),
    ("cohort_size", marked("clients a round"), ""),
    ("local_steps", marked("steps of a visit"), ""),
    ("download_mbit", marked("line, down"), "Mbit/s"),
    ("upload_mbit", marked("line, up"), "Mbit/s"),
    ("latency_ms", marked("delay of a message"), "ms"),
    ("tera_flops", marked("machine reaches in training"), "TFLOP/s"),
    ("watts", marked("machine draws"), "W"),
    ("price_per_gb", marked("price of a GB that the server sends"), ""),
    ("price_per_kwh", marked("price of a kWh"), ""),
    ("price_per_hour", marked("price of an hour of a machine"), ""),
)
"""What can be changed: name, label, unit."""
_ANSWERS = (
    ("hours", marked("hours of the run")),
    ("visit", marked("a round, which is as long as a visit")),
    ("parts", marked("download + training + upload")),
    ("rounds_a_day", marked("rounds a day")),
    ("down", marked("sent by the server")),
    ("up", marked("sent by clients")),
    ("device_hours", marked("hours of all clients together")),
    ("device_kwh", marked("kWh of machines")),
    ("line_kwh", marked("kWh of lines")),
    ("money", marked("price of bytes, electricity and hours")),
)
_LINES = {
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
class _Row:
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


def write_plan(plan: Plan, out: Path, *, language: str | None = None) -> None:
    """Write `plan.html` and `plan.json` into a folder, which is replaced.

    Args:
        plan: what is told.
        out: the folder.
        language: of the page; by default it speaks all, and the browser chooses.

    Raises:
        OutputError: if the folder holds something else.
    """
    page = render_plan(plan, language=language)
    with fill_folder(out, mark="plan.json") as folder:
        (folder / "plan.html").write_text(page, encoding="utf-8")
        record = json.dumps(plan.as_record(), indent=2, ensure_ascii=False)
        (folder / "plan.json").write_text(record + "\n", encoding="utf-8")


def render_plan(plan: Plan, *, language: str | None = None) -> str:
    """Return the page.

    Args:
        plan: what is told.
        language: of the page; by default all.
    """
    environment = _environment()
    template = environment.get_template("plan_page.html.jinja")
    data = page_data(plan)

    def body() -> Body:
        html = template.render(
            plan=plan,
            first=plan.known[0],
            summary=_summary(plan),
            tiles=_tiles(plan),
            rows=_rows(plan),
            estimates=_estimates(plan),
            choices=[(name, one["label"]) for name, one in data["candidates"].items()],
            wires=list(dict.fromkeys(wire for one in data["candidates"].values() for wire in one["uploads"])),
            inputs=[(name, words(label), unit) for name, label, unit in _INPUTS],
            answers=[(name, words(label)) for name, label in _ANSWERS],
            lines=[(name, words(_LINES[name])) for name in LINE_ENERGY],
            split=_split(plan),
            partners=() if plan.known[0].time is None else plan.known[0].time.partners[:_MOST_PARTNERS],
            losses=_losses(plan),
            privacy=_privacy(plan),
            sources=_sources(plan),
            notes=list(dict.fromkeys(note for each in plan.known for note in each.notes)),
        )
        return Body(words("What would it cost?"), html)

    content = json.dumps(data, ensure_ascii=True).replace("<", "\\u003c")
    return whole_page(
        body,
        language=language,
        style=environment.get_template("plan_page.css.jinja").render(),
        shared=f'<script type="application/json" id="{SHARED}plan">{content}</script>',
        scripts=[environment.get_template("plan_page.js.jinja").render()],
    )


def page_data(plan: Plan) -> dict[str, Any]:
    """Return what the page's script works with, JSON-ready: lengths, operations, and the numbers it begins with."""
    names = varying(plan.runs)
    candidates = {}
    for index, run in enumerate(plan.runs):
        if run.travel is None:
            continue
        candidates[str(index)] = {
            "label": candidate_label(run, names),
            "wire": run.wire,
            "download_bytes": run.travel.down_visit,
            "uploads": dict(run.uploads),
            "step_flops": run.visit_flops / run.steps_visit if run.steps_visit else 0.0,
            "cohort_size": run.cohort_size,
            "local_steps": run.steps_visit,
        }
    return {"candidates": candidates, "inputs": dict(plan.inputs), "lines": line_rates()}


def _environment() -> Environment:
    environment = page_environment()
    own = PackageLoader("fedllm_train", "planning")
    environment.loader = ChoiceLoader([own, environment.loader])  # type: ignore[list-item]
    return environment


def _summary(plan: Plan) -> str:
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


def _tiles(plan: Plan) -> list[tuple[str, str]]:
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
        tiles.append((_number(first.privacy.epsilon), words("epsilon, the privacy loss of a client")))
    return tiles


def _rows(plan: Plan) -> list[_Row]:
    names = varying(plan.runs)
    most = max(_sent(each) for each in plan.known) or 1
    return [_row(each, candidate_label(each, names), most) for each in plan.runs]


def _row(run: PlannedRun, label: str, most: int) -> _Row:
    if run.travel is None or run.power is None:
        return _Row(label, run.refused)
    travel, time, power = run.travel, run.time, run.power

    def size(value: float, *, is_exact: bool) -> str:
        return f"{'' if is_exact else '~'}{bytes_text(value)}"

    return _Row(
        label,
        None,
        down=size(travel.down_visit, is_exact=travel.is_down_exact),
        up=size(travel.up_visit, is_exact=travel.is_up_exact),
        whole=size(_sent(run), is_exact=travel.is_exact),
        share=f"{100 * _sent(run) / most:.1f}",
        bits="–" if travel.up_bits is None else _number(travel.up_bits),
        median="–" if time is None else _seconds(time.median_round_seconds),
        slowest="–" if time is None else _seconds(time.slowest_round_seconds),
        hours="–" if time is None else _number(time.total_hours),
        flops=flops_text(run.visit_flops),
        device_kwh="–" if power.device_kwh is None else _number(power.device_kwh),
        line_kwh=_range(power.line_kwh),
        egress=_range(power.egress),
    )


def _sent(run: PlannedRun) -> int:
    return 0 if run.travel is None else run.travel.down + run.travel.up


def _estimates(plan: Plan) -> list[str]:
    names = varying(plan.runs)
    why: dict[str, list[str]] = {}
    for run in plan.known:
        for reason in () if run.travel is None else run.travel.why_estimate:
            why.setdefault(reason, []).append(candidate_label(run, names))
    return [
        words("Estimates, since {reason}: {candidates}.", reason=words(WHY[reason]), candidates="; ".join(labels))
        for reason, labels in why.items()
    ]


def _split(plan: Plan) -> str:
    assert plan.split is not None
    return words(
        "For a client that cannot hold the base: split learning would send {step} in every step, {visit} a visit, and "
        "half of it where the server may see the answers.",
        step=bytes_text(plan.split.step_bytes),
        visit=bytes_text(plan.split.visit_bytes),
    )


def _losses(plan: Plan) -> list[str]:
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


def _privacy(plan: Plan) -> list[str]:
    names = varying(plan.runs)
    said = []
    for run in plan.known:
        if (one := run.privacy) is None:
            continue
        label = candidate_label(run, names)
        if one.epsilon is None:
            said.append(words("{candidate}: no epsilon, since nothing is done but clipping.", candidate=label))
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
    return said


def _sources(plan: Plan) -> list[tuple[str, str, str]]:
    kinds = dict.fromkeys(kind for each in plan.known if each.power is not None for kind in each.power.line_kinds)
    found: list[tuple[str, str, str]] = list(plan.sources)
    for kind in kinds:
        for each in LINE_ENERGY[kind]:
            found.append((f"{each.kwh_per_gb:g} kWh/GB, {words(_LINES[kind])}", each.source, each.year))
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
