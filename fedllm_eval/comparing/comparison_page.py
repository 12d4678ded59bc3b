"""The comparison as one HTML page that loads nothing: verdicts, differences with intervals, and the series.

Colours, sizes and dark mode are those of `fedllm_data`'s reports. All text is escaped by Jinja.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, PackageLoader
from markupsafe import Markup

from fedllm_data.reporting.page_frame import Body, whole_page
from fedllm_data.reporting.templates import page_environment
from fedllm_data.wording.catalogue import marked, words
from fedllm_data.wording.forms import percent
from fedllm_eval.comparing.comparison_verdicts import Family, summary_of
from fedllm_eval.comparing.front_words import front_sentences, seeds_sentence
from fedllm_eval.comparing.release_gate import check_sentence
from fedllm_eval.comparing.trade_off_tables import front_section, protocol_sections
from fedllm_eval.comparing.trade_offs import drawn_fronts
from fedllm_eval.reporting.score_words import client_kind, score_name
from fedllm_eval.reporting.table_section import number, signed

if TYPE_CHECKING:
    from fedllm_data.reporting.shared_figures import SharedFigures

__all__ = ["plain_outcomes", "render_page"]

WIDTH, ROW, MARGIN = 620.0, 30.0, 24.0
NUM_TICKS = 5
MAX_SENTENCES = 6
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_PLAIN = {
    "better": marked(
        "{other} serves clients better than {baseline}: {better_off} of {clients} gain, {worse_off} lose ({score})."
    ),
    "worse": marked(
        "{other} serves clients worse than {baseline}: {worse_off} of {clients} lose, {better_off} gain ({score})."
    ),
    "better run": marked(
        "This run of {other} serves clients better than {baseline}: {better_off} of {clients} gain, {worse_off} lose"
        " ({score}). Another seed was not tried."
    ),
    "worse run": marked(
        "This run of {other} serves clients worse than {baseline}: {worse_off} of {clients} lose, {better_off} gain"
        " ({score}). Another seed was not tried."
    ),
    "undecided": marked(
        "Whether {other} serves clients better than {baseline} cannot be told from {clients}: {better_off} gain,"
        " {worse_off} lose ({score})."
    ),
}
"""Outcome -> what is said of it first."""
_BUT_WORSE = marked("But in another score {other} serves them worse: {worse_off} of {clients} lose ({score}).")


def render_page(
    comparison: Mapping[str, Any],
    language: str | None = None,
    links: Mapping[str, str] | None = None,
    figures: Mapping[str, str] | None = None,
) -> str:
    """Return the page of a comparison, as `compare_results` gives it.

    Args:
        comparison: what is shown.
        language: of the page; by default it speaks all, and the reader's browser chooses.
        links: place of a results folder -> where its page lies, seen from this one.
        figures: SVG text of the fronts by name, as `front_plots.draw_fronts` makes them, which makes them where None.
    """
    # matplotlib comes with it, and a comparison that is refused draws nothing.
    from fedllm_data.reporting.shared_figures import SharedFigures
    from fedllm_eval.comparing.front_plots import draw_fronts

    environment = page_environment()
    environment.loader = ChoiceLoader([PackageLoader("fedllm_eval", "comparing"), environment.loader])  # type: ignore[list-item]
    environment.filters |= {"score": number, "signed": signed}
    template = environment.get_template("compare_page.html.jinja")
    baseline, labels = comparison["baseline"]["label"], [other["label"] for other in comparison["others"]]

    drawn = draw_fronts(comparison.get("trade_offs")) if figures is None else figures
    # A page names no address, and a figure's metadata are some.
    drawings = SharedFigures({name: _METADATA.sub("", svg) for name, svg in drawn.items()})
    family = Family(**{name: comparison["correction"][name] for name in Family.__dataclass_fields__})

    def body() -> Body:
        html = template.render(
            comparison=comparison,
            links=links or {},
            plain=plain_outcomes(comparison),
            summary=summary_of(comparison["comparisons"], baseline, family.words()),
            checks=[check_sentence(check) for check in (comparison["gate"] or {"checks": []})["checks"]],
            forests=[_forest(group, comparison) for group in _groups(comparison["comparisons"])],
            series=_series(comparison["history"] or []),
            **_costs(comparison, drawings),
        )
        return Body(words("{others} against {baseline}", others=", ".join(labels), baseline=baseline), html)

    style = environment.get_template("compare_page.css.jinja").render()
    return whole_page(body, language=language, style=style, shared=drawings.shared())


def _costs(comparison: Mapping[str, Any], drawings: "SharedFigures") -> dict[str, Any]:
    """The fronts and protocols, in the language that is spoken."""
    trade = comparison.get("trade_offs")
    if trade is None or trade["fronts"] is None:
        return {"fronts": [], "undrawn": [], "protocols": [], "of_runs": ""}
    drawn = drawn_fronts(trade)
    fronts = []
    for front in drawn:
        section = front_section(front, trade["currency"])
        figure = drawings.figure(section.anchor, section.title) if section.anchor in drawings else ""
        fronts.append((section, Markup(figure), front_sentences(front, trade["currency"])))
    return {
        "fronts": fronts,
        "undrawn": [front_sentences(front) for front in trade["fronts"]["items"] if front not in drawn],
        "protocols": protocol_sections(trade),
        "of_runs": seeds_sentence(trade["fronts"]["covers_seeds"]) if drawn else "",
    }


def plain_outcomes(comparison: Mapping[str, Any]) -> list[str]:
    """Return what the comparison shows in plain words: one sentence a method, from its first score on each split.

    Where that is a gain and another score got worse, a second sentence says so.

    >>> item = {"other": "b", "score": "heldout_loss", "split": "test", "outcome": "undecided", "num_clients": 9,
    ...         "better_fraction": 0.5, "worse_fraction": 0.25}
    >>> plain_outcomes({"baseline": {"label": "a"}, "comparisons": [item]})[0][:55]
    'Whether b serves clients better than a cannot be told f'
    """
    told: dict[tuple[str, str], list[str]] = {}
    gained: set[tuple[str, str]] = set()
    for item in comparison["comparisons"]:
        key = item["other"], item["split"]
        if key not in told:
            message = _PLAIN[item["outcome"]]
            gained |= {key} if item["outcome"] in ("better", "better run") else set()
        elif key in gained and len(told[key]) == 1 and item["outcome"] in ("worse", "worse run"):
            message = _BUT_WORSE
        else:
            continue
        told.setdefault(key, []).append(
            words(
                message,
                other=item["other"],
                baseline=comparison["baseline"]["label"],
                clients=client_kind(item["split"], item["num_clients"]),
                better_off=percent(item["better_fraction"]),
                worse_off=percent(item["worse_fraction"]),
                score=score_name(item["score"]),
            )
        )
    return [sentence for said in told.values() for sentence in said][:MAX_SENTENCES]


def _groups(items: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Items of one split and score together, in the order given."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for item in items:
        groups.setdefault((item["split"], item["score"]), []).append(item)
    return list(groups.values())


def _forest(items: Sequence[Mapping[str, Any]], comparison: Mapping[str, Any]) -> dict[str, Any]:
    """Where the differences of one score lie: a row per method, 0 in common."""
    margin = next(
        (
            check["margin"]
            for check in (comparison["gate"] or {"checks": []})["checks"]
            if (check["split"], check["score"]) == (items[0]["split"], items[0]["score"])
        ),
        None,
    )
    worst = None if margin is None else -margin if items[0]["higher_is_better"] else margin
    ends = [0.0] + ([] if worst is None else [worst])
    for item in items:
        ends += [value for value in (item["difference"], item["ci_low"], item["ci_high"]) if value is not None]
    place, ticks = _scale(min(ends), max(ends), WIDTH)
    rows = [
        {
            "item": item,
            "y": (index + 0.5) * ROW,
            "at": place(item["difference"]),
            "low": None if item["ci_low"] is None else place(item["ci_low"]),
            "high": None if item["ci_high"] is None else place(item["ci_high"]),
        }
        for index, item in enumerate(items)
    ]
    return {
        "split": items[0]["split"],
        "score": items[0]["score"],
        "unit": items[0]["unit"],
        "higher_is_better": items[0]["higher_is_better"],
        "rows": rows,
        "height": len(items) * ROW,
        "zero": place(0.0),
        "worst": None if worst is None else place(worst),
        "margin": margin,
        "ticks": ticks,
    }


def _series(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The means of every score over the comparisons of the history, a line a method."""
    keys: dict[tuple[str, str], dict[str, list[tuple[int, Mapping[str, Any]]]]] = {}
    for index, line in enumerate(history):
        for mean in line["means"]:
            keys.setdefault((mean["split"], mean["score"]), {}).setdefault(mean["label"], []).append((index, mean))
    found = []
    height = 180.0
    for (split, score), lines in keys.items():
        values = [
            value
            for points in lines.values()
            for _, mean in points
            for value in (mean["mean"], mean["ci_low"], mean["ci_high"])
            if value is not None
        ]
        place, ticks = _scale(min(values), max(values), height)
        step = WIDTH / max(1, len(history))
        drawn = []
        for position, (label, points) in enumerate(lines.items()):
            # Lines of one comparison stand side by side, not on top of one another.
            shift = (position - (len(lines) - 1) / 2) * min(10.0, step / (len(lines) + 1))
            drawn.append(
                {
                    "label": label,
                    "number": position % 4,
                    "points": [
                        {
                            "x": (index + 0.5) * step + shift,
                            "y": height - place(mean["mean"]),
                            "low": None if mean["ci_low"] is None else height - place(mean["ci_low"]),
                            "high": None if mean["ci_high"] is None else height - place(mean["ci_high"]),
                            "mean": mean,
                            "time": history[index]["time"],
                        }
                        for index, mean in points
                    ],
                }
            )
        found.append(
            {
                "split": split,
                "score": score,
                "lines": drawn,
                "height": height,
                "ticks": [(label, height - at) for label, at in ticks],
                "times": [
                    (str(line["time"])[:16].replace("T", " "), (index + 0.5) * step)
                    for index, line in enumerate(history)
                    if len(history) <= 8 or index in (0, len(history) - 1)
                ],
                "failed": [(index + 0.5) * step for index, line in enumerate(history) if line["passed"] is False],
            }
        )
    return found


def _scale(low: float, high: float, length: float) -> tuple[Any, list[tuple[str, float]]]:
    """A linear scale over [0, length] with room at the ends, and ticks at round numbers."""
    import math

    if high - low < 1e-12:
        low, high = low - max(1e-6, abs(low) / 10), high + max(1e-6, abs(high) / 10)
    room = 0.08 * (high - low)
    low, high = low - room, high + room
    raw = (high - low) / NUM_TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(nice * power for nice in (1, 2, 5, 10) if nice * power >= raw)
    digits = max(0, -math.floor(math.log10(step)))

    def place(value: float) -> float:
        return length * (value - low) / (high - low)

    first = math.ceil(low / step)
    ticks = [(f"{index * step + 0.0:.{digits}f}", place(index * step)) for index in range(first, first + 12)]
    return place, [(label, at) for label, at in ticks if at <= length]
