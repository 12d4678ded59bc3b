"""Settings of who takes part in a round, and of the clock that clients' machines keep. Imports no torch."""

import math
from dataclasses import dataclass, field
from typing import Literal

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_train.given import given_of
from fedllm_train.settings import Settings, check_at_least_one

__all__ = ["PARTICIPATIONS", "ParticipationSettings"]

PARTICIPATIONS = ("synchronous", "deadline", "buffered")
"""Rules of participation: `synchronous.py`, `deadline.py`, `buffered.py`."""

_OF_DEADLINE = ("deadline_seconds", "over_selection", "late", "partial_work")
_OF_BUFFERED = ("buffer_size", "concurrency")
_OF_STALE = ("staleness_exponent", "max_staleness")
_OF_CLOCK = ("drop_out", "tokens_per_row")


@dataclass(frozen=True, kw_only=True)
class ParticipationSettings(Settings):
    """Who is asked, how many must answer, and how long the server waits."""

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
    participation: Literal["synchronous", "deadline", "buffered"] = field(
        default="synchronous",
        metadata={
            "help": "What the server waits for: synchronous (the whole cohort); deadline (the first cohort_size of "
            "more clients, or deadline_seconds); buffered (asynchronous: a step every buffer_size updates)."
        },
    )
    client_table: str | None = field(
        default=None,
        metadata={
            "help": "The clients' lines and devices, for a simulated clock: a CSV, Parquet, JSON or YAML file, "
            "profile:NAME, profiles:A=0.7,B=0.3, or columns (those of the dataset's clients table)."
        },
    )
    deadline_seconds: float | None = field(
        default=None,
        metadata={"help": "With participation deadline: simulated seconds after which a round ends."},
    )
    over_selection: float | None = field(
        default=None,
        metadata={
            "help": "With participation deadline: how many clients are asked, in multiples of cohort_size; by default "
            "as many as the clients' drop-outs ask for."
        },
    )
    late: Literal["drop", "apply"] = field(
        default="drop",
        metadata={
            "help": "With participation deadline: what becomes of updates that come late: drop (their clients are "
            "given up when the round ends) or apply (as changes, in the round in which they come)."
        },
    )
    buffer_size: int | None = field(
        default=None,
        metadata={"help": "With participation buffered: updates that make a server step; cohort_size by default."},
    )
    concurrency: int | None = field(
        default=None,
        metadata={"help": "With participation buffered: clients that train at any time; twice the buffer by default."},
    )
    staleness_exponent: float = field(
        default=0.5,
        metadata={
            "help": "How fast old updates lose weight: one that is t steps old counts (1 + t) to minus this power."
        },
    )
    max_staleness: int | None = field(
        default=None, metadata={"help": "Drop updates that are more server steps old than this."}
    )
    partial_work: bool = field(
        default=False,
        metadata={"help": "With deadline_seconds: let clients make as many steps as fit before the deadline."},
    )
    drop_out: float | None = field(
        default=None,
        metadata={"help": "Probability that a client is lost during a visit, instead of the client table's own."},
    )
    tokens_per_row: int | None = field(
        default=None,
        metadata={"help": "Tokens of a row that the simulated clock counts on; max_length by default."},
    )

    @property
    def is_asynchronous(self) -> bool:
        """Whether updates may be used that were made from an earlier server step."""
        return self.participation == "buffered" or self.late == "apply"

    @property
    def updates_per_step(self) -> int:
        """How many updates make a server step, where that is not the cohort's size by its rule."""
        buffered = self.participation == "buffered" and self.buffer_size is not None
        return self.buffer_size if buffered and self.buffer_size else self.cohort_size

    def check(self) -> None:
        """Refuse numbers that mean nothing, and settings that the chosen rule does not look at.

        `cohort_rules.cohort_pool` checks the rest against a dataset's clients.

        Raises:
            ConfigError: naming the setting.
        """
        check_at_least_one(self, "cohort_size", "min_clients", "buffer_size", "concurrency", "tokens_per_row")
        for name, choices in (("participation", PARTICIPATIONS), ("late", ("drop", "apply"))):
            if (value := getattr(self, name)) not in choices:
                hint = did_you_mean(value, choices)
                raise ConfigError(f"{name} {value!r} is unknown; {hint}choose from {', '.join(choices)}")
        if self.deadline_seconds is not None and not 0 < self.deadline_seconds < math.inf:
            raise ConfigError(f"deadline_seconds is {self.deadline_seconds}; it must be positive")
        if self.over_selection is not None and not 1 <= self.over_selection < math.inf:
            raise ConfigError(f"over_selection is {self.over_selection}; it must be 1 or more")
        if self.staleness_exponent < 0:
            raise ConfigError(f"staleness_exponent is {self.staleness_exponent}; it must not be negative")
        if self.max_staleness is not None and self.max_staleness < 0:
            raise ConfigError(f"max_staleness is {self.max_staleness}; it must not be negative")
        if self.drop_out is not None and not 0 <= self.drop_out < 1:
            raise ConfigError(f"drop_out is {self.drop_out}; it must be 0 or more and below 1")
        self._check_read()
        self._check_complete()

    def _check_read(self) -> None:
        """Refuse settings that the rule does not look at."""
        given, rule = given_of(self), self.participation
        for names, is_read, use in (
            (_OF_DEADLINE, rule == "deadline", "participation deadline"),
            (_OF_BUFFERED, rule == "buffered", "participation buffered"),
            (_OF_STALE, self.is_asynchronous, "participation buffered, or late apply"),
            (_OF_CLOCK, self.client_table is not None, "a client_table"),
        ):
            for name in names:
                if name in given and not is_read and getattr(self, name) is not False:
                    raise ConfigError(f"{name} is given, and nothing looks at it here; use {use}, or leave it out")

    def _check_complete(self) -> None:
        """Refuse a rule that lacks something, or contradicts itself."""
        if self.participation == "synchronous":
            return
        if self.client_table is None:
            raise ConfigError(
                f"participation is {self.participation!r}, which goes by the clock of the clients' machines; give a "
                "client_table"
            )
        if self.participation == "deadline":
            if self.deadline_seconds is None and self.over_selection is None:
                raise ConfigError(
                    "participation is 'deadline' and there is none; give deadline_seconds, or over_selection to take "
                    "the first cohort_size updates of more clients"
                )
            if self.partial_work and self.deadline_seconds is None:
                raise ConfigError("partial_work is given without deadline_seconds, so all steps fit; give both")
            return
        if self.cohort_rule not in ("uniform", "weighted"):
            raise ConfigError(
                f"cohort_rule is {self.cohort_rule!r}, and participation buffered asks clients one by one; use "
                "cohort_rule uniform or weighted"
            )
        if "cohort_size" in given_of(self) and self.buffer_size not in (None, self.cohort_size):
            raise ConfigError(
                f"cohort_size is {self.cohort_size} and buffer_size is {self.buffer_size}; with participation "
                "buffered both say how many updates make a step, so give one of them"
            )
        if self.concurrency is not None and self.concurrency < self.min_clients:
            raise ConfigError(
                f"concurrency is {self.concurrency} and min_clients {self.min_clients}; let as many clients train"
            )
