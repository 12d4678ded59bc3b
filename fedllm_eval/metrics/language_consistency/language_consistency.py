"""Language consistency as an `evaluate` metric: a shell over `fedllm_eval.scoring`."""

from typing import Any

import datasets
import evaluate

from fedllm_data.pipeline.language_detection import detect_languages, languages_agree
from fedllm_eval.metrics import check_config, check_inputs, check_texts
from fedllm_eval.scoring.language_consistency import language_consistency

_DESCRIPTION = """\
Share of answers that are written in the language of their question, in all and by language.
"""

_KWARGS_DESCRIPTION = """\
Args:
    question_languages (list of str): ISO 639 code of each question, "und" where unknown.
    answers (list of str): what the policy wrote.

Returns:
    language_consistency (float): share of answers in their question's language, among those that can be told.
    language_consistency_ci_low, language_consistency_ci_high (float): Wilson's 95 % interval.
    macro_language_consistency (float): mean over languages.
    language_consistency_<code> (float): the share among questions in one language.
    num_undetermined, num_answers (int): answers that cannot be told, and all answers.

No answer that can be told is an error (`MetricError`), never a share of 0.

Examples:
    >>> import evaluate
    >>> from fedllm_eval.metrics import METRIC_FOLDERS
    >>> metric = evaluate.load(str(METRIC_FOLDERS["language_consistency"]))
    >>> answers = ["La risposta è molto semplice, come si vede.", "The answer is quite simple, as you can see."]
    >>> metric.compute(question_languages=["it", "de"], answers=answers)["language_consistency"]
    0.5
"""

_CITATION = ""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class LanguageConsistencyMetric(evaluate.Metric):  # type: ignore[misc]
    """Share of answers in the language of their question."""

    def _info(self) -> Any:
        check_config("language_consistency", self.config_name)
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"question_languages": datasets.Value("string"), "answers": datasets.Value("string")}
            ),
        )

    def _compute(self, question_languages: list[str], answers: list[str], **foreign: object) -> dict[str, float]:
        check_inputs("language_consistency", self.config_name, foreign)
        check_texts(answers=answers)
        found = language_consistency(question_languages, detect_languages(answers), languages_agree)
        return {
            "language_consistency": found.overall.fraction,
            "language_consistency_ci_low": found.overall.low,
            "language_consistency_ci_high": found.overall.high,
            "macro_language_consistency": found.macro,
            **{f"language_consistency_{code}": share.fraction for code, share in found.by_language.items()},
            "num_undetermined": found.num_undetermined,
            "num_answers": len(answers),
        }
