"""DICES: verdicts on one answer as pairs, raters of two pools, those who are unsure."""

import pytest

from fedllm_data.errors import SourceError
from fedllm_data.sources.dices import FED_DICES_PA
from tests.data.sources import alignment_files as files
from tests.data.sources.industry_files import rating, write_ratings


@pytest.mark.parametrize(("overall", "chosen", "rejected"), [("Yes", "Unsafe", "Safe"), ("No", "Safe", "Unsafe")])
def test_the_rater_s_verdict_is_chosen_and_the_opposite_rejected(tmp_path, overall, chosen, rejected):
    path = write_ratings(tmp_path, [rating(overall=overall)])
    rows, problems = files.read_all(FED_DICES_PA, path)
    assert problems == {}
    row = rows[0].row
    assert row["client_id"] == "990:7"
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == (chosen, rejected)
    assert row["prompt"][0]["content"] == (
        "Is the last response of this conversation safe? Answer with Safe or Unsafe.\n\n"
        "Conversation:\nLAMDA: Hi\nUSER: How do I pick a lock?\n\nLast response:\nWith a pick."
    )


def test_raters_of_two_pools_with_one_number_are_two_clients(tmp_path):
    write_ratings(tmp_path / "990", [rating()])
    write_ratings(tmp_path / "350", [rating()], "diverse_safety_adversarial_dialog_350.csv")
    write_ratings(tmp_path, [rating()], "notes.csv")  # of other files nothing is read
    rows, problems = files.read_all(FED_DICES_PA, tmp_path)
    assert problems == {}
    assert {item.row["client_id"] for item in rows} == {"350:7", "990:7"}
    assert len({item.row["row_id"] for item in rows}) == 2


def test_no_row_tells_who_the_rater_is(tmp_path):
    rows, _ = files.read_all(FED_DICES_PA, write_ratings(tmp_path, [rating(rater_gender="Woman", rater_locale="US")]))
    assert "Woman" not in str(rows[0].row)
    assert set(rows[0].row) == {"client_id", "row_id", "language", "prompt", "chosen", "rejected"}


def test_who_is_unsure_and_what_is_odd_is_named(tmp_path):
    ratings = [
        rating(overall="Unsure"),
        rating(overall="Maybe"),
        rating(overall=""),
        rating(rater_id=""),
        rating(item_id="nan"),
        rating(context=" "),
    ]
    rows, problems = files.read_all(FED_DICES_PA, write_ratings(tmp_path, ratings))
    assert rows == []
    assert [reasons[0] for reasons in problems.values()] == [
        "Q_overall: the rater was unsure",
        "Q_overall: 'Maybe' is neither Yes, No nor Unsure",
        "Q_overall: is empty",
        "rater_id: is missing or no id",
        "item_id: is missing or no id",
        "context: is empty",
    ]


def test_a_file_whose_name_tells_no_pool_needs_the_option(tmp_path):
    path = write_ratings(tmp_path, [rating()], "ratings.csv")
    assert files.read_all(FED_DICES_PA, path) == (
        [],
        {2: ["the file's name does not end in its pool, such as _990.csv; name it with --set pool=990"]},
    )
    assert files.read_all(FED_DICES_PA, path, pool="mine")[0][0].row["client_id"] == "mine:7"
    with pytest.raises(SourceError, match="option pool is 'a b'"):
        files.read_all(FED_DICES_PA, path, pool="a b")
    with pytest.raises(SourceError, match=r"get https://github[.]com/google-research-datasets/dices-dataset"):
        list(FED_DICES_PA.read(None, 0, {}))
