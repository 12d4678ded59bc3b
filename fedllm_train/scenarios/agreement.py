"""Whether a run cost what its plan said: bytes to the byte, and the simulated time exactly.

Where a plan calls bytes an estimate (entropy coding, cohorts drawn from a secret), both are shown, with the reason,
and nothing is checked.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedllm_train.planning.planned import WHY

__all__ = ["Agreement", "agreement_of"]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One figure of one candidate, planned and run."""

    what: str
    planned: float
    run: float
    why_estimate: str = ""
    """Why they may differ, in words; empty where they must not."""

    @property
    def figures(self) -> tuple[str, str]:
        """Planned and run, as they are printed: whole bytes, and seconds with as many digits as show a difference."""
        digits = ",.0f" if float(self.planned).is_integer() and float(self.run).is_integer() else ",.9g"
        return f"{self.planned:{digits}}", f"{self.run:{digits}}"

    @property
    def is_kept(self) -> bool:
        """Whether the run did what was planned, or did not have to."""
        # Seconds are sums of the same numbers in the same order; what reads them back from JSON keeps all digits.
        return bool(self.why_estimate) or math.isclose(self.planned, self.run, rel_tol=1e-12, abs_tol=0.0)


def agreement_of(planned: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> list[Agreement]:
    """Return every figure that plan and run both have.

    Args:
        planned: the record of one candidate's plan (`planning/planned.py`).
        rounds: the run's `rounds.jsonl`.

    >>> travel = {"down": 20, "up": 10, "why_estimate": []}
    >>> rounds = [{"ledger": {"download_bytes": 20, "upload_bytes": 11}}]
    >>> [each.is_kept for each in agreement_of({"travel": travel, "time": None}, rounds)]
    [True, False]
    """
    last, travel = rounds[-1], planned["travel"]
    why = "; ".join(WHY.get(reason, reason) for reason in travel["why_estimate"])
    ledger = last["ledger"]
    found = [
        Agreement(what="bytes down", planned=travel["down"], run=ledger["download_bytes"], why_estimate=why),
        Agreement(what="bytes up", planned=travel["up"], run=ledger["upload_bytes"], why_estimate=why),
    ]
    if planned["time"] is not None and "clock_seconds" in last:
        seconds = planned["time"]["total_hours"] * 3600
        found.append(Agreement(what="simulated seconds", planned=seconds, run=last["clock_seconds"], why_estimate=why))
    return found
