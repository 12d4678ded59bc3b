"""Fronts and protocols as tables, once for terminal, Markdown and page.

A number has its interval beneath it; of several seeds the least and the most are shown instead of nothing.
"""

from collections.abc import Mapping
from typing import Any

from fedllm_data.wording.catalogue import marked, plural_words, words
from fedllm_data.wording.forms import listed, percent
from fedllm_eval.comparing.front_words import COST_NAMES, cost_text, figure_name, seeds_sentence
from fedllm_eval.comparing.protocols import BY_FINISHED
from fedllm_eval.comparing.trade_offs import drawn_fronts
from fedllm_eval.reporting.all_sections import markdown_lines
from fedllm_eval.reporting.left_behind_section import group_name
from fedllm_eval.reporting.score_words import score_name
from fedllm_eval.reporting.table_section import Cell, Section, interval, markdown_text, number, signed
from fedllm_eval.running.client_groups import SPEED
from fedllm_eval.running.round_costs import COSTS

__all__ = ["front_section", "protocol_sections", "trade_off_markdown"]

_FROM = {
    "rounds": marked("on held-out rows during training"),
    "finished": marked("the finished scores"),
}
_KINDS = {
    "lost": marked("lost"),
    "late": marked("late"),
    "closed": marked("closed"),
    "refused": marked("refused"),
    "not recorded": marked("reason not recorded"),
}
NONE: Cell = ("–", "")


def front_section(front: Mapping[str, Any], currency: str = "") -> Section:
    """Return one front as a table, the cheapest method first.

    Args:
        front: an item of `fronts.fronts_of` with its sentences.
        currency: of money.
    """
    rows = []
    for point in sorted(front["points"], key=lambda one: (one["cost"], one["label"])):
        ends = [cost_text(front["cost"], point[end], currency) for end in ("cost_low", "cost_high")]
        seeds = plural_words("{num} seed", "{num} seeds", point["num_seeds"])
        stands = (
            words("beaten by {names}", names=listed(point["beaten_by"]))
            if point["beaten_by"]
            else words("nobody beats it")
        )
        rows.append(
            (
                (point["label"], seeds),
                (stands, ""),
                (number(point["mean"]), interval(point["ci_low"], point["ci_high"])),
                (
                    cost_text(front["cost"], point["cost"], currency),
                    "" if ends[0] == ends[1] else words("{low} to {high}", low=ends[0], high=ends[1]),
                ),
            )
        )
    cost = words(COST_NAMES[front["cost"]])
    return Section(
        figure_name(front),
        words(
            "{score} against {cost}, {split} clients",
            score=score_name(front["score"]),
            cost=cost,
            split=front["split"],
        ),
        words(
            "A method beats another if it is shown to score better and costs no more; what cannot be told apart does"
            " not beat."
        ),
        (words("method"), words("on this front"), words("score, 95 %"), cost),
        tuple(rows),
        num_text=2,
        notes=tuple(front["sentences"]),
    )


def trade_off_markdown(trade: Mapping[str, Any]) -> list[str]:
    """Return the lines of fronts and protocols; a front on which nothing can be set against anything is one sentence.

    >>> trade_off_markdown({"currency": "", "fronts": None, "budgets": [], "targets": [], "robustness": []})
    []
    """
    lines: list[str] = []
    if trade["fronts"] is not None:
        drawn = drawn_fronts(trade)
        for front in drawn:
            section = front_section(front, trade["currency"])
            title, *rest = markdown_lines(section)
            lines += ["", title, "", f"![{section.title}](figures/{section.anchor}.svg)", *rest]
        empty = [front["sentences"] for front in trade["fronts"]["items"] if front not in drawn]
        lines += ["", *(f"- {markdown_text(' '.join(said))}" for said in empty)] if empty else []
        if drawn and (said := seeds_sentence(trade["fronts"]["covers_seeds"])):
            lines += ["", said]
    for section in protocol_sections(trade):
        lines += ["", *markdown_lines(section)]
    return lines


def protocol_sections(trade: Mapping[str, Any]) -> list[Section]:
    """Return the protocols that were asked for or that the runs allow, as tables.

    >>> protocol_sections({"currency": "", "budgets": [], "targets": [], "robustness": []})
    []
    """
    currency = trade["currency"]
    return [
        *(_budget(found, index, currency) for index, found in enumerate(trade["budgets"])),
        *(_target(found, index, currency) for index, found in enumerate(trade["targets"])),
        *(_robustness(found, index, currency) for index, found in enumerate(trade["robustness"])),
    ]


def _budget(found: Mapping[str, Any], index: int, currency: str) -> Section:
    limits = listed(
        [
            words("{cost} up to {limit}", cost=words(COST_NAMES[name]), limit=cost_text(name, limit, currency))
            for name, limit in found["limits"].items()
        ]
    )
    rows: list[tuple[Cell, ...]] = []
    for row in found["rows"]:
        if row["outcome"] != "fits":
            why = (
                words("not known: {reason}", reason=words(row["reason"]))
                if row["outcome"] == "unknown"
                else words("nothing fits")
            )
            rows.append(((row["label"], ""), (why, ""), NONE, NONE, *(NONE for _ in COSTS)))
            continue
        rows.append(
            (
                (row["label"], plural_words("{num} seed", "{num} seeds", row["num_seeds"])),
                (words(_FROM[row["from"]]), ""),
                (number(row["mean"]), interval(row["ci_low"], row["ci_high"])),
                (", ".join("–" if at < 0 else str(at) for at in row["rounds"]), ""),
                *(_cell(cost, row["spent"][cost], currency, row["unknown"]) for cost in COSTS),
            )
        )
    return Section(
        f"budget-{index + 1}",
        words("Quality under a budget: {limits}", limits=limits),
        words(
            "The best {score} among the scored rounds that fit the budget. The best of many rounds flatters a little.",
            score=score_name(found["score"]),
        ),
        (
            *(words("method"), words("scored"), words("score, 95 %"), words("round, from 0")),
            *(words(COST_NAMES[cost]) for cost in COSTS),
        ),
        tuple(rows),
        num_text=2,
        notes=_mixed(found),
    )


def _target(found: Mapping[str, Any], index: int, currency: str) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for row in found["rows"]:
        name: Cell = (row["label"], "" if row["run"] == row["label"] else row["run"])
        if row["outcome"] == "unknown":
            why = words("not known: {reason}", reason=words(row["reason"]))
            rows.append((name, (why, ""), NONE, *(NONE for _ in COSTS)))
        elif row["outcome"] == "not reached":
            best = words("best: {value}", value=number(row["best"]))
            rows.append((name, (words("not reached"), best), NONE, *(NONE for _ in COSTS)))
        else:
            told = words("its whole interval has reached it") if row["is_clear"] else words("its interval has not")
            cells = []
            for cost in COSTS:
                ends = [_end(row[side], cost, currency) for side in ("early", "sure")]
                is_known = row["cost"][cost] is not None
                small = words("{low} to {high}", low=ends[0], high=ends[1]) if is_known and ends[0] != ends[1] else ""
                told_cost, why = _cell(cost, row["cost"][cost], currency, row["unknown"])
                cells.append((told_cost, why or small))
            at = "–" if row["round_index"] < 0 else str(row["round_index"])
            rows.append((name, (words("reached"), told), (at, words(_FROM[row["from"]])), *cells))
    return Section(
        f"target-{index + 1}",
        words("Cost to a target: {score} {value}", score=score_name(found["score"]), value=number(found["value"])),
        words(
            "What had been spent when the mean first reached it; beneath, from the first round whose better bound"
            " reached it to the first whose worse bound did."
        ),
        (words("method"), words("target"), words("round, from 0"), *(words(COST_NAMES[cost]) for cost in COSTS)),
        tuple(rows),
        num_text=2,
        notes=_mixed(found),
    )


def _robustness(found: Mapping[str, Any], index: int, currency: str) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for row in found["rows"]:
        settings = ", ".join(f"{name} {value}" for name, value in row["settings"].items() if value is not None)
        kinds = [
            words("{share} of them {kind}", kind=words(_KINDS[kind]), share=percent(share))
            for kind, share in row["by_kind"].items()
        ]
        lost = row["lost_fraction"]
        rows.append(
            (
                (row["label"], settings),
                ("–" if lost is None else percent(lost), listed(kinds)),
                (number(row["mean"]), interval(row["ci_low"], row["ci_high"])),
                *(_cell(cost, row["costs"][cost], currency, row["unknown"]) for cost in COSTS),
            )
        )
    by_speed = [_by_speed(row["label"], row["by_speed"]) for row in found["rows"] if row["by_speed"]]
    slope = found["slope"]
    note = (
        words("All of them lost the same share, so nothing is said about losing more.")
        if slope is None
        else words(
            "With a tenth more of the asked visits lost, {score} changes by {value} (95 % interval over {num} clients:"
            " {interval}).",
            score=score_name(found["score"]),
            value=signed(slope["mean"]),
            num=slope["num_clients"],
            interval=interval(slope["ci_low"], slope["ci_high"], signed=True),
        )
    )
    return Section(
        f"robustness-{index + 1}",
        words("Robustness to lost clients: {strategy}", strategy=found["strategy"] or words("a method")),
        words("Runs that differ in who was lost alone; lost is the share of the asked visits that came to nothing."),
        (
            *(words("method"), words("lost"), words("score, 95 %")),
            *(words(COST_NAMES[cost]) for cost in COSTS),
        ),
        tuple(rows),
        notes=(note, words("The interval is over clients; other seeds are not covered."), *by_speed),
    )


def _by_speed(label: str, shares: Mapping[str, float]) -> str:
    told = [
        words("{share} of {group}", group=group_name(SPEED, name), share=percent(share))
        for name, share in shares.items()
    ]
    return words("{name} lost visits as follows: {shares}.", name=label, shares=listed(told))


def _cell(cost: str, value: float | None, currency: str, unknown: Mapping[str, str]) -> Cell:
    """A cost, or why there is none: a run without a guarantee has no epsilon that one could know."""
    if value is None and cost in unknown:
        return "–", words(unknown[cost])
    return _known(cost, value, currency), ""


def _known(cost: str, value: float | None, currency: str) -> str:
    return words("not known") if value is None else cost_text(cost, value, currency)


def _end(costs: Mapping[str, float | None] | None, cost: str, currency: str) -> str:
    return words("never") if costs is None else _known(cost, costs[cost], currency)


def _mixed(found: Mapping[str, Any]) -> tuple[str, ...]:
    """A note where some scores were taken in training and others after it."""
    sources = {row.get("from") for row in found["rows"]} - {None}
    if len(sources) > 1:
        return (
            words(
                "Some methods are scored during training and some by their finished scores: other clients, so the two"
                " are not set against one another."
            ),
        )
    if sources == {BY_FINISHED}:
        return (words("No run was scored during training (--eval-every), so only finished scores are known."),)
    return ()
