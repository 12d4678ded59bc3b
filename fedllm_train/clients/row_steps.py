"""Optimizer steps that are private to rows: DP-SGD (Abadi et al. 2016, arXiv 1607.00133) inside a client's visit.

A step's logical batch holds each row by a coin of its own, so it may be empty. It is cut into physical batches of the
trainer's size; every row's gradient is that of its own mean loss, shortened to the clip C before it is added, and once
a step noise of standard deviation z C is added to the sum, which is divided by the number of rows expected. What the
optimizer, a method's correction or a clip of the whole gradient make of it is post-processing.

TRL's SFT loss is a mean over all tokens of a batch: here it is asked for the sum over tokens, and every row's gradient
is divided by the row's own tokens. DPO's is a mean over pairs, times their number here; a pair is one row.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from trl import SFTTrainer

from fedllm_data.errors import ConfigError
from fedllm_train.clients.row_gradients import RowGradients, row_gradients
from fedllm_train.privacy.row_privacy import RowPrivacy

__all__ = ["RowDraws", "RowSteps"]


class RowDraws(Protocol):
    """What a private fit draws; the same again where the same fit is asked for again."""

    def coins(self, step: int, num_rows: int) -> npt.NDArray[np.float64]:
        """Return uniform numbers in [0, 1), one a row."""
        ...

    def normals(self, step: int, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return independent standard normal numbers."""
        ...


class RowSteps:
    """Takes the steps of one fit, called by the trainer in place of its own forward and backward passes."""

    def __init__(self, privacy: RowPrivacy, draws: RowDraws, *, num_rows: int) -> None:
        """Prepare.

        Args:
            privacy: clip, noise and batch.
            draws: of this fit alone.
            num_rows: the client's rows, from which the sampling rate follows; also those that are not trained on.
        """
        self._privacy, self._draws = privacy, draws
        self.rate = privacy.rate(num_rows)
        """The probability with which each row is in a step."""
        self._expected = self.rate * num_rows
        self._step = 0
        self.norms: list[float] = []
        """Norms of rows before they were shortened, of the last step; for tests and for nobody else."""
        self._rows: Any = None
        self._seen: RowGradients | None = None
        self._trained: Mapping[str, torch.nn.Parameter] = {}

    @property
    def num_kept(self) -> int:
        """Rows of which something is kept at the moment: none but between a batch's passes."""
        return 0 if self._seen is None else self._seen.num_kept

    def watching(self, model: Any, trained: Mapping[str, torch.nn.Parameter], rows: Any) -> ExitStack:
        """Watch the trained weights inside the returned context.

        Args:
            model: the model in training.
            trained: what is trained, by name.
            rows: encoded rows with the columns that a batch is made of.
        """
        stack = ExitStack()
        self._step = 0
        self._seen = stack.enter_context(row_gradients(model, trained))
        self._trained, self._rows = trained, rows
        return stack

    def take(self, trainer: Any, loss_of: Callable[[dict[str, Any]], torch.Tensor]) -> torch.Tensor:
        """Give the trained weights the private gradient of a step; return a loss of zero, since the true one is not.

        Args:
            trainer: the resident trainer, inside its loop.
            loss_of: the loss of a prepared batch: SFT's summed over tokens, DPO's mean over pairs.
        """
        device = trainer.accelerator.device
        if not trainer.accelerator.sync_gradients:
            return torch.zeros((), device=device)
        assert self._seen is not None
        chosen = np.flatnonzero(self._draws.coins(self._step, len(self._rows)) < self.rate)
        sums: dict[str, torch.Tensor] = {}
        self.norms = []
        size = trainer.args.per_device_train_batch_size
        for first in range(0, len(chosen), size):
            batch = [self._rows[int(index)] for index in chosen[first : first + size]]
            for name, part in self._clipped(trainer, batch, loss_of).items():
                sums[name] = sums[name] + part if name in sums else part
        self._set_gradients(sums)
        self._step += 1
        return torch.zeros((), device=device)

    def _clipped(
        self, trainer: Any, batch: list[dict[str, Any]], loss_of: Callable[[dict[str, Any]], torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The clipped sum of one physical batch."""
        assert self._seen is not None
        inputs = trainer.batch_of(batch)
        is_sft = isinstance(trainer, SFTTrainer)
        if inputs["input_ids"].shape[0] != len(batch) * (1 if is_sft else 2):
            raise ConfigError("dp_unit example needs one sequence a row, or two a pair; leave packing out")
        if is_sft:
            tokens = (inputs["labels"][:, 1:] != -100).sum(dim=1).clamp(min=1)
            scales = 1.0 / tokens.double()
        else:
            scales = torch.full(
                (len(batch),), float(len(batch)), dtype=torch.float64, device=inputs["input_ids"].device
            )
        self._seen.expect(len(batch), 1 if is_sft else 2)
        with getattr(trainer, "maybe_activation_offload_context", nullcontext()):
            loss_of(inputs).backward()
        for parameter in self._trained.values():
            parameter.grad = None  # the sum that is not clipped
        found, norms = self._seen.clipped_sum(self._privacy.clip, scales)
        self.norms += norms.tolist()
        return found

    @torch.no_grad()
    def _set_gradients(self, sums: Mapping[str, torch.Tensor]) -> None:
        """Add noise once, divide by the rows expected, and hand the result to the optimizer."""
        spread = self._privacy.noise_multiplier * self._privacy.clip
        for name, parameter in self._trained.items():
            total = sums.get(name)
            total = torch.zeros(parameter.shape, dtype=torch.float64) if total is None else total.double().cpu()
            if spread:
                noise = self._draws.normals(self._step, name, tuple(parameter.shape))
                total = total + spread * torch.from_numpy(noise)
            parameter.grad = (total / self._expected).to(device=parameter.device, dtype=parameter.dtype)
