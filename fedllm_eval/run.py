"""From names to a results folder: the whole of `fedllm-eval run` as one call.

By default the policy is scored on each client, and so are the personal adapters of a run that has some. Whatever else
is asked for (the base, training alone, pooled training, suites, an audit) joins the same table. Finished parts stay in
`OUT/.work`, so the same command goes on where it was stopped, and one more suite costs that suite alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fedllm_data.clients import ClientDataset, load_clients
from fedllm_data.errors import ConfigError
from fedllm_data.repo import FolderRepo, open_repo, split_of_file
from fedllm_eval.policy.run_folder import ROUNDS_FILE
from fedllm_eval.results import FILES, WORK, Results, join_results, make_results, write_results
from fedllm_eval.running.folders import check_out
from fedllm_eval.running.parts import Parts
from fedllm_eval.running.suite_runs import SuitePlan, check_suites, make_plan_judge, run_suites, suites_against_base

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy
    from fedllm_eval.running.policy_scores import Scored

__all__ = ["score_run"]

DEFAULT_SPLITS = ("test", "unseen")
DEFAULT_BETA = 0.1
"""TRL's default."""


def score_run(
    run_or_model: str | Path,
    repo_or_dir: str | Path,
    out: Path | None = None,
    *,
    reference: str | Path | None = None,
    splits: Sequence[str] | None = None,
    beta: float | None = None,
    max_clients: int | None = None,
    max_rows_per_client: int | None = None,
    batch_size: int = 8,
    max_length: int | None = None,
    seed: int = 0,
    revision: str | None = None,
    data_revision: str | None = None,
    base_too: bool = False,
    personal: bool = True,
    alone: str | Path | None = None,
    centralised: str | Path | None = None,
    language_runs: Mapping[str, str | Path] | None = None,
    suites: SuitePlan | None = None,
    kl_prompts: int = 0,
    general_data: str | Path | None = None,
    audit: Mapping[str, Any] | None = None,
    cost: Mapping[str, float | None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Results:
    """Score a run, an adapter or a model on each client of a client repo.

    Args:
        run_or_model: what is scored: run folder, adapter or plain model; folder or Hub id.
        repo_or_dir: client repo: folder or Hub id.
        out: results folder to write; None writes nothing.
        reference: what implicit rewards are measured against; by default what the run or adapter started from. A
            plain model has no such thing, and its implicit rewards are left out.
        splits: by default `test` and `unseen`, as far as the repo has them.
        beta: DPO's beta; by default the run's own, else 0.1.
        max_clients: score at most so many clients of each split.
        max_rows_per_client: score at most so many rows of each client.
        batch_size: sequences a batch holds at most.
        max_length: tokens a sequence keeps; by default 1,024 or as many as the model holds.
        seed: of the samples and of the bootstrap.
        revision: of `run_or_model` on the Hub.
        data_revision: of `repo_or_dir` on the Hub.
        base_too: score what the run started from as well, and give the gains over it.
        personal: score the personal adapters of a run that has some.
        alone: a run whose personal adapters were each trained on one client alone.
        centralised: a policy trained on all rows.
        language_runs: language code -> a run trained on that language, for the transfer matrix.
        suites: benchmarks to put to the policy, and to the base where it is scored; one that sets answers against an
            opponent takes the base for it, unless it is given a file.
        kl_prompts: estimate KL(policy || base) on answers to so many prompts; 0 leaves it out.
        general_data: a client repo of other conversations, for what was forgotten.
        audit: run the privacy audit, with options of `audit_command.audit_run`; None leaves it out.
        cost: `watts`, `download_mbit_per_second` and `upload_mbit_per_second` as in `run_cost.run_cost`.
        progress: told (split and policy, sequences done, sequences in all) after every batch.

    Raises:
        ConfigError: if a policy, a suite or a setting cannot be used; before anything is scored.
        SchemaError: if the repo is no client repo or has no such split.
        HubError: if something cannot be fetched.
        JudgeError: if the judge stops; what it judged is kept.
        MetricError: if no client has a row that can be scored.

    >>> score_run("no/such/folder", "no/such/folder")
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no folder no/such/folder here, and it cannot be a Hub id, which is org/name; check ...
    """
    if out is not None:
        check_out(out, FILES)
    plan = suites or SuitePlan()
    chosen_suites = check_suites(plan)
    work = None if out is None else Path(out) / WORK
    parts = Parts(None if work is None else work / "parts")
    all_clients = _load_splits(repo_or_dir, splits, data_revision)
    general = None if general_data is None else _load_splits(general_data, None, None)[0]

    from fedllm_eval.policy.policies import load_policy, load_reference
    from fedllm_eval.running.participation import with_who_took_part
    from fedllm_eval.running.personal import policy_content
    from fedllm_eval.running.policy_scores import Earlier, score_on_splits
    from fedllm_eval.running.trained_on import TrainedOn

    policy = load_policy(run_or_model, revision)
    judge = make_plan_judge(plan, None if work is None else work / "judgments")
    against_base = suites_against_base(chosen_suites, plan)
    if against_base and policy.adapter is None and (policy.location is None or policy.location.model is None):
        raise ConfigError(
            f"suite {against_base[0]} sets a policy against what it started from, and {policy.name!r} is a plain "
            f"model; give an opponent's answers by --switch {against_base[0]}.opponent=FILE"
        )
    needs_base = base_too or kl_prompts > 0 or general is not None or bool(against_base)
    # The start policy is loaded before anything is scored: a plain model, which has none, is told so at once.
    base = load_reference(policy) if needs_base or (audit is not None and policy.adapter is not None) else None
    against = None
    if all_clients[0].task == "preference":
        if reference is not None:
            against = load_policy(reference, share=policy)
        elif policy.adapter is not None:
            against = base or load_reference(policy)
    compared = _compared(policy, base if base_too else None, personal, alone, centralised, language_runs or {})
    places = {label: at.folder for label, scored in compared.items() if (at := scored.policy.location) is not None}
    trained_on = TrainedOn(all_clients, places)
    run_costs = _cost(policy, cost)
    own_beta = policy.location.beta if policy.location else None
    options: dict[str, Any] = {
        "beta": beta if beta is not None else own_beta if own_beta is not None else DEFAULT_BETA,
        "batch_size": batch_size,
        "max_length": max_length,
        "max_clients": max_clients,
        "max_rows_per_client": max_rows_per_client,
        "seed": seed,
    }
    results = {}
    earlier: list[Earlier] = []
    for label, scored in compared.items():
        scores = score_on_splits(
            scored, all_clients, parts, reference=against, earlier=earlier, progress=progress, **options
        )
        if label in ("policy", "base"):
            earlier.append(Earlier(policy_content(scored.policy), scores))
        if label == "policy":
            scores = [with_who_took_part(one, policy) for one in scores]
        if scores:
            results[label] = trained_on.noted(label, make_results(scores, seed=seed))
    found: dict[str, Any] = {"cost": run_costs}
    if chosen_suites:
        # Personal adapters are many policies; a suite's questions belong to no client.
        asked = {label: one for label, one in (("base", base if base_too else None), ("policy", policy)) if one}
        with TemporaryDirectory() as nowhere:
            folder = Path(nowhere) if work is None else work / "suites"
            found["suites"] = run_suites(
                *(chosen_suites, asked, plan, judge, parts, folder),
                opponent=base,
                batch_size=batch_size,
                seed=seed,
                progress=progress,
            )
    found |= _beside(
        *(policy, base, repo_or_dir, all_clients, general, parts, kl_prompts, audit),
        batch_size=batch_size,
        max_length=max_length,
        seed=seed,
        progress=progress,
    )
    own_clients = set(compared["alone"].personal) if "alone" in compared else None
    joined = join_results(results, alone_clients=own_clients, seed=seed, **found)
    joined = replace(joined, reused=tuple(parts.reused), changed=tuple(parts.changed))
    if out is not None:
        write_results(joined, out)
    return joined


def _compared(
    policy: "Policy",
    base: "Policy | None",
    personal: bool,
    alone: str | Path | None,
    centralised: str | Path | None,
    language_runs: Mapping[str, str | Path],
) -> "dict[str, Scored]":
    """The policies to score by label, the one that was named first."""
    from fedllm_eval.policy.policies import load_policy
    from fedllm_eval.running.policy_scores import Scored, of_run

    found: dict[str, Scored | None] = {"policy": Scored(label="policy", policy=policy)}
    if base is not None:
        found["base"] = Scored(label="base", policy=base)
    if personal:
        found["personal"] = of_run("personal", policy)
    if alone is not None:
        found["alone"] = of_run("alone", load_policy(alone, share=policy), alone=True)
    if centralised is not None:
        found["centralised"] = Scored(label="centralised", policy=load_policy(centralised, share=policy))
    for language, name in language_runs.items():
        label = f"language: {language}"
        found[label] = Scored(label=label, policy=load_policy(name, share=policy))
    return {label: scored for label, scored in found.items() if scored is not None}


def _cost(policy: "Policy", options: Mapping[str, float | None] | None) -> dict[str, Any] | None:
    """What the run cost, where the policy is a run folder with its rounds; stated lines and watts need one."""
    from fedllm_eval.running.run_cost import run_cost

    given: dict[str, Any] = {name: value for name, value in (options or {}).items() if value is not None}
    location = policy.location
    if location is None or location.kind != "run" or not (location.folder / ROUNDS_FILE).is_file():
        if given:
            raise ConfigError(f"{', '.join(given)} given, but {policy.name!r} has no rounds.jsonl; name a run folder")
        return None
    return run_cost(location.folder, **given).as_record()


def _beside(
    policy: "Policy",
    base: "Policy | None",
    repo_or_dir: str | Path,
    all_clients: Sequence[ClientDataset],
    general: ClientDataset | None,
    parts: Parts,
    kl_prompts: int,
    audit: Mapping[str, Any] | None,
    **options: Any,
) -> dict[str, Any]:
    """Distance from the base, general text and audit, as far as they were asked for."""
    from fedllm_eval.running.policy_parts import audit_part, general_text_part, kl_part

    found: dict[str, Any] = {}
    length = {"max_length": options.pop("max_length")}
    if kl_prompts and base is not None:
        found["kl"] = kl_part(policy, base, all_clients[0], kl_prompts, parts, **options)
    if general is not None and base is not None:
        without_bar = {name: value for name, value in options.items() if name != "progress"}
        found["general_text"] = general_text_part(policy, base, general, parts, **length, **without_bar)
    if audit is not None:
        found["audit"] = audit_part(policy, base, repo_or_dir, all_clients, parts, **length, **options, **audit)
    return found


def _load_splits(repo_or_dir: str | Path, splits: Sequence[str] | None, revision: str | None) -> list[ClientDataset]:
    repo = open_repo(repo_or_dir, revision)
    if splits is None:
        present = {split_of_file(path) for path in repo.files()}
        splits = [split for split in DEFAULT_SPLITS if split in present]
        if not splits:
            raise ConfigError(
                f"{repo_or_dir} has neither a test nor an unseen split; name what to score by --splits, for instance "
                "--splits train"
            )
    # All splits come from the commit that `revision` stood for when the repo was opened.
    pinned = None if isinstance(repo, FolderRepo) else repo.revision
    return [load_clients(repo_or_dir, split, pinned) for split in dict.fromkeys(splits)]
