"""What an evaluation does: how clients are scored, which other policies are scored with them, and what else is asked.

The three arguments of `score_run` beside the policy, the data and the place; `fedllm-eval run` has a flag for each
field.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedllm_eval.audit.audit_settings import AuditSettings
from fedllm_eval.running.run_cost import StatedCosts
from fedllm_eval.running.suite_runs import SuitePlan

__all__ = ["AskedBeside", "OtherPolicies", "ScoreSettings"]


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """How policies are scored on the clients."""

    splits: Sequence[str] | None = None
    """By default `test` and `unseen`, as far as the repo has them."""
    reference: str | Path | None = None
    """What implicit rewards are measured against; by default what the run or adapter started from. A plain model
    started from nothing, and its implicit rewards are left out."""
    beta: float | None = None
    """DPO's beta; by default the run's own, else 0.1."""
    max_clients: int | None = None
    """Score at most this many clients of each split."""
    max_rows_per_client: int | None = None
    """Score at most this many rows of each client."""
    batch_size: int = 8
    """Sequences that a batch holds at most."""
    max_length: int | None = None
    """Tokens that a sequence keeps; by default 1,024 or as many as the model holds."""
    seed: int = 0
    """Seeds the samples and the sign flips."""
    revision: str | None = None
    """Revision of the scored policy on the Hub."""
    data_revision: str | None = None
    """Revision of the client repo on the Hub."""


@dataclass(frozen=True, kw_only=True)
class OtherPolicies:
    """The policies that are scored on the same clients, for the gains over them."""

    base: bool = False
    """Score what the run started from as well."""
    personal: bool = True
    """Score the personal adapters of a run that has some."""
    alone: str | Path | None = None
    """A run whose personal adapters were each trained on one client alone."""
    centralised: str | Path | None = None
    """A policy trained on all rows."""
    language_runs: Mapping[str, str | Path] = field(default_factory=dict)
    """Language code -> a run trained on that language, for the transfer matrix."""


@dataclass(frozen=True, kw_only=True)
class AskedBeside:
    """What is asked beside the scores of clients."""

    suites: SuitePlan = field(default_factory=SuitePlan)
    """Benchmarks to put to the policy, and to the base where it is scored; one that sets answers against an opponent
    takes the base for it, unless it is given a file."""
    kl_prompts: int = 0
    """Estimate KL(policy || base) on answers to this many prompts; 0 leaves it out."""
    general_data: str | Path | None = None
    """A client repo of other conversations, for what was forgotten."""
    audit: AuditSettings | None = None
    """Run the privacy audit; None leaves it out."""
    costs: StatedCosts = field(default_factory=StatedCosts)
    """The line and the watts that the run's cost is calculated with."""
    language: str | None = None
    """Of the page that shows it all, `en` or `ja`; by default it carries both, and the reader's browser chooses."""
