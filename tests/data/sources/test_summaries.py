"""Summarize from feedback: which summary was chosen, posts and articles, evaluation splits, odd records."""

import pytest

from fedllm_data.errors import SourceError
from fedllm_data.sources.summaries import FED_SUMMARIES_PA
from tests.data.sources import alignment_files as files
from tests.data.sources.industry_files import summary_comparison as comparison


@pytest.fixture
def read(tmp_path):
    def items(*records, **options):
        return files.read_all(FED_SUMMARIES_PA, files.write_lines(tmp_path / "batch9.jsonl", records), **options)

    return items


def test_the_summary_that_the_worker_chose_is_chosen(read):
    rows, rejected = read(comparison(choice=1), comparison("w2", choice=0))
    assert rejected == {}
    first, second = (item.row for item in rows)
    assert (first["client_id"], second["client_id"]) == ("w1", "w2")
    assert first["prompt"] == [
        {
            "role": "user",
            "content": "Summarize this post in one or two sentences.\n\n"
            "Subreddit: r/pets\nTitle: Lost cat\n\nMy cat ran off.",
        }
    ]
    assert (first["chosen"][0]["content"], first["rejected"][0]["content"]) == ("It is about a cat.", "Cat gone.")
    assert (first["chosen_model"], first["rejected_model"]) == ("model1", "model0")
    assert (second["chosen"], second["rejected"]) == (first["rejected"], first["chosen"])
    assert first["row_id"] != second["row_id"]


def test_a_news_article_is_asked_for_as_one(read):
    info = {"id": "d1", "site": "dailymail", "title": "A title", "article": "News.", "post": None, "subreddit": None}
    rows, _ = read(comparison(info=info))
    assert rows[0].row["prompt"][0]["content"] == "Summarize this news article.\n\nTitle: A title\n\nNews."


def test_a_post_without_a_title_or_a_place_is_only_the_post(read):
    rows, _ = read(comparison(info={"id": "t3_2", "post": "Help."}))
    assert rows[0].row["prompt"][0]["content"] == "Summarize this post in one or two sentences.\n\nHelp."


def test_evaluation_splits_stay_out_unless_asked_for(read):
    records = [comparison(), comparison("w2", split="valid1"), comparison("w3", split="valid2")]
    rows, rejected = read(*records)
    assert [item.row["client_id"] for item in rows] == ["w1"]
    assert rejected[2] == ["split: 'valid1' stays an evaluation set; splits=all keeps it"]
    assert len(read(*records, splits="all")[0]) == 3
    with pytest.raises(SourceError, match="option splits is 'some'; give train or all"):
        read(*records, splits="some")


def test_the_raw_files_of_the_authors_are_json_lines_that_end_in_json(tmp_path):
    files.write_lines(tmp_path / "comparisons" / "batch3.json", [comparison(), comparison("w2")])
    files.write_lines(tmp_path / "axis_evals" / "cnndm1.json", [{"summary": {}}, {"summary": {}}])
    rows, rejected = files.read_all(FED_SUMMARIES_PA, tmp_path)
    assert ([item.row["client_id"] for item in rows], rejected) == (["w1", "w2"], {})


def test_what_cannot_be_used_is_named(read):
    one = [{"text": "a", "policy": "m"}]
    _, rejected = read(
        comparison(choice=2),
        comparison(choice=True),
        comparison(choice=None),
        comparison(worker=None),
        comparison(summaries=one),
        comparison(summaries=[*one, "b"]),
        comparison(summaries=[*one, {"text": " ", "policy": "m"}]),
        comparison(info=None),
        comparison(post=""),
        comparison(split=None),
        comparison(worker="x\ud800"),
    )
    assert [reasons[0] for reasons in rejected.values()] == [
        "choice: '2' is neither 0 nor 1",
        "choice: 'True' is neither 0 nor 1",
        "choice: 'None' is neither 0 nor 1",
        "worker: is missing or no id",
        "summaries: must be a list of two, got 1",
        "summaries: must hold mappings with text and policy",
        "text: is empty",
        "info: must be a mapping, got NoneType",
        "post: is empty",
        "split: must be text, got NoneType",
        "worker: is missing or no id",
    ]
