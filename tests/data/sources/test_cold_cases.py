"""COLD Cases: a row an opinion, courts and jurisdictions, all opinions of a case in one split."""

import pytest

from fedllm_data.build import build
from fedllm_data.clients import load_clients
from fedllm_data.sources.cold_cases import FED_CASES
from tests.data.sources import alignment_files as files
from tests.data.sources.industry_files import case, opinion


@pytest.fixture
def read(tmp_path):
    def items(*records, **options):
        return files.read_all(FED_CASES, files.write_lines(tmp_path / "rows.jsonl", records), **options)

    return items


def test_a_row_is_an_opinion_to_the_name_of_the_case(read):
    rows, rejected = read(case())
    assert rejected == {}
    assert rows[0].row["client_id"] == "Supreme Court of Texas"
    assert rows[0].row["messages"] == [
        {
            "role": "user",
            "content": "Roe v. Doe\nSupreme Court of Texas, 1999-01-31\n\nWrite the opinion in this case.",
        },
        {"role": "assistant", "content": "The judgment is affirmed."},
    ]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("010combined", "the opinion"),
        ("015unamimous", "the unanimous opinion"),
        ("020lead", "the lead opinion"),
        ("030concurrence", "the concurring opinion"),
        ("035concurrenceinpart", "the opinion concurring in part"),
        ("040dissent", "the dissenting opinion"),
        ("090onmotiontostrike", "the opinion"),
        (None, "the opinion"),
        (7, "the opinion"),
    ],
)
def test_the_request_says_what_kind_of_opinion_it_is(read, kind, words):
    rows, _ = read(case(opinions=[opinion(kind=kind)]))
    assert rows[0].row["messages"][0]["content"].endswith(f"Write {words} in this case.")


def test_every_opinion_is_a_row_or_named(read):
    rows, rejected = read(case(opinions=[opinion(), opinion("I dissent.", "040dissent"), opinion(" "), None]))
    assert len(rows) == len({item.row["row_id"] for item in rows}) == 2
    assert rejected == {
        1: ["opinions: opinion_text: is empty", "opinions: an opinion must be a mapping, got NoneType"]
    }


def test_a_case_that_cannot_be_used_is_one_rejected(read):
    names = dict.fromkeys(("case_name", "case_name_full", "case_name_short"), "")
    _, rejected = read(
        case(opinions=[]),
        case(opinions="text"),
        case(court=None, court_short_name=None),
        case(**names),
    )
    assert rejected == {
        1: ["opinions: is no list, or empty"],
        2: ["opinions: is neither a list nor text in JSON"],
        3: ["court_full_name and court_short_name: are missing"],
        4: ["case_name and case_name_full and case_name_short: are missing"],
    }


def test_the_same_opinions_by_jurisdiction(read):
    rows, _ = read(case(), client="jurisdiction")
    assert rows[0].row["client_id"] == "Texas, TX"
    assert read(case())[0][0].row["messages"] == rows[0].row["messages"]


def test_all_opinions_of_a_case_lie_in_one_split(tmp_path):
    records = [
        case(f"Roe v. {n}", opinions=[opinion(f"We affirm {n}."), opinion(f"I dissent {n}.", "040dissent")], id=n)
        for n in range(24)
    ]
    path = files.write_lines(tmp_path / "rows.jsonl", records)
    build(FED_CASES, tmp_path / "repo", source_path=path)
    where: dict[str, set[str]] = {}
    for split in ("train", "test"):
        for rows in load_clients(tmp_path / "repo", split=split).values():
            for row in rows:
                where.setdefault(row["messages"][0]["content"].split("\n")[0], set()).add(split)
    assert len(where) == 24
    assert all(len(splits) == 1 for splits in where.values())
    assert {split for splits in where.values() for split in splits} == {"train", "test"}
