"""Several runs audited alike, so that what each protection keeps back stands side by side: none, noise, sums, wires.

All runs are audited on one client repo with one file of canaries, and share the base model in memory where they stand
on the same one. What differs between two rows of the table is then what the runs did.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_data.rehearsal import end_of_checks
from fedllm_data.repo import open_repo
from fedllm_eval.audit.audit_run import audit_run
from fedllm_eval.audit.audit_settings import AuditSettings
from fedllm_eval.audit.canaries import read_secrets
from fedllm_eval.policy.early_checks import check_policies
from fedllm_eval.reporting.audit_files import FILES, write_audits
from fedllm_eval.running.folders import check_out

__all__ = ["FORMAT", "audit_runs", "run_labels"]

FORMAT = "fedllm-eval-audits/1"


def audit_runs(
    runs: Sequence[str],
    repo_or_dir: str | Path,
    out: Path | None = None,
    *,
    reference: str | None = None,
    settings: AuditSettings | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    language: str | None = None,
) -> dict[str, Any]:
    """Audit every run on the client repo that all were trained on.

    Args:
        runs: run folders, adapters or models; `NAME=RUN` gives one a name.
        repo_or_dir: the client repo: folder or Hub id.
        out: folder for `audits.json`, `audits.md` and `audit.html`; None writes nothing.
        reference: the start policy of all; by default what each started from.
        settings: how they are audited.
        progress: called after every batch.
        language: of the page; by default it speaks all languages.

    Returns:
        `format`, and `runs`: name -> what `audit_run` returns, in the order given.

    Raises:
        ConfigError: if two runs have one name, or as `audit_run`.
    """
    labels = run_labels(runs)
    if out is not None:
        check_out(out, FILES)
    open_repo(repo_or_dir)
    check_policies([*labels.values(), reference])
    if settings is not None and settings.secrets is not None:
        read_secrets(settings.secrets)

    end_of_checks()
    from fedllm_eval.policy.policies import Policy, load_policy

    first: Policy | None = None
    found: dict[str, Any] = {}
    for name, place in labels.items():
        policy = load_policy(place, share=first)
        first = first or policy
        found[name] = audit_run(policy, repo_or_dir, reference=reference, settings=settings, progress=progress)
        if policy.adapter is not None:
            policy.backbone.unload_adapter(policy.adapter)
    audits = {"format": FORMAT, "runs": found}
    if out is not None:
        write_audits(audits, out, language=language)
    return audits


def run_labels(runs: Sequence[str]) -> dict[str, str]:
    """Return what each run is called: the name given before "=", else the last parts of its path that differ.

    Raises:
        ConfigError: if two have one name.

    >>> run_labels(["runs/a", "dp=runs/b"])
    {'a': 'runs/a', 'dp': 'runs/b'}
    >>> run_labels(["x/sft", "y/sft"])
    {'x/sft': 'x/sft', 'y/sft': 'y/sft'}
    """
    named = []
    for run in runs:
        name, has_name, place = run.partition("=")
        # A path may hold "=": only what cannot be one itself is a name.
        is_named = bool(has_name and name and place) and os.sep not in name and not Path(run).exists()
        named.append((name, place) if is_named else (None, run))
    short = [name or Path(place).name or place for name, place in named]
    names = [
        place if name is None and short.count(short[index]) > 1 else short[index]
        for index, (name, place) in enumerate(named)
    ]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"two runs are called {twice[0]!r}; name them, as in NAME=RUN")
    return dict(zip(names, (place for _, place in named), strict=True))
