"""The fronts as figures: score against cost with both intervals, in the style of the heterogeneity report.

A method has a marker of its own form beside its colour; filled is unbeaten, hollow is beaten. Bytes that span more
than a decade are on a logarithmic axis, on which what cost nothing stands at the left edge under a tick of its own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from fedllm_data.reporting.style import (
    ACCENT,
    CHANCE,
    GREEN,
    GRID,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    STYLE,
    drawable,
    drawing,
)
from fedllm_data.wording.catalogue import marked, words
from fedllm_data.wording.forms import bytes_text
from fedllm_data.wording.recorded import again
from fedllm_eval.comparing.front_words import COST_NAMES, figure_name
from fedllm_eval.comparing.trade_offs import drawn_fronts
from fedllm_eval.reporting.score_words import score_name

__all__ = ["draw_front", "draw_fronts"]

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h", "*")
COLOURS = (ACCENT, ORANGE, GREEN, INK, MUTED)
LOG_FROM = 10.0
"""Bytes whose largest is more than this many times their smallest are on a logarithmic axis."""


_TIMES = (
    (1.0, 1.0, marked("time (hours)")),
    (1 / 60, 60.0, marked("time (minutes)")),
    (0.0, 3600.0, marked("time (seconds)")),
)
"""From how many hours on, units in an hour, what the axis is called."""


def draw_fronts(trade: Mapping[str, Any] | None) -> dict[str, str]:
    """Return name -> SVG text of every front with two methods or more.

    Args:
        trade: as `trade_offs.trade_offs` gives it; None and one without fronts have no figures.

    >>> draw_fronts(None)
    {}
    """
    if trade is None:
        return {}
    return {figure_name(front): draw_front(front, trade["currency"]) for front in drawn_fronts(trade)}


def draw_front(front: Mapping[str, Any], currency: str = "") -> str:
    """Return a front as SVG text.

    Args:
        front: an item of `fronts.fronts_of` with two points or more.
        currency: of money.

    >>> point = {"label": "a", "mean": 1.0, "ci_low": None, "ci_high": None, "cost": 1.0, "cost_low": 1.0,
    ...          "cost_high": 1.0, "beaten_by": []}
    >>> front = {"split": "test", "cost": "hours", "score": "heldout_loss", "unit": "nats per token",
    ...          "higher_is_better": False, "points": [point, point | {"label": "b", "cost": 2.0}]}
    >>> draw_front(front)[:4]
    '<svg'
    """
    points = sorted(front["points"], key=lambda point: (point["cost"], point["label"]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.4 + 0.16 * max(0, len(points) - 8)), layout="constrained")
        axes: Any = figure.subplots()
        at, name = _cost_axis(axes, front["cost"], [point["cost"] for point in points])
        for position, point in enumerate(points):
            _draw_point(axes, point, position, at)
        _draw_edge(axes, front, points, at)
        axes.set_xlabel(f"{name} ({currency})" if front["cost"] == "money" and currency else name)
        message = (
            words("{score} ({unit}; higher is better)", score=score_name(front["score"]), unit=again(front["unit"]))
            if front["higher_is_better"]
            else words(
                "{score} ({unit}; lower is better)", score=score_name(front["score"]), unit=again(front["unit"])
            )
        )
        # In two lines, which is one sentence to the page that says it again in another language.
        axes.set_ylabel(message.replace(" (", "\n(", 1))
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9, handletextpad=0.3)
        return drawing(figure, figure_name(front))


def _cost_axis(axes: Any, cost: str, costs: Sequence[float]) -> tuple[Any, str]:
    """Set the horizontal axis; returns where a cost stands on it, and what it shows."""
    name = words(COST_NAMES[cost])
    if cost == "hours":
        axes.margins(x=0.08)
        factor, name = next((factor, words(name)) for most, factor, name in _TIMES if max(costs) >= most)
        return (lambda value: factor * value), name
    positive = [value for value in costs if value > 0]
    if cost != "bytes" or not positive or max(positive) <= LOG_FROM * min(positive):
        if cost == "bytes":
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_text(max(0.0, value))))
            axes.xaxis.get_major_locator().set_params(nbins=6)
        axes.margins(x=0.08)
        return (lambda value: value), name
    low, high = math.log10(min(positive)), math.log10(max(positive))
    decades = [float(power) for power in range(math.floor(low), math.ceil(high) + 1)]
    nothing = decades[0] - 0.7
    ticks, labels = list(decades), [bytes_text(10**power) for power in decades]
    if len(positive) < len(costs):
        ticks, labels = [nothing, *ticks], ["0", *labels]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    by_tick = dict(zip(ticks, labels, strict=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: by_tick.get(value, "")))
    axes.set_xlim(ticks[0] - 0.2, decades[-1] + 0.2)
    return (lambda value: math.log10(value) if value > 0 else nothing), name


def _draw_point(axes: Any, point: Mapping[str, Any], position: int, at: Any) -> None:
    colour = COLOURS[position % len(COLOURS)]
    x, y = at(point["cost"]), point["mean"]
    if point["ci_low"] is not None and math.isfinite(point["ci_low"]):
        axes.plot([x, x], [point["ci_low"], point["ci_high"]], color=colour, linewidth=1.6, alpha=0.6)
    if point["cost_low"] != point["cost_high"]:
        axes.plot([at(point["cost_low"]), at(point["cost_high"])], [y, y], color=colour, linewidth=1.6, alpha=0.6)
    axes.plot(
        [x],
        [y],
        marker=MARKERS[position % len(MARKERS)],
        color=colour,
        markerfacecolor=PAPER if point["beaten_by"] else colour,
        markersize=8,
        markeredgewidth=1.6,
        linestyle="none",
        label=drawable(point["label"], 28),
    )


def _draw_edge(axes: Any, front: Mapping[str, Any], points: Sequence[Mapping[str, Any]], at: Any) -> None:
    """A step along the best mean that each cost buys, among what nobody beats."""
    sign = 1 if front["higher_is_better"] else -1
    best, edge = -math.inf, []
    for point in points:
        if not point["beaten_by"] and sign * point["mean"] > best:
            best = sign * point["mean"]
            edge.append(point)
    if len(edge) > 1:
        axes.step(
            [at(point["cost"]) for point in edge],
            [point["mean"] for point in edge],
            where="post",
            color=CHANCE,
            linewidth=1.2,
            linestyle=(0, (4, 3)),
            zorder=0,
        )
