"""The arithmetic of a visit, planned: what the simulated clock and the plan of a run count on. Imports no torch."""

from dataclasses import dataclass, replace
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.flops import Objective, Work, visit_flops
from fedllm_eval.machines.model_shape import ModelShape

__all__ = ["PlannedWork", "planned_work"]


@dataclass(frozen=True, kw_only=True)
class PlannedWork:
    """What an optimizer step takes."""

    shape: ModelShape
    work: Work
    rows_per_step: int
    tokens_per_row: int

    def flops(self, num_steps: int) -> float:
        """Return the floating-point operations of some steps.

        >>> shape = ModelShape(
        ...     num_matmul_parameters=1000, num_layers=2, hidden_size=8, vocab_size=10, num_trainable=50
        ... )
        >>> one = PlannedWork(shape=shape, work=Work(), rows_per_step=3, tokens_per_row=4)
        >>> one.flops(2) == 2 * one.flops(1) > 0
        True
        """
        return visit_flops(
            self.shape, self.work, num_rows=num_steps * self.rows_per_step, tokens_per_row=self.tokens_per_row
        )

    def of_last_layers(self, num_layers: int | None) -> "PlannedWork":
        """Return the same for a client that trains the last layers alone; None means all.

        >>> shape = ModelShape(
        ...     num_matmul_parameters=1000, num_layers=2, hidden_size=8, vocab_size=10, num_trainable=50
        ... )
        >>> one = PlannedWork(shape=shape, work=Work(), rows_per_step=3, tokens_per_row=4)
        >>> one.of_last_layers(1).flops(1) < one.flops(1) == one.of_last_layers(5).flops(1)
        True
        """
        if num_layers is None or num_layers >= self.shape.num_layers:
            return self
        return replace(self, shape=self.shape.of_last_layers(num_layers))


def planned_work(
    shape: ModelShape, objective: Objective, client: Any, *, tokens_per_row: int | None, keeps_reference: bool
) -> PlannedWork:
    """Return what an optimizer step takes.

    Args:
        shape: the model with what is trained of it.
        objective: what is trained for.
        client: TRL's settings: batch size, accumulation, checkpointing, longest row, KTO's loss.
        tokens_per_row: tokens of a row; None for the longest that a row may be.
        keeps_reference: whether the run keeps what DPO's or KTO's reference says of a client's rows, where it can.

    Raises:
        ConfigError: if nothing says how long rows are.
    """
    tokens = client.max_length if tokens_per_row is None else tokens_per_row
    if tokens is None:
        raise ConfigError(
            "max_length is None, so how long the simulated clock should take rows to be is not known; give "
            "tokens_per_row"
        )
    mismatches = objective == "kto" and getattr(client, "loss_type", None) not in ("apo_zero_unpaired",)
    return PlannedWork(
        shape=shape,
        work=Work(
            objective=objective,
            recompute=bool(client.gradient_checkpointing or client.activation_checkpointing),
            reads_reference=not (keeps_reference and not mismatches),
            reads_mismatch=mismatches,
        ),
        rows_per_step=client.train_batch_size * client.gradient_accumulation_steps,
        tokens_per_row=tokens,
    )
