"""Judges: any OpenAI-compatible endpoint, a model in memory or a record, asked once for each thing and never twice.

`make_judge` makes one from plain settings (`JudgeSettings`); suites take it as `SuiteOptions.judge`.
"""

from fedllm_eval.judging.endpoint import Endpoint
from fedllm_eval.judging.judge import Judge
from fedllm_eval.judging.judge_settings import JudgeSettings, make_judge
from fedllm_eval.judging.local_judge import LocalModel
from fedllm_eval.judging.recorded import Recorded
from fedllm_eval.judging.request import Backend, JudgeRequest, Judgment
from fedllm_eval.judging.spend import Spend

__all__ = [
    "Backend",
    "Endpoint",
    "Judge",
    "JudgeRequest",
    "JudgeSettings",
    "Judgment",
    "LocalModel",
    "Recorded",
    "Spend",
    "make_judge",
]
