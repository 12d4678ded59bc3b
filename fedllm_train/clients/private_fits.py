"""The fits of a visit that is private to rows: every step that a client rule makes on rows, whatever it is for.

A rule learns of its client's rows by nothing else: looking at losses, and summing gradients without noise, are
refused.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import NoReturn

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter, Parts
from fedllm_train.clients.fits import VisitFits
from fedllm_train.clients.row_secret import FitDraws, RowSecret, fit_key, parts_digest
from fedllm_train.clients.row_steps import RowSteps
from fedllm_train.privacy.row_privacy import RowPrivacy
from fedllm_train.visit import Correction, TakeStep

__all__ = ["PrivateFits", "RowsOfVisit"]


@dataclass(frozen=True, kw_only=True)
class RowsOfVisit:
    """What private fits of a visit depend on."""

    num_rows: int
    """All of the client's rows, also those that are not trained on: the number that epsilon was accounted for."""
    most_steps: int
    """Steps that the client may make in the run."""
    received: Parts = field(repr=False)
    memory: Parts = field(repr=False)


class PrivateFits(VisitFits):
    """Makes the fits of one visit with private steps."""

    def __init__(self, fits: VisitFits, privacy: RowPrivacy, secret: RowSecret, rows: RowsOfVisit) -> None:
        """Begin.

        Args:
            fits: what they would be without privacy.
            privacy: clip, noise and batch.
            secret: of the client.
            rows: what they depend on.
        """
        super().__init__(fits.resident, fits.rows, fits.task, fits.num_steps)
        self._privacy, self._secret, self._of_visit = privacy, secret, rows
        self._begun = {"received": parts_digest(rows.received), "memory": parts_digest(rows.memory)}
        self._num_fits = 0

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
        """Train, as `Visit.fit` says, with private steps; nothing that they see is told."""
        task = self.task
        steps = num_steps if num_steps is not None else self.num_steps
        key = fit_key(
            run=task.run,
            step=task.step,
            client=task.client_id,
            task=task.purpose,
            seed=task.seed,
            learning_rate=task.learning_rate,
            purpose=purpose,
            fit=self._num_fits,
            steps=steps,
            start=parts_digest({"start": start, "shift": base_shift or {}}),
            privacy=[self._privacy.clip, self._privacy.noise_multiplier, self._privacy.batch_rows],
            **self._begun,
        )
        self._num_fits += 1
        draws = self._secret.draws(key, num_steps=steps, most_steps=self._of_visit.most_steps)
        seed = draws.seed
        if not self._privacy.noise_multiplier:  # nothing is hidden, so a run can be made again from its seed
            draws = FitDraws(sha256(f"seed {task.seed}".encode()).digest(), purpose)
            seed = self.seed_of(purpose)
        adapter, _ = self.resident.fit(
            start,
            self.rows,
            learning_rate=task.learning_rate,
            seed=seed,
            num_steps=steps,
            correct=correct,
            trains=trains,
            base_shift=base_shift,
            row_steps=RowSteps(self._privacy, draws, num_rows=self._of_visit.num_rows),
        )
        self.total_steps += steps
        return adapter

    def first_step(self, start: Adapter) -> NoReturn:
        """Refuse to sum gradients that nobody clipped.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("the method sums gradients over rows without noise, which dp_unit example cannot cover")

    def walk(self, take_step: TakeStep) -> NoReturn:
        """Refuse to show losses.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("the method looks at losses of rows without noise, which dp_unit example cannot cover")
