"""The figures of the quickstart's page, as SVG text in the style of the heterogeneity report. No client id in any."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from fedllm_data.reporting.style import ACCENT, CHANCE, GREEN, GRID, INK, MUTED, ORANGE, STYLE, svg_text
from fedllm_data.wording.catalogue import marked, words

__all__ = ["draw_before_after", "draw_curves", "draw_languages"]

COLOURS = {"base": CHANCE, "sft": ACCENT, "dpo": GREEN}
SPLIT_COLOURS = {"test": ACCENT, "unseen": ORANGE}
SPLIT_NAMES = {"test": marked("training"), "unseen": marked("unseen")}

Rounds = Sequence[Mapping[str, Any]]
Pairs = Mapping[str, Sequence[Mapping[str, Any]]]


def draw_curves(sft: Rounds, dpo: Rounds) -> str:
    """Return what the clients reported round by round: SFT loss, DPO reward margin and accuracy.

    Args:
        sft: the lines of the SFT run's rounds.jsonl.
        dpo: those of the DPO run.

    >>> visit = {"num_rows": 2, "train_loss": 1.0, "rewards/margins": 0.1, "rewards/accuracies": 0.5}
    >>> draw_curves([{"clients": [visit]}], [{"clients": [visit]}])[:4]
    '<svg'
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        loss, margin, accuracy = figure.subplots(1, 3)
        _curve(loss, sft, "train_loss", COLOURS["sft"])
        loss.set(title=words("SFT: loss"), ylabel=words("nats per token"))
        _curve(margin, dpo, "rewards/margins", COLOURS["dpo"])
        margin.axhline(0, color=CHANCE, linewidth=1.5)
        margin.set(title=words("DPO: reward margin"), ylabel=words("beta × nats"))
        _curve(accuracy, dpo, "rewards/accuracies", COLOURS["dpo"])
        accuracy.axhline(0.5, color=CHANCE, linewidth=1.5)
        accuracy.set(title=words("DPO: reward accuracy"), ylabel=words("share of pairs"), ylim=(-0.03, 1.03))
        for axes in (loss, margin, accuracy):
            axes.set_xlabel(words("round"))
            axes.xaxis.get_major_locator().set_params(integer=True)
            _grid(axes)
        return svg_text(figure, "curves")


def draw_before_after(loss: Pairs, preference: Pairs) -> str:
    """Return the plot with a point for each client: before on the horizontal, after on the vertical axis.

    Args:
        loss: split -> clients as `paired_clients` gives them, base against SFT.
        preference: the same for ranking accuracy, SFT against DPO.

    >>> pairs = {"test": [{"before": 1.0, "after": 0.5}]}
    >>> draw_before_after(pairs, pairs)[:4]
    '<svg'
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 4.9), layout="constrained")
        left, right = figure.subplots(1, 2)
        values = [client[when] for clients in loss.values() for client in clients for when in ("before", "after")]
        _diagonal(left, 0.0, 1.06 * max(values), better="below")
        left.set(title=words("Held-out loss of each client"), xlabel=words("base (nats per token)"))
        left.set_ylabel(words("after SFT"))
        _diagonal(right, -0.06, 1.06, better="above")
        right.set(title=words("Ranking accuracy of each client"), xlabel=words("after SFT (share of pairs)"))
        right.set_ylabel(words("after DPO"))
        for split, clients in loss.items():
            x, y = ([client[when] for client in clients] for when in ("before", "after"))
            left.scatter(
                x, y, s=16, color=SPLIT_COLOURS[split], alpha=0.55, linewidth=0, label=words(SPLIT_NAMES[split])
            )
        for split, clients in preference.items():
            # A client with few pairs can only score 0, 1/2, 1, ...: clients at one spot make one larger point.
            spots = Counter((client["before"], client["after"]) for client in clients)
            sizes = [16.0 * count for count in spots.values()]
            right.scatter(*zip(*spots, strict=True), s=sizes, color=SPLIT_COLOURS[split], alpha=0.45, linewidth=0)
        left.legend(loc="upper left", title=words("clients"), title_fontsize=9, fontsize=9, alignment="left")
        return svg_text(figure, "before-after")


def draw_languages(loss: Sequence[Mapping[str, Any]], preference: Sequence[Mapping[str, Any]]) -> str:
    """Return the scores before and after by the clients' main language, with 95 % intervals.

    Args:
        loss: as `languages` gives them, base against SFT.
        preference: the same for ranking accuracy, SFT against DPO.

    >>> from fedllm_eval.scoring.intervals import Interval
    >>> group = {"language": "en", "before": Interval(1.0, 0.9, 1.1, 9), "after": Interval(0.5, 0.4, 0.6, 9)}
    >>> draw_languages([group], [group])[:4]
    '<svg'
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.3 + 0.36 * max(len(loss), len(preference))), layout="constrained")
        left, right = figure.subplots(1, 2)
        _dumbbells(left, loss, ("base", "sft"))
        left.set(title=words("Held-out loss"), xlabel=words("nats per token"))
        bounds = [bound for group in loss for when in ("before", "after") for bound in _reach(group[when])]
        left.set_xlim(0, 1.04 * max(bounds))
        _dumbbells(right, preference, ("sft", "dpo"))
        right.axvline(0.5, color=CHANCE, linewidth=1, linestyle=":")
        right.set(title=words("Ranking accuracy"), xlabel=words("share of pairs (dotted: a coin)"), xlim=(-0.02, 1.02))
        return svg_text(figure, "languages")


def _curve(axes: Any, rounds: Rounds, name: str, colour: str) -> None:
    """A dot for each client's visit, a line for each round's mean weighted by rows."""
    visits = [(at, visit) for at, record in enumerate(rounds) for visit in record["clients"] if name in visit]
    if not visits:
        axes.text(0.5, 0.5, words("not recorded"), transform=axes.transAxes, ha="center", color=MUTED)
        return
    axes.plot(
        [at for at, _ in visits], [visit[name] for _, visit in visits], ".", color=colour, alpha=0.3, markersize=5,
        markeredgewidth=0,
    )  # fmt: skip
    at_R = sorted({at for at, _ in visits})
    means = []
    for at in at_R:
        values, weights = zip(
            *((visit[name], visit["num_rows"]) for round_at, visit in visits if round_at == at), strict=True
        )
        means.append(np.average(values, weights=weights))
    axes.plot(at_R, means, color=colour, linewidth=2.2, marker="o" if len(at_R) == 1 else None)


def _diagonal(axes: Any, low: float, high: float, *, better: str) -> None:
    edge = low if better == "below" else high
    axes.fill_between([low, high], [low, high], [edge, edge], color=GREEN, alpha=0.07, linewidth=0)
    axes.plot([low, high], [low, high], color=CHANCE, linewidth=1.5)
    axes.set(xlim=(low, high), ylim=(low, high), box_aspect=1)
    # Along the diagonal, where the fewest points lie that moved at all.
    at, va = ((0.87, 0.82), "top") if better == "below" else ((0.2, 0.25), "bottom")
    axes.text(
        *at, words("better off"), transform=axes.transAxes, rotation=45, ha="center", va=va, color=GREEN, fontsize=10
    )
    for axis in ("x", "y"):
        axes.grid(axis=axis, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _dumbbells(axes: Any, groups: Sequence[Mapping[str, Any]], policies: tuple[str, str]) -> None:
    names = [f"{group['language']} ({group['before'].num_clients})" for group in groups]
    y = np.arange(len(groups))[::-1]
    for offset, when, policy in ((0.13, "before", policies[0]), (-0.13, "after", policies[1])):
        colour = COLOURS[policy]
        for at, group in zip(y, groups, strict=True):
            interval = group[when]
            if np.isfinite(interval.low):
                axes.plot([interval.low, interval.high], [at + offset] * 2, color=colour, linewidth=2, alpha=0.5)
        label = {"base": words("base"), "sft": "SFT", "dpo": "DPO"}[policy]
        means = [group[when].mean for group in groups]
        axes.plot(means, y + offset, "o", color=colour, markersize=6, markeredgewidth=0, label=label)
    axes.set_yticks(y, names, color=INK)
    axes.set_ylim(-0.6, len(groups) - 0.4)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="lower left", bbox_to_anchor=(0.55, 0.99), ncols=2, fontsize=9, borderpad=0, handletextpad=0.2)


def _reach(interval: Any) -> list[float]:
    return [value for value in (interval.mean, interval.high) if np.isfinite(value)]


def _grid(axes: Any) -> None:
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
