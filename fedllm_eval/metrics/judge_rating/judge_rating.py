"""A judge's ratings as an `evaluate` metric: a shell over `fedllm_eval.scoring.ratings`."""

from typing import Any

import datasets
import evaluate

from fedllm_eval.metrics import check_config, check_inputs, check_texts
from fedllm_eval.scoring.ratings import mean_rating, parse_rating

_DESCRIPTION = """\
Mean of the ratings that stand in a judge's words as `[[7]]`, or failing that `[7]`, with its 95 % interval. What
cannot be read, or lies outside 1 to 10, is counted, and the mean is bounded by what it could have been.
"""

_KWARGS_DESCRIPTION = """\
Args:
    judgments (list of str): what the judge wrote about each answer.
    question_ids (list of str): the question that each answer belongs to; config "questions" only. Answers to one
        question count as one in the interval.

Returns:
    judge_rating, judge_rating_low, judge_rating_high (float): mean of the readable ratings and its interval over
        judgments (or questions); NaN where none could be read.
    unrated_fraction (float): share of judgments without a rating.
    judge_rating_if_worst, judge_rating_if_best (float): the mean if all of those had been 1, or 10.
    num_items, num_failed (int): judgments with and without a rating.

No judgments is an error (`MetricError`), never a rating of 0.

Examples:
    >>> import evaluate
    >>> from fedllm_eval.metrics import METRIC_FOLDERS
    >>> metric = evaluate.load(str(METRIC_FOLDERS["judge_rating"]))
    >>> result = metric.compute(judgments=["Good. [[8]]", "Rating: [[6]]", "I cannot say."])
    >>> result["judge_rating"], result["num_failed"], result["judge_rating_if_worst"], result["judge_rating_if_best"]
    (7.0, 1, 5.0, 8.0)
"""

_CITATION = """\
@inproceedings{zheng2023judging,
  title = {Judging {LLM}-as-a-Judge with {MT-Bench} and {Chatbot Arena}},
  author = {Zheng, Lianmin and Chiang, Wei-Lin and Sheng, Ying and others},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2023}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class JudgeRatingMetric(evaluate.Metric):  # type: ignore[misc]
    """Mean rating with its failures."""

    def _info(self) -> Any:
        check_config("judge_rating", self.config_name)
        features = {"judgments": datasets.Value("string")}
        if self.config_name == "questions":
            features["question_ids"] = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(features),
            reference_urls=["https://arxiv.org/abs/2306.05685"],
        )

    def _compute(
        self, judgments: list[str], question_ids: list[str] | None = None, **foreign: object
    ) -> dict[str, float]:
        check_inputs("judge_rating", self.config_name, {**foreign, "question_ids": question_ids})
        check_texts(judgments=judgments, question_ids=question_ids)
        ratings = [parse_rating(judgment) for judgment in judgments]
        mean = mean_rating(ratings, question_ids if self.config_name == "questions" else None)
        return {
            "judge_rating": mean.mean,
            "judge_rating_low": mean.low,
            "judge_rating_high": mean.high,
            "unrated_fraction": mean.num_failed / len(ratings),
            "judge_rating_if_worst": mean.lowest,
            "judge_rating_if_best": mean.highest,
            "num_items": mean.num_items,
            "num_failed": mean.num_failed,
        }
