"""The fits of one visit: what a client rule calls, and what they add up to."""

from collections.abc import Callable
from typing import Any

from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.clients.resident import ResidentTrainer
from fedllm_train.engines.engine import Task
from fedllm_train.seeds import stream_seed
from fedllm_train.visit import Correction, TakeStep

__all__ = ["VisitFits"]


class VisitFits:
    """The fits of one visit: what a client rule calls, and what they add up to."""

    def __init__(self, resident: ResidentTrainer, rows: Any, task: Task, num_steps: int) -> None:
        """Begin.

        Args:
            resident: the trainer.
            rows: encoded rows of the client.
            task: what is asked.
            num_steps: of a fit that says nothing else.
        """
        self.resident, self.rows, self.task, self.num_steps = resident, rows, task, num_steps
        self.total_steps = 0
        self.metrics: dict[str, float] = {}

    def __call__(
        self,
        start: Adapter,
        *,
        correct: Correction | None,
        trains: Callable[[str], bool] | None,
        purpose: str,
        num_steps: int | None,
        base_shift: Adapter | None,
    ) -> Adapter:
        """Train, as `Visit.fit` says."""
        task = self.task
        steps = num_steps if num_steps is not None else self.num_steps
        adapter, metrics = self.resident.fit(
            start,
            self.rows,
            learning_rate=task.learning_rate,
            seed=self.seed_of(purpose),
            num_steps=steps,
            correct=correct,
            trains=trains,
            base_shift=base_shift,
        )
        self.total_steps += steps
        self.metrics |= metrics if purpose == "client" else {f"{purpose}/{name}": v for name, v in metrics.items()}
        return adapter

    def seed_of(self, purpose: str) -> int:
        """Return the seed of a fit's random stream."""
        own_stream = purpose == "client" or self.task.purpose == "personal"
        return self.task.seed if own_stream else stream_seed(self.task.seed, purpose)

    def first_step(self, start: Adapter) -> Adapter:
        """Estimate full fine-tuning's first step; the batches it takes count as steps."""
        task = self.task
        step, metrics = self.resident.first_step(
            start, self.rows, learning_rate=task.learning_rate, seed=task.seed, num_steps=self.num_steps
        )
        self.total_steps += self.num_steps
        self.metrics |= metrics
        return step

    def walk(self, take_step: TakeStep) -> None:
        """Let the client rule take every step, by losses alone."""
        self.metrics |= self.resident.walk(take_step, self.rows, seed=self.task.seed, num_steps=self.num_steps)
        self.total_steps += self.num_steps
