"""Pairwise win rate as an `evaluate` metric: a shell over `fedllm_eval.scoring.win_rate` and `.length_controlled`."""

from typing import Any

import datasets
import evaluate

from fedllm_eval.metrics import check_config, check_inputs
from fedllm_eval.scoring.length_controlled import length_controlled_win_rate
from fedllm_eval.scoring.win_rate import average_swapped, win_rate

_DESCRIPTION = """\
How often a candidate's answer is preferred to a baseline's, a tie counting half, with its 95 % interval over items. A
verdict that never came is left out and counted. With config "swapped" both orders of each pair are averaged and the
judge's liking for a position is measured; with config "length_controlled" the length difference is taken out by a
logistic model, after length-controlled AlpacaEval and without its data from the whole leaderboard.
"""

_KWARGS_DESCRIPTION = """\
Args:
    predictions (list of float): preference for the candidate on each item, in [0, 1]: 1 it wins, 0.5 a tie, 0 it
        loses; None or NaN where there is no verdict.
    swapped_predictions (list of float): the same with the candidate shown second; config "swapped" only, where
        predictions are those with the candidate shown first.
    candidate_lengths, baseline_lengths (list of float): lengths of the two answers in any one unit; config
        "length_controlled" only.

Returns:
    win_rate, win_rate_low, win_rate_high (float): in [0, 1]; NaN where every verdict is missing.
    tie_fraction (float): share of items at exactly 0.5.
    num_items, num_missing (int): items with and without a verdict.
    With config "swapped" also consistent_fraction (share of pairs whose two verdicts agree) and
    first_position_preference (0.5 for a judge that the order does not move).
    With config "length_controlled" also length_controlled_win_rate with _low and _high, length_effect and
    longer_fraction.

No items or a preference outside [0, 1] is an error (`MetricError`), never a score of 0.

Examples:
    >>> import evaluate
    >>> from fedllm_eval.metrics import METRIC_FOLDERS
    >>> metric = evaluate.load(str(METRIC_FOLDERS["win_rate"]))
    >>> result = metric.compute(predictions=[1.0, 0.5, 0.0, 1.0, None])
    >>> result["win_rate"], result["num_items"], result["num_missing"]
    (0.625, 4, 1)
    >>> swapped = evaluate.load(str(METRIC_FOLDERS["win_rate"]), "swapped")
    >>> result = swapped.compute(predictions=[1.0, 1.0], swapped_predictions=[1.0, 0.0])
    >>> result["win_rate"], result["consistent_fraction"], result["first_position_preference"]
    (0.75, 0.5, 0.75)
"""

_CITATION = """\
@article{dubois2024length,
  title = {Length-Controlled AlpacaEval: A Simple Way to Debias Automatic Evaluators},
  author = {Dubois, Yann and Galambosi, Bal{\\'a}zs and Liang, Percy and Hashimoto, Tatsunori B.},
  journal = {arXiv preprint arXiv:2404.04475},
  year = {2024}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class WinRateMetric(evaluate.Metric):  # type: ignore[misc]
    """Preference for a candidate over a baseline."""

    def _info(self) -> Any:
        check_config("win_rate", self.config_name)
        features = {"predictions": datasets.Value("float64")}
        if self.config_name == "swapped":
            features["swapped_predictions"] = datasets.Value("float64")
        if self.config_name == "length_controlled":
            features |= {"candidate_lengths": datasets.Value("float64"), "baseline_lengths": datasets.Value("float64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(features),
            reference_urls=["https://arxiv.org/abs/2306.05685", "https://arxiv.org/abs/2404.04475"],
        )

    def _compute(
        self,
        predictions: list[float | None],
        swapped_predictions: list[float | None] | None = None,
        candidate_lengths: list[float] | None = None,
        baseline_lengths: list[float] | None = None,
        **foreign: object,
    ) -> dict[str, float]:
        own = {
            "swapped_predictions": swapped_predictions,
            "candidate_lengths": candidate_lengths,
            "baseline_lengths": baseline_lengths,
        }
        check_inputs("win_rate", self.config_name, {**foreign, **own})
        result: dict[str, float] = {}
        preferences: Any = predictions
        if self.config_name == "swapped":
            assert swapped_predictions is not None
            swapped = average_swapped(predictions, swapped_predictions)
            preferences = swapped.preferences_N
            result |= {
                "consistent_fraction": swapped.consistent_fraction,
                "first_position_preference": swapped.first_position_preference,
            }
        plain = win_rate(preferences)
        result |= {
            "win_rate": plain.win_rate,
            "win_rate_low": plain.low,
            "win_rate_high": plain.high,
            "tie_fraction": plain.tie_fraction,
            "num_items": plain.num_items,
            "num_missing": plain.num_missing,
        }
        if self.config_name == "length_controlled":
            assert candidate_lengths is not None
            assert baseline_lengths is not None
            controlled = length_controlled_win_rate(predictions, candidate_lengths, baseline_lengths)
            result |= {
                "length_controlled_win_rate": controlled.win_rate,
                "length_controlled_win_rate_low": controlled.low,
                "length_controlled_win_rate_high": controlled.high,
                "length_effect": controlled.length_effect,
                "longer_fraction": controlled.longer_fraction,
            }
        return result
