"""What a run gives away: membership inference and planted canaries on the client repo that it was trained on."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedllm_data.clients import load_clients
from fedllm_data.rehearsal import end_of_checks
from fedllm_data.repo import open_repo
from fedllm_eval.audit.audit_settings import AuditSettings
from fedllm_eval.audit.canaries import read_secrets
from fedllm_eval.audit.membership_audit import audit_membership
from fedllm_eval.audit.memorisation import audit_canaries
from fedllm_eval.plain_json import without_nan
from fedllm_eval.policy.early_checks import check_policies
from fedllm_eval.reporting.audit_lines import audit_lines
from fedllm_eval.running.folders import check_out, replace_folder
from fedllm_eval.texts import json_text, whole

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["audit_run"]

FILES = ("audit.json", "audit.md")
FORMAT = "fedllm-eval-audit/1"


def audit_run(
    run_or_model: "str | Path | Policy",
    repo_or_dir: str | Path,
    out: Path | None = None,
    *,
    reference: "str | Path | Policy | None" = None,
    settings: AuditSettings | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Audit a run on the client repo it was trained on: members are its training rows.

    Args:
        run_or_model: what is audited; a name, or a policy in memory.
        repo_or_dir: client repo: folder or Hub id.
        out: folder for `audit.json` and `audit.md`; None writes nothing.
        reference: the start policy; by default what the run or adapter started from.
        settings: how it is audited; the defaults where None.
        progress: called after every batch.

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
    found = audit_membership(policy, inside, outside, reference=start, settings=settings, progress=progress)
    audit: dict[str, Any] = {
        "format": FORMAT,
        "policy": policy.describe(),
        "reference": None if start is None else start.describe(),
        "dataset": {"name": inside.name, "revision": inside.revision, "non_members": settings.nonmembers},
        "settings": {name: getattr(settings, name) for name in ("delta", "max_rows", "max_length", "seed")},
        "membership": found,
        "canaries": None,
    }
    if canaries is not None:
        options: dict[str, Any] = {name: getattr(settings, name) for name in ("num_candidates", "batch_size", "seed")}
        options["progress"] = progress
        audit["canaries"] = {"trained": audit_canaries(policy, canaries, **options), "start": None}
        if start is not None:
            audit["canaries"]["start"] = audit_canaries(start, canaries, **options)
    audit = without_nan(audit)
    if out is not None:
        replace_folder(out, lambda folder: _write(audit, folder), FILES)
    return audit


def _write(audit: dict[str, Any], folder: Path) -> None:
    text = json_text(audit, indent=2, allow_nan=False)
    (folder / "audit.json").write_text(text + "\n", encoding="utf-8")
    lines = [f"# What {audit['policy']['name']} gives away", "", *(f"- {line}" for line in audit_lines(audit))]
    (folder / "audit.md").write_text(whole("\n".join(lines)) + "\n", encoding="utf-8")
