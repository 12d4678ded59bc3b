"""Settings of who takes part in a round. Imports no torch."""

from dataclasses import dataclass, field

from fedllm_train.settings import Settings, check_at_least_one

__all__ = ["ParticipationSettings"]


@dataclass(frozen=True, kw_only=True)
class ParticipationSettings(Settings):
    """Who is asked, and how many must answer."""

    cohort_rule: str = field(
        default="uniform",
        metadata={
            "help": "Who takes part in a round: uniform; weighted (by rows, without replacement); fixed "
            "(cohort_clients); all; poisson (each on its own, cohort_size on average); fedllm-bench (as its code "
            "draws them)."
        },
    )
    cohort_size: int = field(default=10, metadata={"help": "Clients sampled per round."})
    cohort_clients: str | None = field(
        default=None, metadata={"help": "With cohort_rule fixed: the ids of the clients, joined by commas."}
    )
    min_clients: int = field(
        default=1, metadata={"help": "Make no server step in a round with fewer usable updates than this."}
    )

    def check(self) -> None:
        """Refuse counts below one; `cohort_rules.cohort_pool` checks the rest against a dataset's clients."""
        check_at_least_one(self, "cohort_size", "min_clients")
