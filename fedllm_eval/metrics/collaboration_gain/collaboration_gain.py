"""Gain by taking part as an `evaluate` metric: a shell over `fedllm_eval.scoring`."""

from typing import Any

import datasets
import evaluate

from fedllm_eval.metrics import check_config, check_flag, check_inputs
from fedllm_eval.scoring.collaboration import collaboration_gain

_DESCRIPTION = """\
What clients gain by a policy over a baseline (the base model, training alone, pooled training): mean gain with its
interval, the share of clients better off, and the gain of those that gain least.
"""

_KWARGS_DESCRIPTION = """\
Args:
    policy_scores (list of float): one finite score a client under the policy.
    baseline_scores (list of float): the same clients under the baseline, in the same order.
    higher_is_better (bool): must be given, as False for losses.
    seed (int): seeds the sign flips, default 0.

Returns:
    collaboration_gain (float): mean gain over clients, positive where the policy is better.
    collaboration_gain_ci_low, collaboration_gain_ci_high, p_value (float): NaN for one client.
    better_off, better_off_ci_low, better_off_ci_high, worse_off (float): shares of clients.
    worst_decile_gain (float): mean gain of the tenth of clients that gain least.
    num_clients (int): what the numbers rest on.

No clients or a score that is not finite is an error (`MetricError`), never a gain of 0.

Examples:
    >>> import evaluate
    >>> from fedllm_eval.metrics import METRIC_FOLDERS
    >>> metric = evaluate.load(str(METRIC_FOLDERS["collaboration_gain"]))
    >>> result = metric.compute(policy_scores=[1.0, 2.0], baseline_scores=[2.0, 2.0], higher_is_better=False)
    >>> result["collaboration_gain"], result["better_off"]
    (0.5, 0.5)
"""

_CITATION = ""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class CollaborationGainMetric(evaluate.Metric):  # type: ignore[misc]
    """Gain of clients by a policy over a baseline."""

    def _info(self) -> Any:
        check_config("collaboration_gain", self.config_name)
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"policy_scores": datasets.Value("float64"), "baseline_scores": datasets.Value("float64")}
            ),
            reference_urls=["https://arxiv.org/abs/2406.04845"],
        )

    def _compute(
        self,
        policy_scores: list[float],
        baseline_scores: list[float],
        *,
        higher_is_better: bool,
        seed: int = 0,
        **foreign: object,
    ) -> dict[str, float]:
        check_inputs("collaboration_gain", self.config_name, foreign)
        check_flag(higher_is_better=higher_is_better)
        found = collaboration_gain(policy_scores, baseline_scores, higher_is_better=higher_is_better, seed=seed)
        return {
            "collaboration_gain": found.gain.difference,
            "collaboration_gain_ci_low": found.gain.low,
            "collaboration_gain_ci_high": found.gain.high,
            "p_value": found.gain.p_value,
            "better_off": found.better_off.fraction,
            "better_off_ci_low": found.better_off.low,
            "better_off_ci_high": found.better_off.high,
            "worse_off": found.worse_off.fraction,
            "worst_decile_gain": found.worst_decile_gain,
            "num_clients": found.gain.num_clients,
        }
