"""How much a client does in a visit: its optimizer steps, and the rows they are taken on.

Symbols: n rows of the client, B rows of an optimizer step, T rounds, S clients a round of N, E epochs.

local_steps      the same number for all
local_epochs     ceil(n E / B)
expected_epochs  ceil(n E / (T S / N) / B): a client is expected to be visited T S / N times, so it makes about E
                 passes in the whole run (the "dynamic local steps" of FedLLM-Bench's released code, arXiv
                 2406.04845, E = 3)

`round_rows="fedllm-bench"` draws the rows of a visit as the released code does: min(n, steps B) of them without
replacement by CPython's `random` seeded with the round; the steps then loop over them. Its positions count the rows
that hold a trained token within `max_length`; the order inside the visit follows the visit's own seed, since the
released code left that to a seed of 42 for every client and round.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fedllm_data.errors import ConfigError
from fedllm_train.given import given_of
from fedllm_train.settings import Settings, check_at_least_one

__all__ = ["LocalWork", "LocalWorkSettings", "local_work", "measures_given"]


@dataclass(frozen=True, kw_only=True)
class LocalWorkSettings(Settings):
    """How much a client does in a round, and on which rows."""

    local_steps: int = field(default=10, metadata={"help": "Optimizer steps of a client in a round."})
    local_epochs: float | None = field(
        default=None, metadata={"help": "In place of local_steps: passes of a client over its rows in a round."}
    )
    expected_epochs: float | None = field(
        default=None,
        metadata={
            "help": "In place of local_steps: passes over its rows that a client is expected to make in the whole "
            "run (FedLLM-Bench's dynamic steps)."
        },
    )
    round_rows: Literal["all", "fedllm-bench"] = field(
        default="all",
        metadata={"help": "Rows a visit trains on: all, or as many as its steps take, drawn as FedLLM-Bench does."},
    )

    def check(self) -> None:
        """Refuse local work that is measured in two ways.

        Raises:
            ConfigError: naming both settings.
        """
        check_at_least_one(self, "local_steps")
        for name in ("local_epochs", "expected_epochs"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}; it must be positive")
        given = measures_given(self)
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} are both given; choose one measure of local work")
        if self.round_rows not in ("all", "fedllm-bench"):
            raise ConfigError(f"round_rows is {self.round_rows!r}; it must be all or fedllm-bench")
        if self.expected_epochs is not None and getattr(self, "cohort_rule", None) == "weighted":
            raise ConfigError(
                "expected_epochs counts on clients being visited equally often, and cohort_rule weighted visits "
                "those with more rows more often; use local_steps or local_epochs"
            )

    @property
    def has_fixed_steps(self) -> bool:
        """Whether a visit takes the same number of steps for every client, over all of its rows."""
        return self.local_epochs is None and self.expected_epochs is None and self.round_rows == "all"


def measures_given(settings: LocalWorkSettings) -> list[str]:
    """Return the names of the measures of local work that were set.

    >>> measures_given(LocalWorkSettings(local_epochs=2.0))
    ['local_epochs']
    """
    given = [name for name in ("local_epochs", "expected_epochs") if getattr(settings, name) is not None]
    return ["local_steps", *given] if "local_steps" in given_of(settings) else given


@dataclass(frozen=True, kw_only=True)
class LocalWork:
    """A run's rule of local work; made once, consulted at every visit."""

    rule: Literal["steps", "epochs", "expected_epochs"]
    amount: float
    """Steps or epochs."""
    rows_per_step: int
    visits: float
    """Visits that a client is expected to have in the run."""
    draws_rows: bool = False

    def num_steps(self, num_rows: int) -> int:
        """Return how many optimizer steps a client with this many rows takes.

        >>> LocalWork(rule="epochs", amount=2, rows_per_step=16, visits=1.0).num_steps(100)
        13
        """
        if self.rule == "steps":
            return int(self.amount)
        # In the order of the released code, so that rounding falls alike.
        rows = num_rows * self.amount / self.visits if self.rule == "expected_epochs" else num_rows * self.amount
        return max(1, math.ceil(rows / self.rows_per_step))

    def in_words(self) -> str:
        """Return what a client does in a round.

        >>> LocalWork(rule="steps", amount=5, rows_per_step=16, visits=1.0).in_words()
        '5 steps each'
        >>> LocalWork(rule="epochs", amount=1.0, rows_per_step=16, visits=1.0).in_words()
        '1 pass over their rows each'
        """
        if self.rule == "steps":
            return f"{self.amount:,.0f} {'step' if self.amount == 1 else 'steps'} each"
        if self.rule == "epochs":
            return f"{self.amount:g} {'pass' if self.amount == 1 else 'passes'} over their rows each"
        return f"as many steps as make {self.amount:g} passes over a client's rows in the whole run"

    def rows_of_round(self, num_rows: int, round_index: int) -> Sequence[int] | None:
        """Return the positions of the rows that a visit trains on, or None if it trains on all.

        >>> work = LocalWork(rule="steps", amount=1, rows_per_step=3, visits=1.0, draws_rows=True)
        >>> work.rows_of_round(10, round_index=0)
        [6, 9, 0]
        """
        if not self.draws_rows:
            return None
        wanted = min(num_rows, self.rows_per_step * self.num_steps(num_rows))
        return random.Random(round_index).sample(range(num_rows), wanted)


def local_work(
    settings: LocalWorkSettings, client: Any, *, num_rounds: int, cohort_size: int, num_clients: int
) -> LocalWork:
    """Return the rule of a run.

    Args:
        settings: the measure of local work.
        client: TRL's settings for a visit, or any object with its batch size, accumulation and packing.
        num_rounds: number of rounds in the run.
        cohort_size: number of clients in a round.
        num_clients: number of clients that may take part.

    Raises:
        ConfigError: if rows are to be drawn that are packed.
    """
    if getattr(client, "packing", False) and settings.round_rows != "all":
        raise ConfigError(
            f"round_rows is {settings.round_rows!r}, and packing joins rows into sequences before they could be "
            "drawn; leave one of the two out"
        )
    common = {
        "rows_per_step": client.train_batch_size * client.gradient_accumulation_steps,
        "visits": num_rounds * cohort_size / num_clients,
        "draws_rows": settings.round_rows == "fedllm-bench",
    }
    if settings.local_epochs is not None:
        return LocalWork(rule="epochs", amount=settings.local_epochs, **common)
    if settings.expected_epochs is not None:
        return LocalWork(rule="expected_epochs", amount=settings.expected_epochs, **common)
    return LocalWork(rule="steps", amount=settings.local_steps, **common)
