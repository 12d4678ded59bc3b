"""Complaints: product and issue as the answer, companies as clients, what is missing."""

import csv

import pytest

from fedllm_data.build import build
from fedllm_data.sources.complaints import FED_COMPLAINTS
from tests.data.sources import alignment_files as files
from tests.data.sources.industry_files import complaint


@pytest.fixture
def read(tmp_path):
    def items(*records, **options):
        return files.read_all(FED_COMPLAINTS, files.write_lines(tmp_path / "rows.jsonl", records), **options)

    return items


def test_the_text_is_the_request_and_the_labels_are_the_answer(read):
    rows, rejected = read(complaint())
    assert rejected == {}
    assert rows[0].row["client_id"] == "ACME BANK"
    assert rows[0].row["messages"] == [
        {
            "role": "user",
            "content": "A consumer wrote this complaint about a financial company. Name the product and the issue."
            "\n\nThey charged XXXX twice.",
        },
        {
            "role": "assistant",
            "content": "Product: Credit card\nSub-product: Store credit card\nIssue: Billing dispute",
        },
    ]


def test_nothing_but_the_text_and_the_labels_is_in_a_row(read):
    row = str(read(complaint())[0][0].row)
    assert not any(word in row for word in ("750XX", "TX", "2023", "Consent", "Closed"))


def test_what_is_missing_is_named(read):
    _, rejected = read(
        complaint(""),
        complaint(narrative=None),
        complaint(narrative=" "),
        complaint(Product=None),
        complaint(Issue="nan"),
    )
    assert rejected == {
        1: ["Company: is missing or no name"],
        2: ["Consumer complaint narrative: must be text, got NoneType"],
        3: ["Consumer complaint narrative: is empty"],
        4: ["Product: is missing"],
        5: ["Issue: is missing"],
    }


def test_the_agency_s_own_csv_has_the_same_columns(tmp_path):
    with (tmp_path / "complaints.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(complaint()))
        writer.writeheader()
        writer.writerows([complaint(), complaint(narrative="")])
    rows, rejected = files.read_all(FED_COMPLAINTS, tmp_path)
    assert (len(rows), rejected) == (1, {3: ["Consumer complaint narrative: is empty"]})


def test_copies_of_one_letter_go_and_are_counted(tmp_path):
    letter = "I dispute this account under section 609 of the act and ask you to remove it from my report at once "
    records = [complaint(f"BANK {n}", f"{letter * 4} {n}", n) for n in range(4)]
    others = ("mortgage payment", "student loan", "stolen card", "closed account", "wire transfer", "credit score")
    records += [
        complaint("BANK 0", " ".join(f"{words} {place} {n}" for place in range(30)), 10 + n)
        for n, words in enumerate(others)
    ]
    path = files.write_lines(tmp_path / "rows.jsonl", records)
    result = build(FED_COMPLAINTS, tmp_path / "repo", source_path=path)
    assert result.facts["counts"]["num_near_duplicates_across_clients"] == 3
