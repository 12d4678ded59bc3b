"""The figures of docs/example_privacy.md are the accountant's."""

from pathlib import Path

import pytest

from fedllm_train.privacy.row_accounting import person_epsilon

PAGE = Path(__file__).parents[2] / "docs" / "example_privacy.md"


def rows():
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.read_text().splitlines()]
    return [line for line in cells if len(line) == 5 and line[0].replace(",", "").isdigit()]


def number(text):
    return float(text.replace(",", ""))


def test_the_page_has_a_table():
    assert len(rows()) == 6


@pytest.mark.parametrize("line", rows(), ids="-".join)
def test_a_line_is_what_the_accountant_says(line):
    num_rows, z = int(number(line[0])), number(line[1])
    for text, own in zip(line[2:], (1, 8, num_rows), strict=True):
        epsilon = person_epsilon(z, 16 / num_rows, 200, 1e-5, num_rows=own)
        assert number(f"{epsilon:.3g}") == number(text)
