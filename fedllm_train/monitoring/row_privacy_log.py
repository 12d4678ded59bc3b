"""What every round's record says of a run that is private to rows."""

from fedllm_train.monitoring.observer import Observer, Record, Step
from fedllm_train.privacy.row_guarantee import RowGuarantee

__all__ = ["RowPrivacyLog"]


class RowPrivacyLog(Observer):
    """Says what the rounds so far have spent: calculated from settings, and from no row."""

    def __init__(self, guarantee: RowGuarantee) -> None:
        """Take the run's guarantee."""
        self._guarantee = guarantee

    def stepped(self, step: Step) -> Record:
        """Return unit, epsilon and delta after the round."""
        epsilon = self._guarantee.epsilon(step.index + 1)
        return {"privacy": {"unit": "example", "epsilon": epsilon, "delta": self._guarantee.delta}}
