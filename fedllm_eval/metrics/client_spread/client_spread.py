"""Spread of a score over clients as an `evaluate` metric: a shell over `fedllm_eval.scoring`."""

from dataclasses import asdict
from typing import Any

import datasets
import evaluate

from fedllm_eval.metrics import check_config, check_flag, check_inputs
from fedllm_eval.scoring.intervals import mean_interval
from fedllm_eval.scoring.spread import client_spread
from fedllm_eval.scoring.tail_interval import worst_decile_interval

_DESCRIPTION = """\
How a score is spread over clients: mean with Student's interval, standard deviation, the
worst-served tenth, the gap between best and worst, Jain's index and the Gini coefficient.
"""

_KWARGS_DESCRIPTION = """\
Args:
    scores (list of float): one finite score a client.
    higher_is_better (bool): which end is the worst; must be given, as False for losses.
    confidence (float): level of the intervals, default 0.95.
    seed (int): seeds the worst decile's bootstrap, default 0.

Returns:
    mean, ci_low, ci_high (float): mean over clients and its interval; bounds are NaN for a single client.
    std (float): population standard deviation (divides by the number of clients).
    worst, best, best_worst_gap (float): extremes and their distance.
    worst_decile (float): mean of the max(1, floor(K / 10)) worst of K clients.
    worst_decile_ci_low, worst_decile_ci_high (float): its interval; NaN below 50 clients.
    jain (float): 1 when all clients have the same score, 1/K when one has everything; NaN if a score is negative.
    gini (float): 0 when all clients have the same score, (K-1)/K when one has everything; NaN if a score is negative.
    num_clients (int): what the numbers rest on.

No clients or a score that is not finite is an error (`MetricError`), never a score of 0.

Examples:
    >>> import evaluate
    >>> from fedllm_eval.metrics import METRIC_FOLDERS
    >>> metric = evaluate.load(str(METRIC_FOLDERS["client_spread"]))
    >>> result = metric.compute(scores=[0.5, 0.25, 0.75], higher_is_better=True)
    >>> result["mean"], result["worst_decile"], result["best_worst_gap"]
    (0.5, 0.25, 0.5)
"""

_CITATION = """\
@inproceedings{li2020fair,
  title = {Fair Resource Allocation in Federated Learning},
  author = {Li, Tian and Sanjabi, Maziar and Beirami, Ahmad and Smith, Virginia},
  booktitle = {International Conference on Learning Representations},
  year = {2020}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ClientSpreadMetric(evaluate.Metric):  # type: ignore[misc]
    """Distribution of a score over clients."""

    def _info(self) -> Any:
        check_config("client_spread", self.config_name)
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"scores": datasets.Value("float64")}),
            reference_urls=["https://arxiv.org/abs/1905.10497"],
        )

    def _compute(
        self,
        scores: list[float],
        *,
        higher_is_better: bool,
        confidence: float = 0.95,
        seed: int = 0,
        **foreign: object,
    ) -> dict[str, float]:
        check_inputs("client_spread", self.config_name, foreign)
        check_flag(higher_is_better=higher_is_better)
        interval = mean_interval(scores, confidence=confidence)
        spread = asdict(client_spread(scores, higher_is_better=higher_is_better))
        tail = worst_decile_interval(scores, higher_is_better=higher_is_better, confidence=confidence, seed=seed)
        return {
            "mean": spread.pop("mean"),
            "ci_low": interval.low,
            "ci_high": interval.high,
            **spread,
            "worst_decile_ci_low": tail.low,
            "worst_decile_ci_high": tail.high,
        }
