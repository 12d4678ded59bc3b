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
from dataclasses import dataclass
from typing import Any, Literal

from fedllm_data.errors import ConfigError
from fedllm_train.config import FederatedConfig

__all__ = ["LocalWork", "local_work", "work_of_run"]


@dataclass(frozen=True, kw_only=True)
class LocalWork:
    """The rule of a run; made once, asked at every visit."""

    rule: Literal["steps", "epochs", "expected_epochs"]
    amount: float
    """Steps or epochs."""
    rows_per_step: int
    visits: float
    """Visits that a client is expected to have in the run."""
    draws_rows: bool = False

    def num_steps(self, num_rows: int) -> int:
        """Return the optimizer steps of a client that has some rows.

        >>> LocalWork(rule="epochs", amount=2, rows_per_step=16, visits=1.0).num_steps(100)
        13
        """
        if self.rule == "steps":
            return int(self.amount)
        # In the order of the released code, so that rounding falls alike.
        rows = num_rows * self.amount / self.visits if self.rule == "expected_epochs" else num_rows * self.amount
        return max(1, math.ceil(rows / self.rows_per_step))

    def rows_of_round(self, num_rows: int, round_index: int) -> Sequence[int] | None:
        """Return the positions of the rows that a visit trains on, or None for all.

        >>> work = LocalWork(rule="steps", amount=1, rows_per_step=3, visits=1.0, draws_rows=True)
        >>> work.rows_of_round(10, round_index=0)
        [6, 9, 0]
        """
        if not self.draws_rows:
            return None
        wanted = min(num_rows, self.rows_per_step * self.num_steps(num_rows))
        return random.Random(round_index).sample(range(num_rows), wanted)


def local_work(
    config: FederatedConfig, *, rows_per_step: int, cohort_size: int, num_clients: int, packs: bool = False
) -> LocalWork:
    """Return the rule that a config asks for.

    Args:
        config: the settings of the federation.
        rows_per_step: batch size times gradient accumulation.
        cohort_size: clients of a round.
        num_clients: clients that may take part.
        packs: whether several rows are packed into one sequence.

    Raises:
        ConfigError: if rows are to be drawn that are packed.
    """
    if packs and config.round_rows != "all":
        raise ConfigError(
            f"round_rows is {config.round_rows!r}, and packing joins rows into sequences before they could be drawn; "
            "leave one of the two out"
        )
    common = {
        "rows_per_step": rows_per_step,
        "visits": config.num_rounds * cohort_size / num_clients,
        "draws_rows": config.round_rows == "fedllm-bench",
    }
    if config.local_epochs is not None:
        return LocalWork(rule="epochs", amount=config.local_epochs, **common)
    if config.expected_epochs is not None:
        return LocalWork(rule="expected_epochs", amount=config.expected_epochs, **common)
    return LocalWork(rule="steps", amount=config.local_steps, **common)


def work_of_run(config: FederatedConfig, args: Any, *, cohort_size: int, num_clients: int) -> LocalWork:
    """Return the rule of a run from its settings and TRL's.

    Args:
        config: the settings of the federation.
        args: TRL's settings for a visit: batch size, accumulation, packing.
        cohort_size: clients of a round.
        num_clients: clients that may take part.

    Raises:
        ConfigError: if rows are to be drawn that are packed.
    """
    return local_work(
        config,
        rows_per_step=args.train_batch_size * args.gradient_accumulation_steps,
        cohort_size=cohort_size,
        num_clients=num_clients,
        packs=getattr(args, "packing", False),
    )
