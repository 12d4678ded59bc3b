"""MQM marks to pairs: penalties, the language pair, marks taken out, and what makes no pair."""

import csv
import json
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedllm_data.build import build
from fedllm_data.check import check_repo
from fedllm_data.errors import SourceError
from fedllm_data.source import Rejected, SourceRow
from fedllm_data.sources import mqm
from fedllm_data.sources.mqm import FED_MQM
from tests.data.sources.fuzzing import builds_soundly, fuzz

COLUMNS = ("system", "doc", "doc_id", "seg_id", "rater", "source", "target", "category", "severity")


def mark(system, rater="rater1", segment="1", category="No-error", severity="No-error", **changes):
    fields = {"system": system, "doc": "talk", "doc_id": "1", "seg_id": segment, "rater": rater}
    target = changes.pop("target", f"translation by {system} of {segment}")
    return {**fields, "source": f"source {segment}", "target": target, "category": category} | {
        "severity": severity,
        **changes,
    }


def write(path, marks):
    lines = ["\t".join(COLUMNS), *("\t".join(fields[name] for name in COLUMNS) for fields in marks)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def read(tmp_path):
    def items(marks, file="mqm_ted_zhen.tsv", **options):
        found = list(FED_MQM.read(write(tmp_path / file, marks), 0, options))
        rows = [item.row for item in found if isinstance(item, SourceRow)]
        return rows, {item.line: item.reason for item in found if isinstance(item, Rejected)}

    return items


def test_penalties_add_up_and_the_lower_one_is_chosen(read):
    rows, rejected = read(
        [
            mark("A", category="Accuracy/Omission", severity="Major"),  # 5
            mark("B", category="Fluency/Grammar", severity="Minor"),  # 1
            mark("B", category="Fluency/Punctuation", severity="Minor"),  # + 0.1 = 1.1
            mark("C"),  # 0
            mark("D", category="Non-translation!", severity="Major"),  # 25
            mark("E", category="Fluency/Punctuation", severity="Major"),  # 5, as A
        ]
    )
    # C < B < A = E < D: C(5, 2) = 10 pairs less the tie of A and E
    assert {(row["chosen_model"], row["rejected_model"]) for row in rows} == {
        *(("C", other) for other in "BAED"),
        *(("B", other) for other in "AED"),
        ("A", "D"),
        ("E", "D"),
    }
    assert rejected == {}
    assert len({row["row_id"] for row in rows}) == 9


def test_a_row_asks_for_the_translation_and_holds_no_marks(read):
    rows, _ = read(
        [
            mark("A", source="太<v>阳</v>", target="The <v>sun", severity="Major", category="Accuracy/Mistranslation"),
            mark("B", source="太阳", target='"The Sun," he said'),
        ]
    )
    (row,) = rows
    assert row["prompt"] == [
        {"role": "user", "content": "Translate the following text from Chinese into English.\n\n太阳"}
    ]
    assert row["chosen"] == [{"role": "assistant", "content": '"The Sun," he said'}]
    assert row["rejected"] == [{"role": "assistant", "content": "The sun"}]
    assert (row["client_id"], row["language"]) == ("ted_zhen:rater1", "zh")


def test_only_one_raters_judgments_of_one_segment_are_compared(read):
    worse = {"category": "Style/Awkward", "severity": "Minor"}
    rows, rejected = read(
        [mark("A"), mark("B", **worse), mark("C", rater="rater2", **worse), mark("A", segment="2", **worse)]
    )
    assert [(row["client_id"], row["chosen_model"], row["rejected_model"]) for row in rows] == [
        ("ted_zhen:rater1", "A", "B")
    ]
    reason = "the rater judged no other translation of this segment"
    assert rejected == {4: reason, 5: reason}


def test_judgments_that_all_weigh_the_same_are_listed_with_every_mark(read):
    minor = {"category": "Style/Awkward", "severity": "Minor"}
    punctuation = {"category": "Fluency/Punctuation", "severity": "Minor"}
    # 10 x 0.1 = 1 = 1 x 1, exactly: the sums are in tenths
    rows, rejected = read([mark("A", **minor), *(mark("B", **punctuation) for _ in range(10))])
    assert rows == []
    assert rejected == dict.fromkeys(range(2, 13), "the rater gave every translation of this segment the same penalty")


def test_a_mark_without_a_weight_spoils_its_judgment_and_no_other(read):
    rows, rejected = read(
        [
            mark("A"),
            mark("B", severity="Major"),
            mark("C", severity="HOTW-test"),
            mark("C", severity="Major"),
            mark("D", target=" <v></v> "),
        ]
    )
    assert [(row["chosen_model"], row["rejected_model"]) for row in rows] == [("A", "B")]
    assert rejected == {
        4: "severity: 'HOTW-test' has no weight",
        5: "another mark on the same translation cannot be used",
        6: "target: is empty",
    }


def test_broken_records_are_listed_and_the_rest_is_read(read, tmp_path):
    rows, rejected = read([mark("A"), mark("B", severity="Major"), mark(" "), mark("C", rater="")])
    assert len(rows) == 1
    assert rejected == {4: "system: is empty", 5: "rater: is empty"}
    path = tmp_path / "mqm_ted_zhen.jsonl"
    path.write_text(json.dumps({"system": "A"}) + "\n" + json.dumps({**mark("A"), "doc": 3}))
    assert [item.reason for item in FED_MQM.read(path, 0, {})] == [
        "doc: the column is missing",
        "doc: must be text, got int",
    ]


def test_the_language_pair_is_the_end_of_the_files_name_or_an_option(read):
    marks = [mark("A"), mark("B", severity="Major")]
    assert read(marks, "mqm-generalMT2022_en-ru.tsv")[0][0]["prompt"][0]["content"].startswith(
        "Translate the following text from English into Russian."
    )
    rows, rejected = read(marks, "ratings.tsv")
    assert rows == []
    assert "name it with --set pair=zhen" in rejected[2]
    (row,) = read(marks, "ratings.tsv", pair="ende")[0]
    assert (row["client_id"], row["language"]) == ("ratings:rater1", "en")
    with pytest.raises(SourceError, match="option pair is 'xx'"):
        read(marks, pair="xx")


def test_a_folder_is_read_without_its_score_files(tmp_path):
    write(tmp_path / "mqm_ted_zhen.tsv", [mark("A"), mark("B", severity="Major")])
    write(tmp_path / "mqm_ted_ende.tsv", [mark("A"), mark("B", severity="Major")])
    (tmp_path / "mqm_ted_ende.avg_seg_scores.tsv").write_text("system mqm_avg_score seg_id\nA\t-1.0 1\n")
    rows = [item.row["client_id"] for item in FED_MQM.read(tmp_path, 0, {})]
    assert rows == ["ted_ende:rater1", "ted_zhen:rater1"]


def test_without_a_local_copy_the_error_says_where_to_get_it():
    with pytest.raises(SourceError, match="wmt-mqm-human-evaluation"):
        list(FED_MQM.read(None, 0, {}))


TEXTS = st.one_of(st.sampled_from(["", " ", "A", "B", "rater1", "<v>x</v>", "\ud800", "\0", '"', "é" * 3]), st.text())
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "system": st.sampled_from(["A", "B", "C", ""]),
        "doc": st.just("d"),
        "doc_id": st.sampled_from(["1", "2"]),
        "seg_id": st.sampled_from(["1", "2"]),
        "rater": st.sampled_from(["r1", "r2"]),
        "source": TEXTS,
        "target": TEXTS,
        "category": st.sampled_from(["No-error", "Fluency/Punctuation", "Non-translation!", "Accuracy", ""]),
        "severity": st.sampled_from(["Major", "minor", "Neutral", "No-error", "odd", ""]),
    },
)
ODD = st.one_of(st.none(), st.integers(), st.floats(), st.lists(st.text(), max_size=2), TEXTS)


@st.composite
def records(draw):
    fields = {**mark("A"), **draw(FIELDS)}
    if draw(st.integers(0, 4)) == 0:
        name = draw(st.sampled_from(COLUMNS))
        fields[name] = draw(ODD)
        if draw(st.booleans()):
            del fields[name]
    return fields


@given(st.lists(records(), max_size=12))
@fuzz(5, 25)
def test_fuzzed_marks_are_in_a_pair_or_rejected(tmp_path, marks):
    path = tmp_path / "mqm_ted_zhen.jsonl"
    path.write_text("".join(json.dumps(fields) + "\n" for fields in marks))
    items = list(FED_MQM.read(path, 0, {}))
    lines = [item.line for item in items if isinstance(item, Rejected)]
    assert len(lines) == len(set(lines))
    rows = [item.row for item in items if isinstance(item, SourceRow)]
    used = {(row["client_id"], model) for row in rows for model in (row["chosen_model"], row["rejected_model"])}
    for line, fields in enumerate(marks, start=1):
        assert line in lines or (f"ted_zhen:{fields['rater']}", fields["system"]) in used
    assert builds_soundly(FED_MQM, path, tmp_path / "repo")


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "num_pairs", "num_raters"), [("zhen", 4_650, 8), ("ende", 5_859, 4)])
def test_the_real_ratings_give_the_published_scores_and_their_known_counts(
    tmp_path, shared_data, pair, num_pairs, num_raters
):
    folder = shared_data / "pref" / "wmt_mqm"
    tenths, raters = defaultdict(int), defaultdict(set)
    with (folder / f"mqm_ted_{pair}.tsv").open(encoding="utf-8", newline="") as file:
        for fields in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            # The score files call the references ref-A and ref-B.
            system = {"ref": "ref-A", "refB": "ref-B"}.get(fields["system"], fields["system"])
            tenths[system, fields["seg_id"]] += mqm.weight_tenths(fields["category"], fields["severity"])
            raters[system, fields["seg_id"]].add(fields["rater"])
    scores = {}
    for line in (folder / f"mqm_ted_{pair}.avg_seg_scores.tsv").read_text().splitlines()[1:]:
        system, rest = line.split("\t")
        score, segment = rest.split(" ")
        if score != "None":
            scores[system, segment] = score
    ours = {key: f"{-tenths[key] / 10 / len(raters[key]):.6f}" for key in scores}
    assert {key: ours[key] for key in scores if float(ours[key]) != float(scores[key])} == {}
    machine = {key for key in scores if not key[0].startswith("ref")}
    assert len(machine) == 6_877

    result = build(FED_MQM, tmp_path / "repo", source_path=folder / f"mqm_ted_{pair}.tsv")
    counts = result.facts["counts"]
    assert counts["num_valid"] - counts["num_same_text_pairs"] == num_pairs
    assert result.facts["clients"]["num_clients"] == num_raters
    assert check_repo(tmp_path / "repo") == []
