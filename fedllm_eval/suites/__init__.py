"""Benchmarks beside the per-client scores: one file a suite, chosen by name from `SUITES`."""

from fedllm_eval.suites.suite import Suite, SuiteOptions, SuiteResult, SuiteScore

__all__ = ["NEED_WEIGHTS", "SUITES", "Suite", "SuiteOptions", "SuiteResult", "SuiteScore"]

SUITES: dict[str, str] = {
    "mt_bench": "fedllm_eval.suites.mt_bench:MTBench",
    "ref_gpt4": "fedllm_eval.suites.ref_gpt4:RefGPT4",
    "vicuna": "fedllm_eval.suites.vicuna:Vicuna",
    "pairwise": "fedllm_eval.suites.pairwise:Pairwise",
    "advbench": "fedllm_eval.suites.advbench:AdvBench",
    "over_refusal": "fedllm_eval.suites.over_refusal:OverRefusal",
    "crass": "fedllm_eval.suites.crass:Crass",
    "gsm8k": "fedllm_eval.suites.gsm8k:Gsm8k",
    "harness": "fedllm_eval.suites.harness:Harness",
    "industry:medicine": "fedllm_eval.suites.industry:Medicine",
    "industry:finance": "fedllm_eval.suites.industry:Finance",
    "industry:law": "fedllm_eval.suites.industry:Law",
    "industry:code": "fedllm_eval.suites.industry:Code",
    "language": "fedllm_eval.suites.language:Language",
}
"""Name -> `module:Class`, imported when it is run."""
NEED_WEIGHTS = frozenset({"crass", "harness", *(name for name in SUITES if name.startswith("industry:"))})
"""Suites that read log-probabilities of given texts, which an endpoint does not give: they run on weights alone."""
