"""Score policies on each client: whom a model serves, whom it serves worst, and what the data can tell.

`score_run` goes from names to a results folder, `evaluate_policy` from a policy in memory to a per-client table,
`compare_results` from results folders to paired differences. Names are imported when they are first used (PEP 562), so
that a command which needs no model imports neither SciPy nor torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedllm_eval.audit.audit_settings import AuditSettings
    from fedllm_eval.compare import compare_results
    from fedllm_eval.judging.judge_settings import JudgeSettings
    from fedllm_eval.per_client import evaluate_policy
    from fedllm_eval.policy.policies import Policy, load_policy, load_reference
    from fedllm_eval.reporting.results_folder import write_results
    from fedllm_eval.results import Results, read_results
    from fedllm_eval.run import score_run
    from fedllm_eval.running.assemble import make_results
    from fedllm_eval.running.run_cost import StatedCosts
    from fedllm_eval.running.suite_runs import SuitePlan
    from fedllm_eval.score_settings import AskedBeside, OtherPolicies, ScoreSettings
    from fedllm_eval.scores import SCORES, ClientScores

__all__ = [
    "SCORES",
    "AskedBeside",
    "AuditSettings",
    "ClientScores",
    "JudgeSettings",
    "OtherPolicies",
    "Policy",
    "Results",
    "ScoreSettings",
    "StatedCosts",
    "SuitePlan",
    "compare_results",
    "evaluate_policy",
    "load_policy",
    "load_reference",
    "make_results",
    "read_results",
    "score_run",
    "write_results",
]

_PLACES = {
    "SCORES": "scores",
    "AskedBeside": "score_settings",
    "AuditSettings": "audit.audit_run",
    "ClientScores": "scores",
    "JudgeSettings": "judging.judge_settings",
    "OtherPolicies": "score_settings",
    "Policy": "policy.policies",
    "Results": "results",
    "ScoreSettings": "score_settings",
    "StatedCosts": "running.run_cost",
    "SuitePlan": "running.suite_runs",
    "compare_results": "compare",
    "evaluate_policy": "per_client",
    "load_policy": "policy.policies",
    "load_reference": "policy.policies",
    "make_results": "running.assemble",
    "read_results": "results",
    "score_run": "run",
    "write_results": "reporting.results_folder",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
