"""A plan as one HTML page that loads nothing: tables that stand without scripts, and a form that works the costs out.

What the form says follows from the lengths and operations that the plan found, by the formulas of `quick_costs.py`,
which the page's script repeats. The page speaks English and Japanese.
"""

import json
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader

from fedllm_data.in_place import fill_folder
from fedllm_data.reporting.page_frame import SHARED, Body, whole_page
from fedllm_data.reporting.templates import page_environment
from fedllm_data.wording.catalogue import marked, words
from fedllm_eval.machines.energy import LINE_ENERGY
from fedllm_train.planning.plan_all import Plan
from fedllm_train.planning.plan_page_words import (
    LINE_NAMES,
    plan_estimates,
    plan_losses,
    plan_privacy,
    plan_rows,
    plan_sources,
    plan_split,
    plan_summary,
    plan_tiles,
)
from fedllm_train.planning.plan_text import candidate_label, varying
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
            summary=plan_summary(plan),
            tiles=plan_tiles(plan),
            rows=plan_rows(plan),
            estimates=plan_estimates(plan),
            choices=[(name, one["label"]) for name, one in data["candidates"].items()],
            wires=list(dict.fromkeys(wire for one in data["candidates"].values() for wire in one["uploads"])),
            inputs=[(name, words(label), unit) for name, label, unit in _INPUTS],
            answers=[(name, words(label)) for name, label in _ANSWERS],
            lines=[(name, words(LINE_NAMES[name])) for name in LINE_ENERGY],
            split=plan_split(plan),
            partners=() if plan.known[0].time is None else plan.known[0].time.partners[:_MOST_PARTNERS],
            losses=plan_losses(plan),
            privacy=plan_privacy(plan),
            sources=plan_sources(plan),
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
