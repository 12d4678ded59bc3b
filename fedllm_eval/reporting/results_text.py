"""The scores of an evaluation as text: a Markdown document, and a table for the terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedllm_data.markdown_table import markdown_table
from fedllm_eval.reporting.all_sections import markdown_sections
from fedllm_eval.reporting.table_section import NO_ROUNDING, all_notes, markdown_text
from fedllm_eval.scoring.spread import num_worst

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["LEGEND", "results_markdown", "results_table"]

LEGEND = (
    "Mean over clients with its 95 % interval (clients as the unit); pooled: over all rows or tokens; worst decile: "
    "mean of the tenth of the clients served worst, and how many those are."
)


def results_markdown(summary: Mapping[str, Any]) -> str:
    """Return the content of `results.json` as a Markdown document."""
    policy, reference = summary["policy"]["name"], summary["reference"]
    lines = [f"# Scores of {markdown_text(policy)}", ""]
    if reference is not None:
        against, beta = markdown_text(reference["name"]), summary["settings"]["beta"]
        lines += [f"Implicit rewards against {against}, beta {beta:g}.", ""]
    header, *rows = _cells(summary)
    lines += [markdown_table(header, rows), "", LEGEND, ""]
    lines += [f"- {markdown_text(f'{where}: {note}.')}" for where, note in all_notes(summary)]
    lines += ["", *markdown_sections(summary)]
    return "\n".join(lines).rstrip() + "\n"


def results_table(summary: Mapping[str, Any]) -> "Table":
    """Return the content of `results.json` as a table for the terminal."""
    from rich.table import Table

    header, *rows = _cells(summary)
    table = Table(title=f"{summary['policy']['name']} on {summary['dataset']['name']}")
    for position, name in enumerate(header):
        table.add_column(name, justify="left" if position < 2 else "right")
    for cells in rows:
        table.add_row(*cells)
    return table


def _cells(summary: Mapping[str, Any]) -> list[list[str]]:
    """Header and rows of the printed table."""
    rows = [["split", "score", "mean [95 %]", "pooled [95 %]", "worst decile", "std", "clients", "items", "unit"]]
    for split, part in summary["splits"].items():
        for name, score in part["scores"].items():
            rows.append(
                [
                    split,
                    f"{name} {'↑' if score['higher_is_better'] else '↓'}",
                    _with_interval(score["mean"], score["ci_low"], score["ci_high"]),
                    _with_interval(score["weighted_mean"], score["weighted_ci_low"], score["weighted_ci_high"]),
                    f"{_number(score['worst_decile'])} ({_people(num_worst(score['num_clients']))})",
                    _number(score["std"]),
                    f"{score['num_clients']:,}",
                    f"{score['num_items']:,} {'tokens' if score['weighted_by'] == 'tokens' else 'rows'}",
                    score["unit"],
                ]
            )
    return rows


def _with_interval(mean: float | None, low: float | None, high: float | None) -> str:
    return f"{_number(mean)} [{_number(low)}, {_number(high)}]"


def _people(num_clients: int) -> str:
    return f"{num_clients:,} client{'s' * (num_clients != 1)}"


def _number(value: float | None) -> str:
    if value is not None and NO_ROUNDING <= abs(value) < 0.5e-4:
        return f"{value:.1e}"
    return "n/a" if value is None else f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"
