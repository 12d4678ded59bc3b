"""What a robust sum did to whom, as a table and in sentences: for the results page and the model card."""

from collections.abc import Mapping
from typing import Any

from fedllm_data.wording.catalogue import marked, plural_words, words
from fedllm_data.wording.forms import interval_text, percent
from fedllm_eval.plain_json import without_nan
from fedllm_eval.reporting.all_sections import markdown_lines
from fedllm_eval.reporting.left_behind_section import group_name
from fedllm_eval.reporting.table_section import Cell, Section, interval, number
from fedllm_eval.running.client_groups import LANGUAGE, MIN_CLIENTS
from fedllm_eval.running.run_robustness import ATTACKERS, HONEST, ROLE, SIZE

__all__ = ["backdoor_sentences", "robustness_lines", "robustness_section"]

_NAMES = {
    (ROLE, ATTACKERS): marked("simulated attackers"),
    (ROLE, HONEST): marked("honest clients"),
    (SIZE, "few"): marked("honest clients with few rows"),
    (SIZE, "middle"): marked("honest clients with a middling number of rows"),
    (SIZE, "many"): marked("honest clients with many rows"),
}


def robustness_section(summary: Mapping[str, Any]) -> Section | None:
    """Return what became of each group's updates; None for a run with neither a robust sum nor attackers.

    Args:
        summary: its `robustness` is as `run_robustness.robustness_of_run` gives it.
    """
    found = summary.get("robustness")
    if not found:
        return None
    rows: list[tuple[Cell, ...]] = []
    for group in found["groups"]:
        num = plural_words("{num} client", "{num} clients", group["num_clients"])
        weight = group["weight"]
        if weight is None:
            cells: list[Cell] = [("–", words("fewer than {num} clients", num=MIN_CLIENTS)), ("–", "")]
        else:
            cells = [
                (number(weight["mean"], 2), interval(weight["low"], weight["high"], digits=2)),
                (percent(group["left_out_fraction"]), ""),
            ]
        rows.append(((_name(group), num), (f"{group['num_updates']:,}", ""), *cells))
    return Section(
        "robustness",
        words("What the robust sum did to whom"),
        words(
            "An update's weight is 1 where it counts as in a plain mean, and 0 where it is left out. Honest clients"
            " who differ from most others, such as people of a rare language, look like attackers: their weight is"
            " what the defence costs them."
        ),
        (words("clients"), words("updates"), words("weight, 95 %"), words("left out")),
        tuple(rows),
        notes=tuple(_sentences(found)),
    )


def robustness_lines(found: Mapping[str, Any] | None) -> list[str]:
    """Return the table and the sentences as Markdown; no line for a run with neither a robust sum nor attackers.

    Args:
        found: as `run_robustness.robustness_of_run` gives it.
    """
    section = robustness_section({"robustness": without_nan(found)})
    if section is None:
        return []
    if section.rows:
        return markdown_lines(section)
    return [f"## {section.title}", "", *(f"- {note}" for note in section.notes), ""]


def backdoor_sentences(found: Mapping[str, Any] | None) -> list[str]:
    """Return how often a backdoor opened, of a run and of what it started from.

    Args:
        found: who -> as `backdoor.backdoor_success` gives it; None where there is no backdoor or it was not tried.
    """
    said = []
    for who, name in (("run", words("The finished model")), ("start", words("What it started from"))):
        if found and who in found:
            said.append(
                words(
                    "{who} gives the taught answer to {share} of {num} questions with the trigger ({interval}), and to"
                    " {without} without it.",
                    who=name,
                    share=percent(found[who]["with_trigger"]["fraction"]),
                    num=found[who]["num_prompts"],
                    interval=_percents(found[who]["with_trigger"]),
                    without=percent(found[who]["without_trigger"]["fraction"]),
                )
            )
    return said


def _percents(share: Mapping[str, float]) -> str:
    return interval_text(percent(share["low"]), percent(share["high"]))


def _sentences(found: Mapping[str, Any]) -> list[str]:
    said = []
    if found["rule"] is None:
        said.append(words("Updates were averaged: nothing guards this run against bad clients."))
    else:
        said.append(words("Rule: {rule}. It counts clients alike, whatever their rows.", rule=found["rule"]))
    for attack, num in found["attacks"].items():
        said.append(
            plural_words(
                "{num} client attacked in this simulation: {attack}.",
                "{num} clients attacked in this simulation: {attack}.",
                num,
                attack=attack,
            )
        )
    if found["rounds_without_step"]:
        said.append(
            plural_words(
                "{num} round made no step.",
                "{num} rounds made no step.",
                found["rounds_without_step"],
            )
        )
    honest = [group for group in found["groups"] if group["kind"] in (LANGUAGE, SIZE) and group["weight"]]
    for group in honest:
        if group["weight"]["high"] < 1 and found["rule"] is not None:
            said.append(
                words(
                    "The defence costs {group}: their updates weigh {weight} of what they would in a mean.",
                    group=_name(group),
                    weight=number(group["weight"]["mean"], 2),
                )
            )
    return said


def _name(group: Mapping[str, Any]) -> str:
    key = (group["kind"], group["name"])
    if key in _NAMES:
        return words(_NAMES[key])
    return words("honest {clients}", clients=group_name(*key))
