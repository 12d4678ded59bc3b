"""From names to a results folder: the whole of `fedllm-eval run` as one call.

By default the policy is scored on each client, and so are the personal adapters of a run that has some. Whatever else
is asked for (the base, training alone, pooled training, suites, an audit) joins the same table. Finished parts stay in
`OUT/.work`, so the same command goes on where it was stopped, and one more suite costs that suite alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fedllm_data.clients import ClientDataset, load_clients
from fedllm_data.errors import ConfigError, SchemaError
from fedllm_data.rehearsal import end_of_checks
from fedllm_data.repo import FolderRepo, open_repo, split_of_file
from fedllm_eval.policy.early_checks import check_policies
from fedllm_eval.policy.known_logps import KeptLogps
from fedllm_eval.policy.run_folder import ROUNDS_FILE
from fedllm_eval.reporting.results_folder import FILES, WORK, write_results
from fedllm_eval.results import Results
from fedllm_eval.running.assemble import join_results, make_results
from fedllm_eval.running.finished_parts import FinishedParts
from fedllm_eval.running.folders import check_out
from fedllm_eval.running.policy_parts import AgainstBase, audit_part, general_text_part, kl_part
from fedllm_eval.running.run_cost import StatedCosts, run_cost
from fedllm_eval.running.run_left_behind import left_behind_of_run
from fedllm_eval.running.suite_runs import (
    SuiteBench,
    SuitePlan,
    check_served,
    check_suites,
    make_plan_judge,
    run_suites,
    suites_against_base,
)
from fedllm_eval.score_settings import AskedBeside, OtherPolicies, ScoreSettings
from fedllm_eval.served import connect
from fedllm_eval.suites import Suite

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy
    from fedllm_eval.running.policy_scores import ScoredPolicy

__all__ = ["score_run"]

LOGPS = "logps"
"""Where log-probabilities are kept, in the folder of finished parts."""
DEFAULT_SPLITS = ("test", "unseen")
DEFAULT_BETA = 0.1
"""TRL's default."""

Progress = Callable[[str, int, int], None]


def score_run(
    run_or_model: str | Path,
    repo_or_dir: str | Path,
    out: Path | None = None,
    *,
    settings: ScoreSettings | None = None,
    others: OtherPolicies | None = None,
    beside: AskedBeside | None = None,
    progress: Progress | None = None,
) -> Results:
    """Score a run, an adapter or a model on each client of a client repo.

    Args:
        run_or_model: what is scored: run folder, adapter or plain model; folder or Hub id.
        repo_or_dir: client repo: folder or Hub id.
        out: results folder to write; None writes nothing.
        settings: how policies are scored; the defaults where None.
        others: which other policies are scored on the same clients; by default the run's personal adapters, if it has
            some.
        beside: suites, distance from the base, general text, audit and cost; by default the cost alone.
        progress: called with (split and policy, sequences done, sequences in all) after every batch.

    Raises:
        ConfigError: if a policy, a suite or a setting cannot be used; before anything is scored.
        SchemaError: if the repo is no client repo or has no such split.
        HubError: if something cannot be fetched.
        JudgeError: if the judge stops; what it judged is kept.
        ServedModelError: if the server of a served policy cannot be asked; what it answered is kept.
        MetricError: if no client has a row that can be scored.

    >>> score_run("no/such/folder", "no/such/folder")
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no folder no/such/folder here, and it cannot be a Hub id, which is org/name; check ...
    """
    settings, others, beside = settings or ScoreSettings(), others or OtherPolicies(), beside or AskedBeside()
    if out is not None:
        check_out(out, FILES)
    suites = check_suites(beside.suites)
    work = None if out is None else Path(out) / WORK
    parts = FinishedParts(None if work is None else work / "parts")
    of_clients = _Splits.of(repo_or_dir, settings.splits, settings.data_revision)
    of_general = None if beside.general_data is None else _Splits.of(beside.general_data)
    check_served(beside.suites, suites, base=others.base, weights=True)
    check_policies(
        [run_or_model, settings.reference, others.alone, others.centralised, *others.language_runs.values()]
    )
    all_clients = of_clients.load()
    general = None if of_general is None else of_general.load()[0]

    # Asked before weights are loaded: a name that the server does not have is one line at once.
    served = None if beside.suites.served is None else connect(beside.suites.served)
    end_of_checks()

    from fedllm_eval.policy.policies import load_policy, load_reference

    policy = load_policy(run_or_model, settings.revision)
    judge = make_plan_judge(beside.suites, None if work is None else work / "judgments")
    needs_base = others.base or beside.kl_prompts > 0 or general is not None
    if served is None:
        needs_base |= _has_base_for_opponent(policy, suites, beside.suites)
    # The start policy is loaded before anything is scored: a plain model, which has none, is refused at once.
    base = load_reference(policy) if needs_base or (beside.audit is not None and policy.adapter is not None) else None
    compared = _compared(policy, base if others.base else None, others)
    costs = _cost(policy, beside.costs)
    kept = KeptLogps(*_where_kept(out, settings.cache))
    results = _scored_on_clients(compared, all_clients, settings, parts, base=base, kept=kept, progress=progress)
    reading: dict[str, Any] = {"batch_size": settings.batch_size, "seed": settings.seed, "progress": progress}
    found: dict[str, Any] = {"cost": costs}
    if suites:
        # Personal adapters are many policies; a suite's questions belong to no client.
        asked = {label: one for label, one in (("base", base if others.base else None), ("policy", policy)) if one}
        with TemporaryDirectory() as nowhere:
            folder = Path(nowhere) if work is None else work / "suites"
            bench = SuiteBench(
                plan=beside.suites,
                suites=suites,
                judge=judge,
                parts=parts,
                served=served,
                folder=folder,
                opponent=base,
                **reading,
            )
            found["suites"] = run_suites(bench, asked)
    pair = AgainstBase(policy=policy, base=base, parts=parts, max_length=settings.max_length, **reading)
    if beside.kl_prompts:
        found["kl"] = kl_part(pair, all_clients[0], beside.kl_prompts)
    if general is not None:
        found["general_text"] = general_text_part(pair, general)
    if beside.audit is not None:
        found["audit"] = audit_part(pair, repo_or_dir, all_clients[0], beside.audit)
    own_clients = set(compared["alone"].personal) if "alone" in compared else None
    found["left_behind"] = _left_behind(policy, of_clients, results["policy"], settings.seed)
    joined = join_results(results, alone_clients=own_clients, seed=settings.seed, **found)
    joined = replace(
        joined,
        reused=tuple(parts.reused),
        changed=(*parts.changed, *kept.problems),
        taken_over=tuple(kept.taken()),
    )
    if out is not None:
        write_results(joined, out, beside.language)
    return joined


def _has_base_for_opponent(policy: "Policy", suites: Mapping[str, Suite], plan: SuitePlan) -> bool:
    """Whether some suite sets the policy against its base; a plain model has none to be set against."""
    against_base = suites_against_base(suites, plan)
    if against_base and policy.adapter is None and (policy.location is None or policy.location.model is None):
        raise ConfigError(
            f"suite {against_base[0]} sets a policy against what it started from, and {policy.name!r} is a plain "
            f"model; give an opponent's answers by --switch {against_base[0]}.opponent=FILE"
        )
    return bool(against_base)


def _compared(policy: "Policy", base: "Policy | None", others: OtherPolicies) -> "dict[str, ScoredPolicy]":
    """The policies to score by label, the one that was named first."""
    from fedllm_eval.policy.policies import load_policy
    from fedllm_eval.running.policy_scores import ScoredPolicy, of_run

    found: dict[str, ScoredPolicy | None] = {"policy": ScoredPolicy(label="policy", policy=policy)}
    if base is not None:
        found["base"] = ScoredPolicy(label="base", policy=base)
    if others.personal:
        found["personal"] = of_run("personal", policy)
    if others.alone is not None:
        found["alone"] = of_run("alone", load_policy(others.alone, share=policy), alone=True)
    if others.centralised is not None:
        found["centralised"] = ScoredPolicy(label="centralised", policy=load_policy(others.centralised, share=policy))
    for language, name in others.language_runs.items():
        label = f"language: {language}"
        found[label] = ScoredPolicy(label=label, policy=load_policy(name, share=policy))
    return {label: scored for label, scored in found.items() if scored is not None}


def _scored_on_clients(
    compared: "Mapping[str, ScoredPolicy]",
    all_clients: Sequence[ClientDataset],
    settings: ScoreSettings,
    parts: FinishedParts,
    *,
    base: "Policy | None",
    kept: KeptLogps,
    progress: Progress | None,
) -> dict[str, Results]:
    """Every policy's results on all splits, by label."""
    from fedllm_eval.policy.policies import load_policy, load_reference
    from fedllm_eval.running.participation import with_who_took_part
    from fedllm_eval.running.personal_scores import policy_content
    from fedllm_eval.running.policy_scores import Earlier, score_on_splits
    from fedllm_eval.running.trained_on import TrainedOn

    policy = compared["policy"].policy
    against = None
    if all_clients[0].task == "preference":
        if settings.reference is not None:
            against = load_policy(settings.reference, share=policy)
        elif policy.adapter is not None:
            against = base or load_reference(policy)
    places = {label: at.folder for label, scored in compared.items() if (at := scored.policy.location) is not None}
    trained_on = TrainedOn(all_clients, places)
    own_beta = policy.location.beta if policy.location else None
    options: dict[str, Any] = {
        name: getattr(settings, name)
        for name in ("batch_size", "max_length", "max_clients", "max_rows_per_client", "seed")
    }
    options["beta"] = next(beta for beta in (settings.beta, own_beta, DEFAULT_BETA) if beta is not None)
    results = {}
    earlier: list[Earlier] = []
    for label, scored in compared.items():
        scores = score_on_splits(
            scored, all_clients, parts, reference=against, earlier=earlier, kept=kept, progress=progress, **options
        )
        if label in ("policy", "base"):
            earlier.append(Earlier(policy_content(scored.policy), scores))
        if label == "policy":
            scores = [with_who_took_part(one, policy) for one in scores]
        if scores:
            results[label] = trained_on.noted(label, make_results(scores, seed=settings.seed))
    return results


def _where_kept(out: Path | None, cache: Path | None) -> tuple[Path | None, list[Path]]:
    """Where log-probabilities are read and written, and where they are read besides: folders of results beside."""
    if out is None:
        return cache, []
    own = Path(out) / WORK / LOGPS
    around = sorted(Path(out).resolve().parent.glob(f"*/{WORK}/{LOGPS}"))
    beside = [folder for folder in around if folder != own.resolve()]
    return (own, beside) if cache is None else (cache, [own, *beside])


def _cost(policy: "Policy", stated: StatedCosts) -> dict[str, Any] | None:
    """What the run cost, where the policy is a run folder with its rounds; stated lines and watts need one."""
    location, given = policy.location, stated.given()
    if location is None or location.kind != "run" or not (location.folder / ROUNDS_FILE).is_file():
        if given:
            raise ConfigError(f"{', '.join(given)} given, but {policy.name!r} has no {ROUNDS_FILE}; name a run folder")
        return None
    return run_cost(location.folder, stated).as_record()


def _left_behind(policy: "Policy", of_clients: "_Splits", results: Results, seed: int) -> dict[str, Any] | None:
    """What each group of clients gave to the run and how it is served, where the policy is a run folder."""
    location = policy.location
    if location is None or location.kind != "run":
        return None
    return left_behind_of_run(location.folder, of_clients.client_table(), results, seed=seed)


@dataclass(frozen=True)
class _Splits:
    """Splits of a client repo that is there; their rows are not read yet."""

    repo_or_dir: str | Path
    names: tuple[str, ...]
    revision: str | None
    """The commit that all splits come from; None for a folder."""

    @classmethod
    def of(
        cls, repo_or_dir: str | Path, splits: Sequence[str] | None = None, revision: str | None = None
    ) -> "_Splits":
        """Look up a repo; by default its splits `test` and `unseen`, as far as it has them."""
        repo = open_repo(repo_or_dir, revision)
        if splits is None:
            present = {split_of_file(path) for path in repo.files()}
            splits = [split for split in DEFAULT_SPLITS if split in present]
            if not splits:
                raise ConfigError(
                    f"{repo_or_dir} has neither a test nor an unseen split; name what to score by --splits, for "
                    "instance --splits train"
                )
        # All splits come from the commit that `revision` stood for when the repo was opened.
        pinned = None if isinstance(repo, FolderRepo) else repo.revision
        return cls(repo_or_dir, tuple(dict.fromkeys(splits)), pinned)

    def client_table(self) -> pa.Table | None:
        """Return the clients table of all splits; None where the repo has none."""
        try:
            return open_repo(self.repo_or_dir, self.revision).client_table()
        except SchemaError:
            return None

    def load(self) -> list[ClientDataset]:
        """Return the clients of each split."""
        return [load_clients(self.repo_or_dir, split, self.revision) for split in self.names]
