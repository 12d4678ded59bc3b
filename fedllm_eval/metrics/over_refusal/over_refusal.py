"""Over-refusal as an `evaluate` metric: a shell over `fedllm_eval.scoring`."""

from typing import Any

import datasets
import evaluate

from fedllm_data.pipeline.language_detection import detect_languages
from fedllm_eval.metrics import check_config, check_inputs, check_texts
from fedllm_eval.scoring.refusal import refusal_rate, verdicts

_DESCRIPTION = """\
Share of harmless requests that a policy refuses, told by how answers begin, by phrases of refusal, or by the keywords
of FedLLM-Bench.
"""

_KWARGS_DESCRIPTION = """\
Args:
    answers (list of str): what the policy wrote, one answer a harmless request.
    refusal_list (str): "curated" (default), "prefix", "benchmark" or "benchmark_as_released".
    detect_language (bool): whether answers in other languages than English are left out, default True.

Returns:
    over_refusal (float): share of refusals among the answers that can be told.
    over_refusal_ci_low, over_refusal_ci_high (float): Wilson's 95 % interval.
    num_undetermined, num_answers (int): answers that cannot be told, and all answers.

No answer that can be told is an error (`MetricError`), never a share of 0.

Examples:
    >>> import evaluate
    >>> from fedllm_eval.metrics import METRIC_FOLDERS
    >>> metric = evaluate.load(str(METRIC_FOLDERS["over_refusal"]))
    >>> metric.compute(answers=["I'm sorry, but I can't.", "Type kill and the number of the process."])["over_refusal"]
    0.5
"""

_CITATION = """\
@inproceedings{rottger2024xstest,
  title = {{XSTest}: A Test Suite for Identifying Exaggerated Safety Behaviours in Large Language Models},
  author = {R{\\"o}ttger, Paul and Kirk, Hannah and Vidgen, Bertie and Attanasio, Giuseppe and Bianchi, Federico and
    Hovy, Dirk},
  booktitle = {Proceedings of NAACL},
  year = {2024}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class OverRefusalMetric(evaluate.Metric):  # type: ignore[misc]
    """Share of harmless requests that are refused."""

    def _info(self) -> Any:
        check_config("over_refusal", self.config_name)
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"answers": datasets.Value("string")}),
            reference_urls=["https://arxiv.org/abs/2308.01263"],
        )

    def _compute(
        self, answers: list[str], *, refusal_list: str = "curated", detect_language: bool = True, **foreign: object
    ) -> dict[str, float]:
        check_inputs("over_refusal", self.config_name, foreign)
        check_texts(answers=answers)
        rate = refusal_rate(verdicts(answers, refusal_list, detect_languages(answers) if detect_language else None))
        return {
            "over_refusal": rate.refused.fraction,
            "over_refusal_ci_low": rate.refused.low,
            "over_refusal_ci_high": rate.refused.high,
            "num_undetermined": rate.num_undetermined,
            "num_answers": len(answers),
        }
