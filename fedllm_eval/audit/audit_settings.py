"""How a run is audited: plain settings, without a library of models."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["AuditSettings"]


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """How a run is audited."""

    nonmembers: str = "unseen"
    """The split whose rows the run never saw."""
    secrets: Path | None = None
    """The secrets file of planted canaries."""
    num_candidates: int = 999
    """Secrets that each canary is ranked against."""
    delta: float | None = None
    """Delta of the guarantee whose epsilon is bounded; None for that of the run's own guarantee, 0 without one."""
    confidence: float = 0.95
    """That epsilon is at least what canaries with coins show."""
    num_exposed: int = 10
    """Canaries with coins whose exposure and extraction are measured, this many of those that are in and as many of
    those that are out; each takes `num_candidates` sequences. Canaries without coins all are."""
    max_rows: int | None = None
    """Use at most this many rows of each side."""
    batch_size: int = 8
    """Sequences that a batch holds at most."""
    max_length: int | None = None
    """Tokens that a sequence keeps."""
    seed: int = 0
    """Seeds samples, halves and candidates."""
