"""Figures that a report's content alone determines: all axes against chance, one axis in full, and the map of clients.

No client id appears in any. matplotlib, without pyplot and its global state.
"""

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedllm_data.reporting.null_scale import bend, headline_of, null_ruler
from fedllm_data.reporting.report_words import null_distance, telling, title_of
from fedllm_data.reporting.similarity import SimilarityMap
from fedllm_data.reporting.style import ACCENT, CHANCE, GRID, INK, MUTED, PAPER, drawable
from fedllm_data.wording.catalogue import marked, words

__all__ = ["plot_axis", "plot_overview", "plot_similarity"]

MAX_POINTS = 400
MAX_BARS = 8
UNIT = marked("distance from chance, in its standard deviations")


def plot_overview(axes: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Return the headline measure of every axis against its null, on one scale."""
    measures = [headline_of(axis) for axis in axes.values()]
    figure = Figure(figsize=(9, 1.1 + 0.42 * len(axes)), layout="constrained")
    panel = figure.subplots()
    beyond = [axis["verdict"] == "more than chance" for axis in axes.values()]
    _forest(panel, [drawable(name) for name in axes], measures, beyond)
    panel.set_title(words("How far the clients differ: headline measure of each axis"))
    return figure


def plot_axis(axis: Mapping[str, Any], columns: Mapping[str, Sequence[Any]]) -> Figure:
    """Return all measures of an axis against their null, beside what its first column says of the clients."""
    measures = list(axis["measures"].values())
    placed = [measure for measure in measures if null_distance(measure, measure["value"]) is not None]
    # What lies nowhere on the scale has its line in the page's table.
    measures = placed or measures
    shown = _column_shown(axis, columns)
    figure = Figure(figsize=(9, max(3.0, 1.1 + 0.42 * len(measures))), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=[1.15, 1]) if shown else [figure.subplots()]
    names = ["\n".join(textwrap.wrap(drawable(measure["title"], 60), 30)) for measure in measures]
    _forest(panels[0], names, measures, [(measure["p"] or 0.0) <= 0.05 for measure in measures])
    panels[0].set_title(words("Each measure against chance"))
    if shown:
        title, values = shown
        _clients(panels[1], title, values)
    return figure


def plot_similarity(similar: SimilarityMap) -> Figure:
    """Return the distances between the clients of a map."""
    figure = Figure(figsize=(6.4, 5.4), layout="constrained")
    panel = figure.subplots()
    size = len(similar.position_S)
    image = panel.imshow(similar.distance_SS, cmap="cividis", vmin=0, vmax=_furthest(similar), interpolation="nearest")
    bar = figure.colorbar(image, ax=panel, shrink=0.8)
    bar.set_label(words("distance (fraction), 0: alike in every column"))
    bar.outline.set_visible(False)
    panel.set(title=words("The {num} clients with the most rows", num=size), xticks=[], yticks=[])
    panel.set(xlabel=words("clients, in an order that puts like beside like"), ylabel=words("the same clients"))
    panel.spines[:].set_visible(False)
    return figure


def _furthest(similar: SimilarityMap) -> float:
    return max(0.1, float(similar.distance_SS.max()))


def _forest(panel: Any, names: list[str], measures: list[Any], beyond: list[bool]) -> None:
    """One line a measure: its interval, a filled dot beyond chance and a hollow one within."""
    ruler = null_ruler(measures)
    panel.axvspan(bend(-2), bend(2), color=CHANCE, alpha=0.45, linewidth=0)
    panel.axvline(0, color=MUTED, linewidth=0.8)
    for y, (measure, is_beyond) in enumerate(zip(measures, beyond, strict=True)):
        distance = null_distance(measure, measure["value"])
        if distance is None:
            reason = words("not enough data") if measure["value"] is None else words("chance has no spread")
            panel.text(bend(2) + 0.12, y, reason, va="center", color=MUTED, fontsize=9)
            continue
        ends = [null_distance(measure, measure[end]) for end in ("low", "high")]
        if None not in ends:
            panel.plot([bend(end) for end in ends if end is not None], [y, y], color=ACCENT, linewidth=2)
        face = ACCENT if is_beyond else PAPER
        panel.plot(bend(distance), y, "o", markersize=7, markerfacecolor=face, markeredgecolor=ACCENT)
    panel.set(xlim=(bend(ruler.low), bend(ruler.high)), ylim=(len(names) - 0.4, -0.6), xlabel=words(UNIT))
    panel.set_yticks(range(len(names)), names)
    ticks = [tick for tick, _ in ruler.ticks()]
    panel.set_xticks([bend(tick) for tick in ticks], [f"{tick:,}".replace("-", "−") for tick in ticks])
    panel.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
    panel.grid(axis="x", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines["left"].set_visible(False)


def _column_shown(axis: Mapping[str, Any], columns: Mapping[str, Sequence[Any]]) -> tuple[str, list[Any]] | None:
    """The first column of the axis with numbers, or else with words."""
    found = []
    for name in telling(axis.get("client_columns", [])):
        values = [value for value in columns.get(name, []) if value is not None]
        if len(values) > 1:
            found.append((any(isinstance(value, str) for value in values), title_of(name), values))
    return min(found, key=lambda entry: entry[0])[1:] if found else None


def _clients(panel: Any, title: str, values: list[Any]) -> None:
    if isinstance(values[0], str):
        common = Counter(values).most_common(MAX_BARS)
        panel.barh(range(len(common)), [number for _, number in common], color=ACCENT, height=0.6)
        panel.set_yticks(range(len(common)), [drawable(label, 24) for label, _ in common])
        panel.invert_yaxis()
        panel.set(title=words("Clients by {column}", column=drawable(title)), xlabel=words("clients"))
        return
    ordered = np.sort(np.array(values, np.float64))
    points = np.unique(np.linspace(0, len(ordered) - 1, min(len(ordered), MAX_POINTS)).round().astype(int))
    panel.axhline(float(np.median(ordered)), color=MUTED, linewidth=1.2, linestyle="--", label=words("median client"))
    panel.plot((points + 0.5) / len(ordered), ordered[points], ".", color=ACCENT, markersize=5, label=words("client"))
    panel.set(title=words("Clients: {column}", column=drawable(title, 32)), xlim=(0, 1))
    panel.set_xlabel(words("share of clients, lowest first"))
    panel.set_ylabel(drawable(title, 32))
    panel.yaxis.set_major_locator(MaxNLocator(integer=bool((ordered == ordered.round()).all())))
    panel.legend(loc="best", fontsize=8)
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
