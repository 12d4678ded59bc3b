"""Hansard: speeches by person, party and constituency, headings as the request, what is no speech."""

import csv

import pytest

from fedllm_data.errors import SourceError
from fedllm_data.sources.hansard import FED_HANSARD
from tests.data.sources import alignment_files as files
from tests.data.sources.industry_files import speech


@pytest.fixture
def read(tmp_path):
    def items(*records, **options):
        return files.read_all(FED_HANSARD, files.write_lines(tmp_path / "rows.jsonl", records), **options)

    return items


def test_a_row_is_a_speech_to_the_heading_of_its_debate(read):
    rows, rejected = read(speech())
    assert rejected == {}
    assert rows[0].row["client_id"] == "person/10001"
    assert rows[0].row["messages"] == [
        {
            "role": "user",
            "content": "House of Commons, 2015-03-02: Flood Defences, Cumbria\n\nGive your speech in this debate.",
        },
        {"role": "assistant", "content": "I beg to move."},
    ]


def test_the_same_speeches_at_three_levels(read):
    found = {kind: read(speech(), client=kind)[0][0].row for kind in ("person", "party", "constituency")}
    assert {kind: row["client_id"] for kind, row in found.items()} == {
        "person": "person/10001",
        "party": "Labour",
        "constituency": "Bootle",
    }
    assert len({str(row["messages"]) for row in found.values()}) == 1
    with pytest.raises(SourceError, match="option client is 'mp'"):
        read(speech(), client="mp")


def test_an_older_record_is_known_by_its_speakerid(read):
    rows, rejected = read(speech(""), speech("unknown", speakerid="unknown"), speech("", speakerid=""))
    assert [item.row["client_id"] for item in rows] == ["member/1"]
    assert rejected == {line: ["person_id and speakerid: are missing"] for line in (2, 3)}


def test_what_is_no_speech_and_what_lacks_a_heading_is_named(read):
    _, rejected = read(
        speech(speech_class="Division"),
        speech(words=" "),
        speech(date=""),
        speech(major_heading="", minor_heading="", oral_heading=""),
        speech(party=None, constituency=None),
    )
    assert rejected == {
        1: ["speech_class: 'Division' is no speech"],
        2: ["speech: is empty"],
        3: ["date: is missing or no date"],
        4: ["oral_heading, major_heading, minor_heading: all are missing, so nothing tells what the debate was about"],
    }


def test_a_heading_that_comes_twice_stands_once(read):
    rows, _ = read(speech(oral_heading="Flood Defences"))
    assert rows[0].row["messages"][0]["content"].startswith("House of Commons, 2015-03-02: Flood Defences, Cumbria\n")


def test_the_csv_of_the_original_release_is_read_too(tmp_path):
    record = {key: value for key, value in speech(words='He said "no",\nand sat.').items() if "posts" not in key}
    with (tmp_path / "hansard-speeches-v310.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(record))
        writer.writeheader()
        writer.writerow(record)
    files.write_lines(tmp_path / "parliamentary_posts.json", [{"mnis_id": 1}])
    rows, rejected = files.read_all(FED_HANSARD, tmp_path)
    assert rejected == {}
    assert rows[0].row["messages"][1]["content"] == 'He said "no",\nand sat.'
