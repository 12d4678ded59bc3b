"""A comparison in a table, in words, and as files: `comparison.json`, `.md` and `.html`, and its figures as SVG."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.in_place import write_file
from fedllm_data.markdown_table import markdown_table
from fedllm_eval.comparing.compared_methods import Method
from fedllm_eval.comparing.comparison_page import render_page
from fedllm_eval.comparing.paired_scores import paired_table
from fedllm_eval.comparing.trade_off_tables import trade_off_markdown
from fedllm_eval.reporting.table_section import markdown_text, number, signed
from fedllm_eval.running.folders import replace_folder
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.intervals import mean_interval
from fedllm_eval.texts import json_text, whole

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["FILES", "comparison_table", "means_of", "worst_served_of", "write_comparison"]

NUM_NAMED = 10
"""Clients that a comparison names as served worst."""
FILES = ("comparison.json", "comparison.md", "comparison.html", "figures")


def comparison_table(comparison: Mapping[str, Any]) -> "Table":
    """Return the comparison as a table for the terminal."""
    from rich.table import Table

    header, *rows = _cells(comparison)
    table = Table(title=f"against {comparison['baseline']['label']} on {comparison['dataset']['name']}")
    for position, name in enumerate(header):
        table.add_column(name, justify="left" if position < 3 else "right")
    for cells in rows:
        table.add_row(*cells)
    return table


def write_comparison(comparison: Mapping[str, Any], out: Path, language: str | None = None) -> None:
    """Write `comparison.json`, `.md`, `.html` and `figures/` into a folder; an earlier comparison goes in one step.

    Args:
        comparison: as `compare_results` gives it.
        out: the folder.
        language: of the page, `en` or `ja`; by default it carries both.

    Raises:
        ConfigError: if `out` is a file, or a folder that holds anything but an earlier comparison.
    """
    from fedllm_eval.comparing.front_plots import draw_fronts

    def fill(folder: Path) -> None:
        text = json_text(comparison, indent=2, allow_nan=False)
        (folder / "comparison.json").write_text(text + "\n", encoding="utf-8")
        trade = comparison["trade_offs"]
        figures = draw_fronts(trade)
        if figures:
            (folder / "figures").mkdir()
        for name, svg in figures.items():
            write_file(folder / "figures" / f"{name}.svg", svg, sync=False)
        page = render_page(comparison, language, _links(comparison, out), figures)
        (folder / "comparison.html").write_text(whole(page), encoding="utf-8")
        header, *rows = _cells(comparison)
        lines = [f"# Against {markdown_text(comparison['baseline']['label'])}", ""]
        lines += [markdown_text(comparison["summary"]), ""]
        lines += [comparison["gate"]["verdict"], ""] if comparison["gate"] else []
        lines += [f"- {markdown_text(item['verdict'])}" for item in comparison["comparisons"]]
        lines += [f"- {markdown_text(caveat)}." for caveat in comparison["caveats"]]
        lines += [f"- Not compared: {markdown_text(note)}." for note in comparison["notes"]]
        lines += ["", markdown_table(header, [[markdown_text(cell) for cell in cells] for cells in rows])]
        lines += trade_off_markdown(trade)
        (folder / "comparison.md").write_text(whole("\n".join(lines)) + "\n", encoding="utf-8")

    replace_folder(out, fill, FILES)


def _links(comparison: Mapping[str, Any], out: Path) -> dict[str, str]:
    """Folder of a run -> where its page lies, seen from the comparison's folder; only pages that exist."""
    links = {}
    for method in (comparison["baseline"], *comparison["others"]):
        for run in method["runs"]:
            page = Path(run["place"]) / "results.html"
            if page.is_file():
                links[run["place"]] = Path(os.path.relpath(page.resolve(), out.resolve())).as_posix()
    return links


def worst_served_of(methods: Sequence[Method], comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the ten clients that each method serves worst, the worst first, in the first score of each split.

    Returns:
        One item per method and split: `other`, `split`, `score`, `unit`, `higher_is_better`, `num_clients`, and
        `clients` with `client_id`, `before` (the baseline's score) and `now`, seeds averaged.
    """
    base, others = methods[0], {method.label: method for method in methods[1:]}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for item in comparisons:
        if (item["other"], item["split"]) in found:
            continue
        clients, a_SK, b_TK, _ = paired_table(base, others[item["other"]], item["split"], item["score"])
        before_K, now_K = a_SK.mean(axis=0).tolist(), b_TK.mean(axis=0).tolist()
        sign = 1 if item["higher_is_better"] else -1
        order = sorted(range(len(clients)), key=lambda k: (sign * now_K[k], clients[k]))[:NUM_NAMED]
        kept = ("other", "split", "score", "unit", "higher_is_better", "num_clients")
        found[item["other"], item["split"]] = {key: item[key] for key in kept} | {
            "clients": [{"client_id": clients[k], "before": before_K[k], "now": now_K[k]} for k in order]
        }
    return list(found.values())


def means_of(methods: Sequence[Method], comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return every method's mean over clients, seeds averaged, with its interval: what the history keeps."""
    base, others = methods[0], {method.label: method for method in methods[1:]}
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for item in comparisons:
        split, name = item["split"], item["score"]
        _, a_SK, b_TK, _ = paired_table(base, others[item["other"]], split, name)
        for label, scores in ((base.label, a_SK), (item["other"], b_TK)):
            interval = mean_interval(scores.mean(axis=0), bounds=SCORES[name].bounds)
            found[split, name, label] = {
                "split": split,
                "score": name,
                "label": label,
                "mean": interval.mean,
                "ci_low": interval.low,
                "ci_high": interval.high,
                "num_clients": interval.num_clients,
                "num_seeds": scores.shape[0],
            }
    return list(found.values())


def _number(value: float | None, form: str) -> str:
    return "n/a" if value is None or not math.isfinite(value) else format(value, form)


def _cells(comparison: Mapping[str, Any]) -> list[list[str]]:
    rows = [
        [
            "split",
            "score",
            "run",
            "mean",
            "difference [95 %]",
            "p (Holm)",
            "detectable",
            "better off",
            "clients",
            "seeds",
            "outcome",
        ]
    ]
    for item in comparison["comparisons"]:
        low, high = (item[key] for key in ("ci_low", "ci_high"))
        interval = "n/a" if low is None else f"[{signed(low)}, {signed(high)}]"
        rows.append(
            [
                item["split"],
                f"{item['score']} {'↑' if item['higher_is_better'] else '↓'}",
                item["other"],
                f"{number(item['baseline_mean'])} → {number(item['other_mean'])}",
                f"{signed(item['difference'])} {interval}",
                _number(item["p_holm"], ".2g"),
                _number(item["minimum_detectable"], ".2g"),
                f"{item['better_fraction']:.2f}",
                f"{item['num_clients']:,}",
                " / ".join(str(num) for num in item["num_seeds"]),
                item["outcome"],
            ]
        )
    return rows
