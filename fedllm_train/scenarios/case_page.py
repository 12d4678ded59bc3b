"""The last page of a scenario: the case, what was planned, what it cost and gained, and what to do.

It speaks English, loads nothing, and links to the pages beside it: the plans, the comparison and the decision.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, PackageLoader

from fedllm_data.in_place import write_file
from fedllm_data.reporting.page_frame import Body, whole_page
from fedllm_data.reporting.templates import page_environment
from fedllm_eval.texts import whole
from fedllm_train.scenarios.agreement import Agreement
from fedllm_train.scenarios.case_plans import read_plan
from fedllm_train.scenarios.case_records import read_decision, read_rounds
from fedllm_train.scenarios.recommended import Outcome, outcome_of, recommended
from fedllm_train.scenarios.template import PRICED, Scenario

__all__ = ["recommendation_sentence", "write_case"]

VERDICTS = {"release": "release", "do_not_release": "do not release", "collect_more": "collect more"}
_PRICE_WORDS = {"per_gb": "a GB sent", "per_hour": "an hour of a device", "per_kwh": "a kilowatt-hour"}


def write_case(
    scenario: Scenario,
    out: Path,
    agreements: Mapping[str, Sequence[Agreement]],
    commands: Sequence[tuple[str, str]],
    name: str,
) -> tuple[Path, str]:
    """Write the page of a case whose steps have all run, and return it with its recommendation.

    Args:
        scenario: the case.
        out: its folder.
        agreements: by candidate, what was planned and what was run.
        commands: every step's purpose and command.
        name: of the page.
    """
    decision = read_decision(out)
    decided = {each["label"]: each for each in decision["candidates"]}
    outcomes = [
        outcome_of(decided[each.name], read_rounds(out / "runs" / each.name), scenario.limits)
        for each in scenario.candidates
    ]
    plans = {each.name: read_plan(out, each.name) for each in scenario.candidates}
    environment = page_environment()
    environment.loader = ChoiceLoader([environment.loader, PackageLoader("fedllm_train", "scenarios")])
    template = environment.get_template("case_page.html.jinja")
    known: dict[str, Any] = {
        "scenario": scenario,
        "rows": list(zip(scenario.candidates, outcomes, strict=True)),
        "plans": {name: plan["runs"][0] for name, plan in plans.items()},
        "plan_pages": {name: (out / "plans" / name / "plan.html").exists() for name in plans},
        "sources": plans[scenario.candidates[0].name]["sources"],
        "num_clients": plans[scenario.candidates[0].name]["num_clients"],
        "agreements": agreements,
        "sentence": recommendation_sentence(outcomes),
        "verdicts": VERDICTS,
        "prices": [
            (_PRICE_WORDS[each], value, scenario.prices.sources[each])
            for each in PRICED
            if (value := getattr(scenario.prices, each)) is not None
        ],
        "commands": commands,
    }
    page = whole_page(lambda: Body(scenario.title, template.render(**known)), language="en")
    write_file(out / name, whole(page).encode())
    return out / name, known["sentence"]


def recommendation_sentence(outcomes: Sequence[Outcome]) -> str:
    """Return what to do, and why, in whole sentences.

    >>> common = {"gain": 1.0, "low": 0.9, "high": 1.1, "total_bytes": 2_000_000, "visit_mb": 0.1, "hours": 0.5}
    >>> recommendation_sentence([Outcome(name="drive", verdict="release", epsilon=None, **common)])
    'Take drive: it gains 1.000 nats per token (from 0.900 to 1.100) for 2.00 MB in all.'
    """
    chosen = recommended(outcomes)
    if chosen is None:
        allowed = [each for each in outcomes if not each.broken]
        if not allowed:
            return "Take none of them: each is beyond a limit of the case, whatever it gains."
        if any(each.verdict == "collect_more" for each in allowed):
            names = ", ".join(each.name for each in allowed if each.verdict == "collect_more")
            return f"Take none of them yet: the rules ask for more evidence on {names}."
        return "Take none of them: those that keep the limits of the case are not to be released by its rules."
    said = (
        f"Take {chosen.name}: it gains {chosen.gain:.3f} nats per token (from {chosen.low:.3f} to {chosen.high:.3f}) "
        f"for {chosen.total_bytes / 1e6:.2f} MB in all."
    )
    others = [each for each in outcomes if each is not chosen and each.verdict == "release" and not each.broken]
    if rivals := [each.name for each in others if each.gain > chosen.gain]:
        said += f" What {' and '.join(rivals)} gained more may be chance, and cost more bytes."
    return said
