"""Membership inference as an `evaluate` metric: a shell over `fedllm_eval.scoring`."""

from math import nan
from typing import Any

import datasets
import evaluate
import numpy as np

from fedllm_data.errors import MetricError
from fedllm_eval.metrics import check_config, check_inputs
from fedllm_eval.scoring.epsilon_bound import MIN_UNITS, audit_epsilon
from fedllm_eval.scoring.membership import membership

_DESCRIPTION = """\
How well a score tells rows that a model was trained on from rows it was not: area under the ROC curve with DeLong's
interval, true positives at 1 % and 0.1 % false positives, and the lower bound on epsilon that the attack proves.
"""

_KWARGS_DESCRIPTION = """\
Args:
    membership_scores (list of float): one finite score a row, higher where the row looks trained on.
    is_member (list of int): 1 for rows that were trained on, 0 for others.
    delta (float): delta of the guarantee whose epsilon is bounded, default 0.
    seed (int): seeds the halves for the bound, default 0.

Returns:
    auc, auc_ci_low, auc_ci_high (float): 0.5 is guessing; bounds are NaN for a single row of a side.
    tpr_at_1_percent_fpr, tpr_at_01_percent_fpr (float): NaN below 100 and 1,000 non-members.
    epsilon_lower_bound (float): with 95 % confidence, unit: one example; NaN below four rows a side.
    num_members, num_nonmembers (int): what the numbers rest on.

A side without rows or a score that is not finite is an error (`MetricError`), never a score of 0.

Examples:
    >>> import evaluate
    >>> from fedllm_eval.metrics import METRIC_FOLDERS
    >>> metric = evaluate.load(str(METRIC_FOLDERS["membership_inference"]))
    >>> metric.compute(membership_scores=[3.0, 2.0, 1.0, 2.0], is_member=[1, 1, 0, 0])["auc"]
    0.875
"""

_CITATION = """\
@inproceedings{carlini2022membership,
  title = {Membership Inference Attacks From First Principles},
  author = {Carlini, Nicholas and Chien, Steve and Nasr, Milad and Song, Shuang and Terzis, Andreas and Tram{\\`e}r,
            Florian},
  booktitle = {IEEE Symposium on Security and Privacy},
  year = {2022}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class MembershipInferenceMetric(evaluate.Metric):  # type: ignore[misc]
    """What a membership score gives away."""

    def _info(self) -> Any:
        check_config("membership_inference", self.config_name)
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            # Whole numbers are not asked for: 0.9 would silently become 0.
            features=datasets.Features(
                {"membership_scores": datasets.Value("float64"), "is_member": datasets.Value("float64")}
            ),
            reference_urls=["https://arxiv.org/abs/2112.03570"],
        )

    def _compute(
        self,
        membership_scores: list[float],
        is_member: list[float],
        *,
        delta: float = 0.0,
        seed: int = 0,
        **foreign: object,
    ) -> dict[str, float]:
        check_inputs("membership_inference", self.config_name, foreign)
        scores, members = np.asarray(membership_scores, dtype=np.float64), np.asarray(is_member)
        if not np.isin(members, (0, 1)).all():
            raise MetricError("is_member holds other values than 0 and 1; give 1 for rows that were trained on")
        inside, outside = scores[members == 1], scores[members == 0]
        found = membership(inside, outside)
        enough = min(inside.size, outside.size) >= MIN_UNITS
        return {
            "auc": found.auc,
            "auc_ci_low": found.auc_low,
            "auc_ci_high": found.auc_high,
            "tpr_at_1_percent_fpr": found.true_positives[0].fraction,
            "tpr_at_01_percent_fpr": found.true_positives[1].fraction,
            "epsilon_lower_bound": audit_epsilon(inside, outside, delta=delta, seed=seed).epsilon if enough else nan,
            "num_members": found.num_members,
            "num_nonmembers": found.num_nonmembers,
        }
