"""MultiPref: a row an annotation, ties and odd verdicts, criteria, crowd workers and experts."""

import pytest

from fedllm_data.errors import SourceError
from fedllm_data.sources.multipref import FED_MULTIPREF_PA
from tests.data.sources import alignment_files as files
from tests.data.sources.industry_files import annotation
from tests.data.sources.industry_files import multipref_comparison as comparison


@pytest.fixture
def read(tmp_path):
    def items(*records, **options):
        return files.read_all(FED_MULTIPREF_PA, files.write_lines(tmp_path / "rows.jsonl", records), **options)

    return items


@pytest.mark.parametrize(
    ("verdict", "winner"),
    [
        ("A-is-clearly-better", "a"),
        ("A-is-slightly-better", "a"),
        ("B-is-slightly-better", "b"),
        ("B-is-clearly-better", "b"),
        (" b-is-clearly-better ", "b"),
    ],
)
def test_the_better_answer_is_chosen(read, verdict, winner):
    rows, rejected = read(comparison(normal=[annotation("e1", verdict)]))
    assert rejected == {}
    row, loser = rows[0].row, "b" if winner == "a" else "a"
    assert row["client_id"] == "e1"
    assert row["prompt"] == [{"role": "user", "content": "What is c1?"}]
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == (f"c1 {winner}", f"c1 {loser}")
    models = {"a": "tulu-2-7b", "b": "gpt-4"}
    assert (row["chosen_model"], row["rejected_model"]) == (models[winner], models[loser])


def test_every_annotation_is_a_row_or_named(read):
    normal = [annotation("e1"), annotation("e2", "Tie"), annotation("e3", "A"), annotation(None), "x"]
    rows, rejected = read(comparison(normal=normal, expert=[annotation("e4", "B-is-clearly-better")]))
    assert [item.row["client_id"] for item in rows] == ["e1", "e4"]
    assert rejected == {
        1: [
            "overall_pref: the evaluator found both answers alike",
            "overall_pref: 'A' is no verdict",
            "an annotation has no evaluator",
            "an annotation must be a mapping, got str",
        ]
    }


def test_another_criterion_may_turn_the_verdict(read):
    record = comparison(normal=[annotation(harmless_pref="B-is-clearly-better")])
    assert read(record)[0][0].row["chosen"][0]["content"] == "c1 a"
    assert read(record, criterion="harmless")[0][0].row["chosen"][0]["content"] == "c1 b"
    with pytest.raises(SourceError, match="option criterion"):
        read(record, criterion="beauty")


def test_crowd_workers_and_experts_can_be_told_apart(read):
    record = comparison(normal=[annotation("e1")], expert=[annotation("e2")])
    found = {
        kind: [item.row["client_id"] for item in read(record, evaluators=kind)[0]] for kind in ("normal", "expert")
    }
    assert found == {"normal": ["e1"], "expert": ["e2"]}
    assert read(comparison(expert=[]), evaluators="expert") == (
        [],
        {1: ["expert_worker_annotations: no annotation"]},
    )


def test_a_comparison_that_cannot_be_used_is_one_rejected(read):
    three = [annotation(f"e{n}") for n in range(3)]
    _, rejected = read(
        comparison(normal=three, text=""),
        comparison(normal=three, completion_b=None),
        comparison(None, normal=three),
        comparison(normal={"evaluator": "e1"}),
        comparison(normal=[]),
    )
    assert [reasons for reasons in rejected.values()] == [
        ["text: is empty"],
        ["completion_b: must be text, got NoneType"],
        ["comparison_id: is missing or no id"],
        ["normal_worker_annotations: must be a list of annotations, got dict"],
        ["normal_worker_annotations and expert_worker_annotations: no annotation"],
    ]
