"""A Markdown table keeps its shape whatever its cells hold."""

import pytest

from fedllm_data.markdown_table import markdown_table


def cells_of(line):
    """Split a row as GitHub does: a backslash and what follows are one letter."""
    cells, at = [""], 0
    while at < len(line):
        length = 2 if line[at] == "\\" else 1
        if line[at] == "|":
            cells.append("")
        else:
            cells[-1] += line[at : at + length]
        at += length
    return [cell.strip() for cell in cells[1:-1]]


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("a|b", r"a\|b"),
        (r"a\|b", r"a\|b"),
        (r"a\\|b", r"a\\\|b"),
        ("a\r\nb\u2028c", "a b c"),
        ("||", r"\|\|"),
        ("", ""),
    ],
)
def test_no_cell_breaks_a_row(cell, shown):
    lines = markdown_table(["one", cell], [["left", cell], [cell, "right"]]).split("\n")
    assert [cells_of(line) for line in lines] == [["one", shown], ["---", "---"], ["left", shown], [shown, "right"]]


def test_a_table_without_rows_is_its_header():
    assert markdown_table(["a", "b"], []) == "| a | b |\n| --- | --- |"


def test_a_row_of_another_length_is_an_error():
    with pytest.raises(ValueError, match="a row of 1 cells in a table of 2 columns"):
        markdown_table(["a", "b"], [["x"]])
