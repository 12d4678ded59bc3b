"""Kokkai: speeches, pages and meetings of the API, who is nobody, the mark before a speech, Japanese kept as it is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedllm_data.build import build
from fedllm_data.check import check_repo
from fedllm_data.clients import load_clients
from fedllm_data.errors import SourceError
from fedllm_data.sources.kokkai import FED_KOKKAI
from tests.data.sources import alignment_files as files
from tests.data.sources import fuzzing


def speech(speaker="山田太郎", words="○山田太郎君　おはようございます。\r\n以上です。", **changes):
    fields = {
        "speechID": "120405254X00120210118_001",
        "issueID": "120405254X00120210118",
        "imageKind": "会議録",
        "searchObject": 1,
        "session": 204,
        "nameOfHouse": "衆議院",
        "nameOfMeeting": "本会議",
        "issue": "第1号",
        "date": "2021-01-18",
        "closing": None,
        "speechOrder": 1,
        "speaker": speaker,
        "speakerYomi": "やまだたろう",
        "speakerGroup": "無所属",
        "speakerPosition": None,
        "speakerRole": None,
        "speech": words,
        "startPage": 1,
        "speechURL": "https://kokkai.ndl.go.jp/txt/x",
        "meetingURL": "https://kokkai.ndl.go.jp/txt/y",
        "pdfURL": "https://kokkai.ndl.go.jp/img/z",
    }
    return {**fields, **changes}


@pytest.fixture
def read(tmp_path):
    def items(*records, **options):
        return files.read_all(FED_KOKKAI, files.write_lines(tmp_path / "rows.jsonl", records), **options)

    return items


def test_a_row_is_a_speech_without_the_name_before_it(read):
    rows, rejected = read(speech())
    assert rejected == {}
    row = rows[0].row
    assert (row["client_id"], row["language"]) == ("山田太郎", "ja")
    assert row["messages"] == [
        {"role": "user", "content": "2021-01-18 衆議院 本会議 第1号\n\nこの会議で発言してください。"},
        {"role": "assistant", "content": "おはようございます。\n以上です。"},
    ]


def test_pages_and_meetings_hold_the_speeches_that_a_file_of_speeches_holds(tmp_path, read):
    speeches = [speech(), speech("鈴木花子", "○鈴木花子君　はい。", speechID="b")]
    alone, _ = read(*speeches)
    page = {"numberOfRecords": 2, "numberOfReturn": 2, "startRecord": 1, "speechRecord": speeches}
    common = ("issueID", "nameOfHouse", "nameOfMeeting", "issue", "date")
    within = [{name: value for name, value in each.items() if name not in common} for each in speeches]
    meeting = {**{name: speeches[0][name] for name in common}, "speechRecord": within}
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "page.json").write_text(json.dumps(page), encoding="utf-8")
    for rows, rejected in (
        read(page),
        read(meeting),
        files.read_all(FED_KOKKAI, tmp_path / "one"),
    ):
        assert rejected == {}
        assert [item.row for item in rows] == [item.row for item in alone]


def test_the_same_speeches_by_speaker_group_and_house(read):
    found = {kind: read(speech(), client=kind)[0][0].row for kind in ("speaker", "group", "house")}
    assert [row["client_id"] for row in found.values()] == ["山田太郎", "無所属", "衆議院"]
    assert len({str(row["messages"]) for row in found.values()}) == 1
    assert read(speech(speakerGroup=None), client="group") == ([], {1: ["speakerGroup: is missing"]})


def test_what_is_no_speech_is_named(read):
    _, rejected = read(
        speech("会議録情報"),
        speech(None),
        speech(words=" "),
        speech(words="○山田太郎君　"),
        speech(date=None),
        {"speechRecord": []},
        {"speechRecord": [speech(words=None), "text"]},
    )
    assert rejected == {
        1: ["speaker: 会議録情報 is the list of those present and no speech"],
        2: ["speaker: is missing"],
        3: ["speech: is empty"],
        4: ["speech: holds the speaker's name alone"],
        5: ["date: is missing"],
        6: ["speechRecord: is no list, or empty"],
        7: ["speech: must be text, got NoneType", "a speech must be a mapping, got str"],
    }


def test_it_is_read_from_files_alone():
    with pytest.raises(SourceError, match=r"get speeches by the API described at https://kokkai[.]ndl[.]go[.]jp"):
        list(FED_KOKKAI.read(None, 0, {}))


def test_a_corpus_builds_and_its_japanese_comes_out_as_it_went_in(tmp_path):
    words = "髙橋さんの①号、𠮷野家—「はい」。"
    records = [
        speech(f"議員{n % 3}", f"○議員{n % 3}君　{words}{n}", speechID=str(n), issue=f"第{n}号") for n in range(24)
    ]
    path = files.write_lines(tmp_path / "rows.jsonl", records)
    result = build(FED_KOKKAI, tmp_path / "repo", source_path=path)
    assert check_repo(tmp_path / "repo") == []
    assert sum(result.num_rows.values()) == 24
    assert result.facts["clients"]["num_rows_by_language"] == {"ja": 24}
    said = [row["messages"][1]["content"] for rows in load_clients(tmp_path / "repo").values() for row in rows]
    assert said
    assert all(text.startswith(words) for text in said)


RECORDS = st.builds(speech, st.sampled_from(["山田太郎", "会議録情報", "", None, "\ud800"]), fuzzing.TEXTS)


@fuzzing.READ
@given(records=st.lists(fuzzing.faulty(RECORDS), max_size=5))
def test_no_record_is_lost_and_none_is_too_odd_to_read(tmp_path_factory, records):
    path = fuzzing.write_records(tmp_path_factory.mktemp("kokkai"), records)
    items = list(FED_KOKKAI.read(path, 0, {}))
    assert {item.line for item in items} == set(range(1, len(records) + 1))
    assert len(items) == len(records)


@fuzzing.BUILD
@given(records=st.lists(fuzzing.faulty(RECORDS), min_size=1, max_size=8), unfiltered=st.booleans())
def test_odd_records_never_make_an_unsound_repo(tmp_path_factory, records, unfiltered):
    place = tmp_path_factory.mktemp("kokkai")
    path = fuzzing.write_records(place, records)
    files.assert_builds_or_says_why_not(FED_KOKKAI, path, place / "repo", {}, unfiltered)
