"""Who was left behind, as a table and in sentences: for the results page, the model card and the decision."""

from collections.abc import Mapping
from typing import Any

from fedllm_data.wording.catalogue import marked, plural_words, words
from fedllm_data.wording.forms import percent
from fedllm_eval.reporting.score_words import score_name
from fedllm_eval.reporting.table_section import Cell, Section, interval, number, signed
from fedllm_eval.running.client_groups import ALL_ALIKE, LANGUAGE, MIN_CLIENTS, OTHER, SPEED, UNKNOWN

__all__ = ["group_name", "left_behind_section", "left_behind_sentences", "plain_left_behind"]

_NAMES = {
    (SPEED, "slow"): marked("slow clients"),
    (SPEED, "middle"): marked("clients of middle speed"),
    (SPEED, "fast"): marked("fast clients"),
    (SPEED, ALL_ALIKE): marked("clients of one speed"),
    (SPEED, UNKNOWN): marked("clients of unknown speed"),
    (LANGUAGE, OTHER): marked("clients of other languages"),
    (LANGUAGE, UNKNOWN): marked("clients of unknown language"),
}


def group_name(kind: str, name: str) -> str:
    """Return what a group is called.

    >>> group_name("speed", "slow"), group_name("language", "de")
    ('slow clients', 'clients of language de')
    """
    key = (kind, name)
    return words(_NAMES[key]) if key in _NAMES else words("clients of language {name}", name=name)


def left_behind_sentences(found: Mapping[str, Any]) -> list[str]:
    """Return who contributed less than its share, whether it is served worse, and what is not known.

    Args:
        found: as `run_left_behind.left_behind_of_run` gives it.

    >>> nobody = {"groups": [], "counted": "steps", "speed_is_known": False, "language_is_known": True,
    ...           "num_unseen": 0, "score": None}
    >>> left_behind_sentences(nobody)[0]
    'No group of clients is shown to have made fewer steps than its share of the clients.'
    """
    less = [group for group in found["groups"] if group["gave_less"]]
    said = [sentence for group in less for sentence in (_gave_less(group), _is_served(group, found))]
    if not less:
        said.append(words("No group of clients is shown to have made fewer steps than its share of the clients."))
    worse = [group for group in found["groups"] if not group["gave_less"] and (group["served"] or {}).get("is_worse")]
    said += [
        words(
            "{group} are served worse than the others: {numbers}.",
            group=_capital(group),
            numbers=_numbers(group, found),
        )
        for group in worse
    ]
    if found["counted"] == "visits":
        said.append(words("The rounds name no steps, so visits are counted."))
    if not found["speed_is_known"]:
        said.append(words("How fast clients are is not known: the run has no client table."))
    if not found["language_is_known"]:
        said.append(words("What languages clients write is not known: no clients table of the corpus is at hand."))
    if found["num_unseen"]:
        said.append(
            plural_words(
                "Shares leave out {num} client that was never asked and of which nothing is at hand.",
                "Shares leave out {num} clients that were never asked and of which nothing is at hand.",
                found["num_unseen"],
            )
        )
    return said


def plain_left_behind(found: Mapping[str, Any] | None) -> list[str]:
    """Return the same for somebody who must decide, without a technical figure; nothing where nothing is known.

    Args:
        found: as `run_left_behind.left_behind_of_run` gives it, or None where that is not told.

    >>> plain_left_behind(None)
    []
    """
    if found is None or not (found["speed_is_known"] or found["language_is_known"]):
        return []
    said = []
    for group in found["groups"]:
        served = group["served"]
        is_worse = served is not None and served["is_worse"]
        if group["gave_less"]:
            said.append(
                words(
                    "{group} did {steps} of the work that counted, though they are {clients} of the partners: less"
                    " than chance would have it.",
                    group=_capital(group),
                    steps=percent(group["step_fraction"]),
                    clients=percent(group["client_fraction"]),
                )
            )
            if is_worse:
                said.append(words("The model also serves them worse than the others."))
            elif served is not None and served["others"] is not None:
                said.append(words("That the model serves them worse is not shown."))
            else:
                said.append(words("Whether the model serves them worse is not known."))
        elif is_worse:
            said.append(words("{group} are served worse than the others.", group=_capital(group)))
    if not any(group["gave_less"] for group in found["groups"]):
        said.append(words("No group of partners is shown to have done less than its share of the work."))
    return said


def left_behind_section(summary: Mapping[str, Any]) -> Section | None:
    """Return the groups of clients with what they gave and how they are served; None where that is not told."""
    found = summary.get("left_behind")
    if not found:
        return None
    steps = words("steps that counted") if found["counted"] == "steps" else words("visits that counted")
    header = [
        words("clients"),
        words("share of clients"),
        words("share of rows"),
        words("share of asked visits"),
        steps,
    ]
    header += [words("lost"), words("late")]
    header += [words("{score}, 95 %", score=score_name(found["score"]))] if found["score"] is not None else []
    rows: list[tuple[Cell, ...]] = []
    for group in found["groups"]:
        num = plural_words("{num} client", "{num} clients", group["num_clients"])
        cells: list[Cell] = [
            (group_name(group["kind"], group["name"]), num),
            (percent(group["client_fraction"]), ""),
            (_percent(group["row_fraction"]), ""),
            (_percent(group["asked_fraction"]), f"{group['num_asked']:,}"),
            (_percent(group["step_fraction"]), f"{group['num_steps']:,}"),
            (_percent(group["lost_fraction"]), ""),
            (_percent(group["late_fraction"]), ""),
        ]
        if found["score"] is not None:
            cells.append(_score_cell(group))
        rows.append(tuple(cells))
    return Section(
        "left-behind",
        words("Who was left behind"),
        words(
            "What each group of clients gave to the run beside its share of them. Lost and late are shares of the"
            " group's own asked visits; speed is the time of a visit on the client's machine."
        ),
        tuple(header),
        tuple(rows),
        notes=tuple(left_behind_sentences(found)),
    )


def _score_cell(group: Mapping[str, Any]) -> Cell:
    served = group["served"]
    if served is None:
        return ("–", words("fewer than {num} scored", num=MIN_CLIENTS))
    scored = plural_words("{num} client", "{num} clients", served["num_clients"])
    return number(served["mean"]), words(", ").join([interval(served["low"], served["high"]), scored])


def _gave_less(group: Mapping[str, Any]) -> str:
    return words(
        "{group} ({num}) made {steps} of the steps that counted, less than their share of {clients}: among random"
        " groups of as many clients so few are rare (p = {p}, corrected).",
        group=_capital(group),
        num=f"{group['num_clients']:,}",
        steps=percent(group["step_fraction"]),
        clients=percent(group["client_fraction"]),
        p=f"{group['p_holm']:.2g}",
    )


def _is_served(group: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    served = group["served"]
    if served is None or served["difference_low"] is None:
        return words("How they are served beside the others is not known.")
    numbers = _numbers(group, found)
    if served["is_worse"]:
        return words("They are also served worse than the others: {numbers}.", numbers=numbers)
    return words("They are not shown to be served worse than the others: {numbers}.", numbers=numbers)


def _numbers(group: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    served = group["served"]
    return words(
        "{score} {value} against {other}, difference {low} to {high} (95 %)",
        score=score_name(found["score"]),
        value=number(served["mean"]),
        other=number(served["others"]),
        low=signed(served["difference_low"]),
        high=signed(served["difference_high"]),
    )


def _capital(group: Mapping[str, Any]) -> str:
    name = group_name(group["kind"], group["name"])
    return name[:1].upper() + name[1:]


def _percent(share: float | None) -> str:
    return "–" if share is None else percent(share)
