"""The figures of the heterogeneity report, one an axis and two of all axes. matplotlib, without pyplot.

An axis with a plot of its own is drawn from the clients' profiles, any other from what the report says of it.
No client id appears in a figure. The same profiles give the same bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedllm_data.heterogeneity.axes import AXES
from fedllm_data.heterogeneity.axis import Axis
from fedllm_data.heterogeneity.length import bin_log_length, length_quantiles
from fedllm_data.heterogeneity.profile import ClientProfile, Stack, stack_profiles
from fedllm_data.heterogeneity.quantity import lorenz_curve
from fedllm_data.reporting.axis_plots import plot_axis, plot_overview, plot_similarity
from fedllm_data.reporting.similarity import SimilarityMap
from fedllm_data.reporting.style import ACCENT, CHANCE, GRID, MUTED, ORANGE, STYLE, Drawing, drawable, drawing
from fedllm_data.wording.catalogue import words

__all__ = ["PLOTS", "draw_figures"]

MAX_LABELS = 8
OTHER_COLOUR = "#d5d8df"
MAX_CLIENTS_SHOWN = 120
MAX_POINTS = 400
NUM_DRAWS_AVERAGED = 50


def draw_figures(
    document: Mapping[str, Any], similar: SimilarityMap | None, profiles: Sequence[ClientProfile] = ()
) -> dict[str, Drawing]:
    """Return the figure of every axis that has enough data, of all axes ("overview") and of clients ("similarity").

    Args:
        document: the content of heterogeneity.json.
        similar: what `similarity_map` returns of the document.
        profiles: those that the report was computed from, one per client; without them every axis is drawn from the
            report.

    >>> from fedllm_data.reporting.similarity import similarity_map
    >>> columns = {"client_id": ["a", "b", "c"], "num_rows": [1, 9, 2]}
    >>> document = {"clients": columns, "axes": {}}
    >>> list(draw_figures(document, similarity_map(document)))
    ['similarity']
    """
    figures = {}
    with matplotlib.rc_context(STYLE):
        if any(axis["verdict"] != "not enough data" for axis in document["axes"].values()):
            figures["overview"] = drawing(plot_overview(document["axes"]), "overview")
        for name, axis in document["axes"].items():
            if axis["verdict"] == "not enough data":
                continue
            known = AXES.get(name)
            if known and known.reading.plot and profiles:
                stack = stack_profiles(profiles, known.tables, known.min_rows)
                stack = replace(stack, min_client_rows=axis["facts"].get("min_client_rows", 1))
                figures[name] = drawing(PLOTS[known.reading.plot](known, stack), name)
            else:
                figures[name] = drawing(plot_axis(axis, document["clients"]), name)
        if similar:
            figures["similarity"] = drawing(plot_similarity(similar), "similarity")
    return figures


def _plot_sizes(axis: Axis, stack: Stack) -> Figure:
    """Who holds the rows, beside what chance gives, and how many rows each client has."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    table = axis.tables[0]
    sizes_K = np.sort(stack.tables[table].sizes_K)[::-1]
    num_clients = len(sizes_K)
    draw, rng = axis.null_sampler(stack), np.random.default_rng(0)
    draws = [np.sort(draw(rng).tables[table].sizes_K)[::-1] for _ in range(NUM_DRAWS_AVERAGED)]
    chance_K = np.mean(draws, axis=0)

    points = np.unique(np.linspace(0, num_clients, MAX_POINTS).round().astype(int))
    x = points / num_clients
    left.fill_between(x, lorenz_curve(sizes_K)[points], x, color=ACCENT, alpha=0.12, linewidth=0)
    left.plot(x, x, color=GRID, linewidth=1.5)
    left.plot(x, lorenz_curve(chance_K)[points], color=MUTED, linewidth=1.8, linestyle="--", label=words("by chance"))
    left.plot(x, lorenz_curve(sizes_K)[points], color=ACCENT, linewidth=2.5, label=words("these clients"))
    left.set(title=words("Who holds the rows"), xlabel=words("share of clients, smallest first"))
    left.set_ylabel(words("share of rows"))
    left.set(xlim=(0, 1), ylim=(0, 1))
    left.legend(loc="upper left")

    shown = points[:-1]
    right.plot(shown + 1, chance_K[shown], color=MUTED, linewidth=1.8, linestyle="--")
    right.fill_between(shown + 1, sizes_K[shown], 0.5, step="mid", color=ACCENT, alpha=0.25, linewidth=0)
    right.plot(shown + 1, sizes_K[shown], color=ACCENT, linewidth=2, drawstyle="steps-mid")
    right.set(title=words("Rows of each client"), xlabel=words("clients, largest first"), ylabel=words("rows"))
    right.set_yscale("log")
    right.set_ylim(bottom=max(0.5, float(sizes_K.min()) / 2))
    _plain_log_ticks(right.yaxis, float(sizes_K.min()), float(sizes_K.max()))
    _grid(left, right)
    return figure


def _plot_mix(axis: Axis, stack: Stack) -> Figure:
    """The share of every label (a language, a cluster) in the rows of all and of each client."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    pool_axes, clients_axes = figure.subplots(1, 2, width_ratios=[1, 14], sharey=True)
    label = axis.tables[0]
    table = stack.tables[label]
    order_L = np.argsort(-table.counts_KL.sum(axis=0), kind="stable")
    shown_L, rest_L = order_L[:MAX_LABELS], order_L[MAX_LABELS:]
    counts_KL = np.column_stack([table.counts_KL[:, shown_L], table.counts_KL[:, rest_L].sum(axis=1)])
    names = [*(drawable(table.labels[column], 12) for column in shown_L), words("{num} others", num=len(rest_L))]
    # From dark to light in the order of the legend, so that print without colour can be read.
    shades = matplotlib.colormaps["viridis"](np.linspace(0.05, 0.95, max(2, len(shown_L))))
    colours = [*shades[: len(shown_L)], OTHER_COLOUR]

    p_KL = counts_KL / counts_KL.sum(axis=1, keepdims=True)
    main_K = p_KL.argmax(axis=1)
    order_K = np.lexsort((-p_KL[np.arange(len(main_K)), main_K], main_K))
    p_KL = p_KL[_spaced(order_K)]
    pool_1L = counts_KL.sum(axis=0, keepdims=True) / counts_KL.sum()
    handles = []
    for axes, p in ((pool_axes, pool_1L), (clients_axes, p_KL)):
        edges, bottom = np.arange(len(p) + 1) - 0.5, np.zeros(len(p) + 1)
        for column, colour in enumerate(colours):
            top = bottom + np.append(p[:, column], p[-1, column])
            # One path a language, with steps at the columns' borders: a rectangle a cell makes a far larger file.
            handles.append(axes.fill_between(edges, bottom, top, step="post", color=colour, linewidth=0))
            bottom = top
        axes.set(xlim=(-0.5, len(p) - 0.5), ylim=(0, 1), xticks=[])
    pool_axes.set(title=words("All"), ylabel=words("share of rows"))
    if len(p_KL) == stack.num_clients:
        order = words("each column is a client, ordered by main {label}", label=label)
    else:
        order = words("{num} of them shown, ordered by main {label}", num=len(p_KL), label=label)
    clients_axes.set(title=words("{num} clients", num=f"{stack.num_clients:,}"), xlabel=order)
    num_entries = len(names) if len(rest_L) else len(names) - 1
    clients_axes.legend(
        handles[:num_entries], names[:num_entries], loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=1
    )
    return figure


def _plot_lengths(axis: Axis, stack: Stack) -> Figure:
    """The middle and the spread of each client's lengths, a panel a table."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name, colour in zip(panels, axis.tables, (ACCENT, ORANGE), strict=True):
        table = stack.tables[name]
        log_L = bin_log_length(table.labels)
        low_K, median_K, high_K = (length_quantiles(table.counts_KL, log_L, fraction) for fraction in (0.1, 0.5, 0.9))
        pool_1L = table.counts_KL.sum(axis=0, keepdims=True)
        pool_low, pool_median, pool_high = (
            float(length_quantiles(pool_1L, log_L, fraction)[0]) for fraction in (0.1, 0.5, 0.9)
        )
        order_K = _spaced(np.lexsort((high_K, median_K)))
        x = np.arange(len(order_K))
        axes.axhspan(pool_low, pool_high, color=CHANCE, alpha=0.25, linewidth=0, label=words("all rows: middle 80 %"))
        axes.axhline(pool_median, color=CHANCE, linewidth=1.5)
        axes.vlines(
            x, low_K[order_K], high_K[order_K], color=colour, alpha=0.35, linewidth=2, label=words("client: 80 %")
        )
        axes.plot(x, median_K[order_K], ".", color=colour, markersize=4.5, label=words("client: median"))
        if len(order_K) == stack.num_clients:
            order = words("clients, ordered by median")
        else:
            order = words(
                "{num} of {total} clients, ordered by median", num=len(order_K), total=f"{stack.num_clients:,}"
            )
        axes.set(title=name.replace("_", " ").capitalize(), xlabel=order, xticks=[], yscale="log")
        axes.legend(loc="upper left", ncols=1, fontsize=8)
    shortest, longest = panels[0].get_ylim()
    panels[0].set(ylabel=words("tokens"), ylim=(shortest, longest**1.12))
    _plain_log_ticks(panels[0].yaxis, shortest, longest)
    _grid(*panels)
    return figure


def _spaced(order_K: NDArray[Any]) -> NDArray[Any]:
    """Return as many clients as a figure can show, evenly spaced in the order."""
    if len(order_K) <= MAX_CLIENTS_SHOWN:
        return order_K
    return np.asarray(order_K[np.linspace(0, len(order_K) - 1, MAX_CLIENTS_SHOWN).round().astype(int)])


def _plain_log_ticks(axis: Any, low: float, high: float) -> None:
    """Label a log axis with 1, 10, 100, ... or 1, 2, 5, 10, ... in plain digits."""
    steps = (1, 2, 5) if high < 50 * max(low, 0.5) else (1,)
    ticks = [step * 10**power for power in range(8) for step in steps if low <= step * 10**power <= high]
    axis.set_ticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.set_ticks([], minor=True)


def _grid(*panels: Any) -> None:
    for axes in panels:
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)


PLOTS: dict[str, Callable[[Axis, Stack], Figure]] = {
    "sizes": _plot_sizes,
    "mix": _plot_mix,
    "lengths": _plot_lengths,
}
"""`Reading.plot` -> how the tables of such an axis are drawn."""
