"""KL to the reference as an `evaluate` metric: a shell over `fedllm_eval.scoring`."""

from typing import Any, Literal

import datasets
import evaluate

from fedllm_eval.metrics import check_config, check_inputs, check_whole
from fedllm_eval.scoring.forgetting import sequence_kl

_DESCRIPTION = """\
KL(policy || reference), estimated from the log-probabilities of answers that the policy wrote.
"""

_KWARGS_DESCRIPTION = """\
Args:
    logps (list of float): log-probability of each answer under the policy that wrote it, in nats.
    ref_logps (list of float): the same under the reference.
    num_tokens (list of int): tokens of each answer, positive.
    estimator (str): "k1" (default) or "k3".

Returns:
    kl, kl_ci_low, kl_ci_high (float): nats per answer with a 95 % interval over answers; NaN bounds for one answer.
    kl_per_token (float): nats per token.
    num_sequences, num_tokens (int): what the numbers rest on.

No answers or a value that is not finite is an error (`MetricError`), never a divergence of 0.

Examples:
    >>> import evaluate
    >>> from fedllm_eval.metrics import METRIC_FOLDERS
    >>> metric = evaluate.load(str(METRIC_FOLDERS["kl_to_reference"]))
    >>> result = metric.compute(logps=[-1.0, -3.0], ref_logps=[-2.0, -4.0], num_tokens=[2, 2])
    >>> result["kl"], result["kl_per_token"]
    (1.0, 0.5)
"""

_CITATION = ""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class KLToReferenceMetric(evaluate.Metric):  # type: ignore[misc]
    """Divergence of a policy from its reference."""

    def _info(self) -> Any:
        check_config("kl_to_reference", self.config_name)
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "logps": datasets.Value("float64"),
                    "ref_logps": datasets.Value("float64"),
                    "num_tokens": datasets.Value("float64"),
                }
            ),
            reference_urls=["http://joschu.net/blog/kl-approx.html"],
        )

    def _compute(
        self,
        logps: list[float],
        ref_logps: list[float],
        num_tokens: list[int],
        *,
        estimator: Literal["k1", "k3"] = "k1",
        **foreign: object,
    ) -> dict[str, float]:
        check_inputs("kl_to_reference", self.config_name, foreign)
        check_whole(num_tokens=num_tokens)
        found = sequence_kl(logps, ref_logps, num_tokens, estimator=estimator)
        return {
            "kl": found.per_sequence.mean,
            "kl_ci_low": found.per_sequence.low,
            "kl_ci_high": found.per_sequence.high,
            "kl_per_token": found.per_token,
            "num_sequences": found.num_sequences,
            "num_tokens": found.num_tokens,
        }
