"""Score policies on each client: whom a model serves, whom it serves worst, and what the data can tell.

`score_run` goes from names to a results folder, `evaluate_policy` from a policy in memory to a per-client table,
`compare_results` from results folders to paired differences. torch is imported when a policy is loaded, not before.
"""

from fedllm_eval.compare import compare_results
from fedllm_eval.per_client import evaluate_policy
from fedllm_eval.policy.policies import Policy, load_policy, load_reference
from fedllm_eval.reporting.results_folder import write_results
from fedllm_eval.results import Results, read_results
from fedllm_eval.run import score_run
from fedllm_eval.running.assemble import make_results
from fedllm_eval.scores import SCORES, ClientScores

__all__ = [
    "SCORES",
    "ClientScores",
    "Policy",
    "Results",
    "compare_results",
    "evaluate_policy",
    "load_policy",
    "load_reference",
    "make_results",
    "read_results",
    "score_run",
    "write_results",
]
