"""What a run gives away: membership inference and planted canaries on the client repo that it was trained on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.clients import load_clients
from fedllm_data.rehearsal import end_of_checks
from fedllm_data.repo import open_repo
from fedllm_eval.audit.audit_settings import AuditSettings
from fedllm_eval.audit.canaries import Canary, read_secrets
from fedllm_eval.audit.claims import Claim, claimed, protections, verdict
from fedllm_eval.audit.coin_audit import audit_coins, unit_of
from fedllm_eval.audit.membership_audit import audit_membership
from fedllm_eval.audit.memorisation import audit_canaries
from fedllm_eval.plain_json import without_nan
from fedllm_eval.policy.early_checks import check_policies
from fedllm_eval.policy.run_folder import find_config
from fedllm_eval.reporting.audit_files import FILES, write_audits
from fedllm_eval.running.folders import check_out

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["audit_run"]

FORMAT = "fedllm-eval-audit/1"


def audit_run(
    run_or_model: "str | Path | Policy",
    repo_or_dir: str | Path,
    out: Path | None = None,
    *,
    reference: "str | Path | Policy | None" = None,
    settings: AuditSettings | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    language: str | None = None,
) -> dict[str, Any]:
    """Audit a run on the client repo it was trained on: members are its training rows.

    Bounds on epsilon stand beside what the run claims (`verdicts`). Those of canaries with coins hold as they are;
    those of membership take two splits for dealt by coins, which the notes put into words.

    Args:
        run_or_model: what is audited; a name, or a policy in memory.
        repo_or_dir: client repo: folder or Hub id.
        out: folder for `audit.json`, `audit.md` and `audit.html`; None writes nothing.
        reference: the start policy; by default what the run or adapter started from.
        settings: how it is audited; the defaults where None.
        progress: called after every batch.
        language: of the page; by default it speaks all languages.

    Raises:
        ConfigError: if the policy, the secrets or a setting cannot be used.
        SchemaError: if the repo has no such split.
        MetricError: if no row can be scored.
    """
    settings = settings or AuditSettings()
    if out is not None:
        check_out(out, FILES)
    open_repo(repo_or_dir)
    check_policies([run_or_model, reference])
    canaries = None if settings.secrets is None else read_secrets(settings.secrets)
    inside, outside = load_clients(repo_or_dir, "train"), load_clients(repo_or_dir, settings.nonmembers)

    end_of_checks()
    from fedllm_eval.policy.policies import Policy, load_policy, load_reference

    policy = run_or_model if isinstance(run_or_model, Policy) else load_policy(run_or_model)
    start = None
    if reference is not None:
        start = reference if isinstance(reference, Policy) else load_policy(reference, share=policy)
    elif policy.adapter is not None:
        start = load_reference(policy)
    config = None if policy.location is None else find_config(policy.location.folder)
    claims = claimed(config)
    settings = replace(settings, delta=_delta(settings.delta, claims, canaries))
    found = audit_membership(policy, inside, outside, reference=start, settings=settings, progress=progress)
    audit: dict[str, Any] = {
        "format": FORMAT,
        "policy": policy.describe(),
        "reference": None if start is None else start.describe(),
        "dataset": {"name": inside.name, "revision": inside.revision, "non_members": settings.nonmembers},
        "settings": {name: getattr(settings, name) for name in ("delta", "max_rows", "max_length", "seed")},
        "claimed": {unit: asdict(claim) for unit, claim in claims.items()},
        "protections": protections(config),
        "membership": found,
        "canaries": None,
        "one_run": None,
    }
    if canaries is not None:
        _add_canaries(audit, policy, start, canaries, settings, progress)
    audit["verdicts"] = _verdicts(audit, claims)
    audit = without_nan(audit)
    if out is not None:
        write_audits(audit, out, language=language)
    return audit


def _delta(asked: float | None, claims: Mapping[str, Claim], canaries: Sequence[Canary] | None) -> float:
    """The delta of the bounds: as asked, else that of the claim for the canaries' unit, else of any claim, else 0."""
    if asked is not None:
        return asked
    unit = None if canaries is None else unit_of(canaries)
    if unit is not None and unit in claims:
        return claims[unit].delta
    return max((claim.delta for claim in claims.values()), default=0.0)


def _add_canaries(
    audit: dict[str, Any],
    policy: "Policy",
    start: "Policy | None",
    canaries: Sequence[Canary],
    settings: AuditSettings,
    progress: Callable[[str, int, int], None] | None,
) -> None:
    """Add what the policy kept of the canaries, and what their coins prove if any were thrown."""
    options: dict[str, Any] = {name: getattr(settings, name) for name in ("num_candidates", "batch_size", "seed")}
    options["progress"] = progress
    exposed = {True: list(canaries), False: []}
    if unit_of(canaries) is not None:
        exposed = {side: [c for c in canaries if c.is_in is side][: settings.num_exposed] for side in (True, False)}
        audit["one_run"] = audit_coins(
            policy,
            canaries,
            reference=start,
            delta=settings.delta or 0.0,
            confidence=settings.confidence,
            batch_size=settings.batch_size,
            seed=settings.seed,
            progress=progress,
        )
    audit["canaries"] = {"trained": None, "start": None}
    if exposed[True]:
        audit["canaries"]["trained"] = audit_canaries(policy, exposed[True], **options)
        if start is not None:
            audit["canaries"]["start"] = audit_canaries(start, exposed[True], **options)
    if exposed[False]:
        audit["canaries"]["kept_out"] = audit_canaries(policy, exposed[False], **options)


def _verdicts(audit: Mapping[str, Any], claims: Mapping[str, Claim]) -> list[dict[str, Any]]:
    """Every bound beside the claim for its unit: that of the coins first."""
    bounds = [] if audit["one_run"] is None else [("coins", audit["one_run"]["unit"], audit["one_run"])]
    for name, attack in audit["membership"]["attacks"].items():
        bounds += [(name, unit, bound) for unit, bound in attack["epsilon"].items()]
    return [
        {
            "attack": name,
            "unit": unit,
            "epsilon": bound["epsilon"],
            "claimed": claims[unit].epsilon if unit in claims else None,
            "verdict": verdict(bound, claims.get(unit)),
        }
        for name, unit, bound in bounds
    ]
