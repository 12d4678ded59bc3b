"""Suites alone: benchmarks put to a policy whose clients are not scored, such as one that only a server has.

Nothing here reads weights where the policy is served: no torch is imported, and log-probabilities (losses, rewards,
the KL, the audit, and the suites that choose by them) are not part of the results.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from fedllm_data.errors import ConfigError
from fedllm_data.rehearsal import end_of_checks
from fedllm_eval.policy.early_checks import check_policies
from fedllm_eval.reporting.results_folder import FILES, WORK, write_results
from fedllm_eval.results import Results
from fedllm_eval.running.assemble import suites_alone
from fedllm_eval.running.finished_parts import FinishedParts
from fedllm_eval.running.folders import check_out
from fedllm_eval.running.suite_runs import (
    SuiteBench,
    SuitePlan,
    check_served,
    check_suites,
    make_plan_judge,
    run_suites,
    suites_against_base,
)
from fedllm_eval.served import connect

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["score_suites"]

Progress = Callable[[str, int, int], None]


def score_suites(
    plan: SuitePlan,
    out: Path | None = None,
    *,
    run_or_model: str | Path | None = None,
    base: bool = False,
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Results:
    """Put suites to a policy and to nothing else.

    Args:
        plan: the suites, their judge, and where the policy is served.
        out: results folder to write; None writes nothing.
        run_or_model: run folder, adapter or plain model whose weights answer; None where the policy is served.
        base: put the base to them as well.
        batch_size: conversations side by side, of weights in memory.
        seed: seeds sampled answers.
        progress: called with (suite and policy, items done, items in all).

    Raises:
        ConfigError: if there is no suite, nobody to answer, or something a suite needs is missing.
        JudgeError: if the judge stops; what it judged is kept.
        ServedModelError: if the server cannot be asked; what it answered is kept.

    >>> score_suites(SuitePlan())
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: only suites were asked for, and none is named; name one by --suite
    """
    if not plan.names:
        raise ConfigError("only suites were asked for, and none is named; name one by --suite")
    if (plan.served is None) == (run_or_model is None):
        raise ConfigError(
            "suites alone are put either to weights (RUN_OR_MODEL) or to a served policy (--served), "
            f"got {'both' if run_or_model is not None else 'neither'}; give one of them"
        )
    if out is not None:
        check_out(out, FILES)
    suites = check_suites(plan)
    check_served(plan, suites, base=base, weights=run_or_model is not None)
    needs_base = base or bool(suites_against_base(suites, plan))
    served = None if plan.served is None else connect(plan.served)
    if run_or_model is not None:
        check_policies([run_or_model])
    end_of_checks()
    policies: dict[str, Policy | None] = {"base": None, "policy": None}
    if run_or_model is not None:
        from fedllm_eval.policy.policies import load_policy, load_reference

        policies["policy"] = loaded = load_policy(run_or_model)
        policies["base"] = load_reference(loaded) if needs_base else None
    opponent = policies["base"]
    if not base:
        del policies["base"]
    work = None if out is None else Path(out) / WORK
    parts = FinishedParts(None if work is None else work / "parts")
    with TemporaryDirectory() as nowhere:
        bench = SuiteBench(
            plan=plan,
            suites=suites,
            judge=make_plan_judge(plan, None if work is None else work / "judgments"),
            parts=parts,
            served=served,
            folder=Path(nowhere) if work is None else work / "suites",
            opponent=opponent,
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
        found = run_suites(bench, policies)
    who = served.policy if served is not None else policies["policy"]
    assert who is not None
    results = suites_alone(who.describe(), found, seed=seed)
    results = replace(results, reused=tuple(parts.reused), changed=tuple(parts.changed))
    if out is not None:
        write_results(results, out)
    return results
