"""Exposure of planted canaries as an `evaluate` metric: a shell over `fedllm_eval.scoring`."""

from typing import Any

import datasets
import evaluate

from fedllm_data.errors import MetricError
from fedllm_eval.metrics import check_config, check_inputs
from fedllm_eval.scoring.exposure import chance_exposure, exposure, mean_exposure

_DESCRIPTION = """\
How far planted secrets stand out among the secrets they could have been, in bits: log2 of the number of candidates
less log2 of the canary's rank by loss, on average over canaries with its interval.
"""

_KWARGS_DESCRIPTION = """\
Args:
    canary_losses (list of float): loss of each planted canary's answer, in nats.
    candidate_losses (list of list of float): for each canary the losses of other secrets in the same place.

Returns:
    exposure_bits, ci_low, ci_high (float): mean over canaries and its interval; NaN bounds for one canary.
    chance_bits (float): what canaries that were not learned show on average against this many candidates, up to 1.44.
    ceiling_bits (float): the most that this many candidates can show; the interval ends there.
    num_canaries (int): what the numbers rest on.

No canaries, or one without candidates, is an error (`MetricError`), never an exposure of 0.

Examples:
    >>> import evaluate
    >>> from fedllm_eval.metrics import METRIC_FOLDERS
    >>> metric = evaluate.load(str(METRIC_FOLDERS["canary_exposure"]))
    >>> metric.compute(canary_losses=[1.0], candidate_losses=[[2.0, 3.0, 4.0]])["exposure_bits"]
    2.0
"""

_CITATION = """\
@inproceedings{carlini2019secret,
  title = {The Secret Sharer: Evaluating and Testing Unintended Memorization in Neural Networks},
  author = {Carlini, Nicholas and Liu, Chang and Erlingsson, {\\'U}lfar and Kos, Jernej and Song, Dawn},
  booktitle = {USENIX Security Symposium},
  year = {2019}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class CanaryExposureMetric(evaluate.Metric):  # type: ignore[misc]
    """Exposure of planted canaries."""

    def _info(self) -> Any:
        check_config("canary_exposure", self.config_name)
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "canary_losses": datasets.Value("float64"),
                    "candidate_losses": datasets.Sequence(datasets.Value("float64")),
                }
            ),
            reference_urls=["https://arxiv.org/abs/1802.08232"],
        )

    def _compute(
        self, canary_losses: list[float], candidate_losses: list[list[float]], **foreign: object
    ) -> dict[str, float]:
        check_inputs("canary_exposure", self.config_name, foreign)
        if len(canary_losses) == 0:
            raise MetricError("no canaries: the exposure of nothing is undefined; give at least one")
        bits = [exposure(loss, others) for loss, others in zip(canary_losses, candidate_losses, strict=True)]
        interval, ceiling = mean_exposure(bits, [len(others) for others in candidate_losses])
        return {
            "exposure_bits": interval.mean,
            "ci_low": interval.low,
            "ci_high": interval.high,
            "chance_bits": chance_exposure([len(others) for others in candidate_losses]),
            "ceiling_bits": ceiling,
            "num_canaries": len(bits),
        }
