"""The tables of an evaluation, once for terminal, Markdown and page."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fedllm_data.markdown_table import markdown_table
from fedllm_eval.reporting.client_sections import (
    gains_section,
    languages_section,
    scores_section,
    spread_section,
    transfer_section,
    worst_served_section,
)
from fedllm_eval.reporting.left_behind_section import left_behind_section
from fedllm_eval.reporting.run_sections import audit_section, changes_section, cost_section, suites_section
from fedllm_eval.reporting.table_section import Cell, Section, markdown_text

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["markdown_lines", "markdown_sections", "sections", "terminal_table", "terminal_tables"]


def sections(summary: Mapping[str, Any]) -> list[Section]:
    """Return the tables that a summary has content for, the scores first.

    >>> sections({"policy": {}, "splits": {}})
    []
    """
    makers: tuple[Callable[[Mapping[str, Any]], Section | None], ...] = (
        *(scores_section, worst_served_section, spread_section, gains_section, languages_section, transfer_section),
        *(suites_section, changes_section, cost_section),
        *(left_behind_section, audit_section),
    )
    return [section for maker in makers if (section := maker(summary)) is not None and section.rows]


def markdown_sections(summary: Mapping[str, Any]) -> list[str]:
    """Return the lines of all tables but the policy's own scores, which stand in a table of their own."""
    lines: list[str] = []
    for section in sections(summary):
        if section.anchor == "spread" or (section.anchor == "scores" and not summary.get("policies")):
            continue
        lines += markdown_lines(section)
    return lines


def markdown_lines(section: Section) -> list[str]:
    """Return the lines of one table with its title and notes.

    >>> markdown_lines(Section("a", "Title", "What?", ("x",), ((("1", "0 to 2"),),)))[:3]
    ['## Title', '', 'What?']
    """
    rows = [[markdown_text(_plain(cell)) for cell in row] for row in section.rows]
    lines = [f"## {markdown_text(section.title)}", "", markdown_text(section.question), ""]
    lines += markdown_table(section.header, rows).split("\n")
    return [*lines, "", *(f"- {markdown_text(note)}" for note in section.notes)] + [""] * bool(section.notes)


def terminal_tables(summary: Mapping[str, Any]) -> "list[tuple[Table, tuple[str, ...]]]":
    """Return the same tables for the terminal, each with its notes."""
    return [
        (terminal_table(section), section.notes)
        for section in sections(summary)
        if not (section.anchor == "spread" or (section.anchor == "scores" and not summary.get("policies")))
    ]


def terminal_table(section: Section) -> "Table":
    """Return one table for the terminal.

    >>> terminal_table(Section("a", "Title", "What?", ("x",), ((("1", ""),),))).row_count
    1
    """
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(section.title))
    for position, name in enumerate(section.header):
        table.add_column(escape(name), justify="left" if position < section.num_text else "right")
    for row in section.rows:
        table.add_row(*(escape(_plain(cell)) for cell in row))
    return table


def _plain(cell: Cell) -> str:
    if not cell[1]:
        return cell[0]
    return f"{cell[0]} [{cell[1]}]" if " to " in cell[1] else f"{cell[0]} ({cell[1]})"
