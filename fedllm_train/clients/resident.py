"""The trainer on which all clients train: one resident TRL trainer for the whole run, visited by one after another.

A fit loads an adapter in place, hands the trainer a client's token ids and starts it with a fresh optimizer and the
visit's own seed; the strategy's client rule (`strategies/`) says what is trained from what, and what is sent back.
Building a trainer costs seconds and tokenising again costs more than the steps on a small model; a visit costs the
steps plus some milliseconds (`benchmarks/client_round_overhead.py`).

What comes out is what `SFTTrainer(...)`, `DPOTrainer(...)` or `KTOTrainer(...)`, built afresh for this client with
this seed, would give, to the bit.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PrinterCallback, set_seed

from fedllm_data.errors import ConfigError
from fedllm_train.adapters.arithmetic import Adapter
from fedllm_train.adapters.cored_model import cored
from fedllm_train.adapters.live import LiveAdapter
from fedllm_train.adapters.lora_core import split_cores
from fedllm_train.adapters.shifted_model import shifted
from fedllm_train.clients.loss_scaling import fresh_scaler, loss_scale, true_gradients
from fedllm_train.clients.loss_walk import LossWalk
from fedllm_train.clients.model_walks import ModelWalks
from fedllm_train.clients.objectives import ClientArgs, first_sequence, keeps_reference, objective_of, rows_of_visit
from fedllm_train.clients.reference import ReferenceCache
from fedllm_train.clients.reference_adapter import REFERENCE, check_reference, copy_reference
from fedllm_train.clients.row_steps import RowSteps
from fedllm_train.clients.stopping import StopBetweenSteps, VisitStopped
from fedllm_train.clients.trl_trainer import build_trainer
from fedllm_train.clients.weight_gradients import first_step, weight_gradients
from fedllm_train.visit import Correction, TakeStep

__all__ = ["ResidentTrainer", "seed_visit"]

_NOT_METRICS = {
    *("total_flos", "epoch", "step", "num_tokens"),
    *("train_runtime", "train_samples_per_second", "train_steps_per_second"),
}
"""What TRL logs at the end of a visit beside means over its steps."""


class ResidentTrainer:
    """Trains adapters on clients' rows, all on one model and one trainer."""

    def __init__(
        self,
        model: PeftModel | PreTrainedModel,
        tokenizer: Any,
        args: ClientArgs,
        example: Any,
        *,
        starts_from_base: bool,
        reference_folder: Path | None = None,
        kernel: str = "trl",
    ) -> None:
        """Build the trainer around the policy the run starts from.

        Args:
            model: base model with the trained adapter named "default", holding the starting adapter; or a model all of
                whose weights are trained.
            tokenizer: the model's tokenizer.
            args: settings from `clients/resident_args.py`.
            example: encoded rows of some client, at least one.
            starts_from_base: whether base and starting adapter together still equal the base, which then is DPO's
                reference; else the reference is a frozen copy of the adapter, made here and never touched again.
            reference_folder: where the reference's log-probabilities are kept; None computes them in every step, by a
                frozen copy of the model where all its weights are trained.
            kernel: how the loss is computed; `trl` or `plain`.

        Raises:
            ConfigError: if there is no row to train on, or TRL refuses the settings.
        """
        if not example.num_rows:
            raise ConfigError(
                f"no client has a row that the chat template renders with a trained token within max_length="
                f"{args.max_length}; raise max_length, or give another template by chat_template_path"
            )
        kept = reference_folder is not None and keeps_reference(args)
        self._trainer = build_trainer(model, tokenizer, args, example, keeps_reference=kept)
        self._trainer.plain_kernel = kernel == "plain"
        self._trainer.remove_callback(PrinterCallback)
        self.is_stopped: Callable[[], bool] = _never
        """Asked after every optimizer step; where it says yes, the visit ends there with `VisitStopped`."""
        self._trainer.add_callback(StopBetweenSteps(lambda: self.is_stopped()))
        self.reset_scaler = fresh_scaler(self._trainer)
        """Gives the trainer the loss scaler that it begins every visit with."""
        if isinstance(model, PeftModel) and objective_of(args).name != "sft":
            if not starts_from_base:
                copy_reference(model)
            elif REFERENCE in model.peft_config:
                # Disabling adapters gives the same reference without computing with zeros in every step.
                model.delete_adapter(REFERENCE)
            check_reference(model, first_sequence(example, args.max_length))
        self._reference = None
        if kept:
            self._reference = ReferenceCache(self._trainer, reference_folder, self._starting_policy)
        self.live_adapter = LiveAdapter(model)
        self._walks: ModelWalks | None = None
        self.start_adapter = self.live_adapter.read()
        """The adapter the run started from; all weights of the model if it has no adapter."""

    @property
    def model(self) -> Any:
        """The resident model, holding whatever adapter was loaded last."""
        return self._trainer.model

    @property
    def trainer(self) -> Any:
        """The resident TRL trainer."""
        return self._trainer

    def with_reference(self, client_id: str, rows: Any) -> Any:
        """Return a client's encoded rows with what the reference says of them, where that is kept."""
        return rows if self._reference is None else self._reference.add_to(client_id, rows)

    def fit(
        self,
        start: Adapter,
        rows: Any,
        *,
        learning_rate: float,
        seed: int,
        num_steps: int,
        correct: Correction | None = None,
        trains: Callable[[str], bool] | None = None,
        base_shift: Adapter | None = None,
        row_steps: RowSteps | None = None,
    ) -> tuple[Adapter, dict[str, float]]:
        """Train an adapter on encoded rows with a fresh optimizer; return it with the means of what TRL logged.

        With `row_steps` gradients are private to rows, and nothing is logged.

        Raises:
            VisitStopped: if the visit is to end; the next one finds nothing of it.
        """
        self._go_on()
        trainer = self._trainer
        factors, cores = split_cores(start)
        self.live_adapter.load(factors)
        trainer.train_dataset = rows_of_visit(rows, trainer.args, seed)
        trainer.args.learning_rate = learning_rate
        trainer.args.max_steps = num_steps
        trainer.optimizer, trainer.lr_scheduler = None, None
        self.reset_scaler()
        # accelerate wraps the model's forward for mixed precision at every train(); without this the wraps would pile.
        forward = trainer.model.__dict__.get("forward")
        # The order of the rows and any dropout follow from the seed last set, as in a trainer built with it.
        seed_visit(seed, self.model.device)
        with (
            self.live_adapter.training_only(trains) as trained,
            shifted(self.model, base_shift),
            cored(self.model, cores, trains) as between,
        ):
            trained |= {name: core for name, core in between.items() if core.requires_grad}
            trainer.correct_gradients = None if correct is None else partial(_correct, trainer, correct, trained)
            trainer.frozen = [each for name, each in self.live_adapter.parameters.items() if name not in trained]
            trainer.walks = self._structure(is_usual=not between)
            with trainer.walks.held(), self._row_steps(row_steps, trained):
                trainer.train()
            cores = {name: core.detach().cpu().clone() for name, core in between.items()}
        if forward is None:
            trainer.model.__dict__.pop("forward", None)
        else:
            trainer.model.__dict__["forward"] = forward
        self._go_on()
        logged = {} if row_steps is not None else trainer.state.log_history[-1]
        return self.live_adapter.read() | cores, {k: float(v) for k, v in logged.items() if k not in _NOT_METRICS}

    @contextmanager
    def _row_steps(self, row_steps: RowSteps | None, trained: dict[str, torch.nn.Parameter]) -> Iterator[None]:
        """Let steps be private to rows inside the block, if there is something that makes them so."""
        if row_steps is None:
            yield
            return
        trainer = self._trainer
        if trainer.aux_loss_enabled or trainer.args.n_gpu > 1:
            what = (
                "a balancing loss over all rows of a batch" if trainer.aux_loss_enabled else "several GPUs a trainer"
            )
            raise ConfigError(f"dp_unit example needs rows that are apart, and this run has {what}; switch it off")
        rows = trainer.used_columns(trainer.train_dataset)
        with row_steps.watching(self.model, trained, rows):
            trainer.row_steps = row_steps
            try:
                yield
            finally:
                trainer.row_steps = None

    def first_step(
        self, start: Adapter, rows: Any, *, learning_rate: float, seed: int, num_steps: int
    ) -> tuple[Adapter, dict[str, float]]:
        """Return full fine-tuning's first step on the adapted weights, estimated over the batches of a `fit`."""
        with weight_gradients(self.model, partial(loss_scale, self._trainer)) as gradients:
            # A rate of 0 leaves every step at the start, and batches, loss and precision are those of any visit.
            metrics = self.fit(start, rows, learning_rate=0.0, seed=seed, num_steps=num_steps)[1]
        return first_step(self.model, gradients, learning_rate), metrics

    def walk(self, take_step: TakeStep, rows: Any, *, seed: int, num_steps: int) -> dict[str, float]:
        """Go over the batches of a `fit` without gradients, and return the means of what TRL logged.

        Args:
            take_step: called for every step, with the loss of its batches at any adapter (`clients/loss_walk.py`).
            rows: encoded rows of the client.
            seed: the visit's own seed.
            num_steps: number of steps.
        """
        self._trainer.loss_walk = LossWalk(take_step, self.live_adapter)
        try:
            return self.fit(self.start_adapter, rows, learning_rate=0.0, seed=seed, num_steps=num_steps)[1]
        finally:
            self._trainer.loss_walk = None

    def _go_on(self) -> None:
        if self.is_stopped():
            raise VisitStopped("the visit was stopped")

    def _structure(self, *, is_usual: bool) -> ModelWalks:
        """The model's parameters and modules: found at the first visit, and anew where a visit adds some."""
        if not is_usual:
            return ModelWalks(self.model)
        if self._walks is None:
            self._walks = ModelWalks(self.model)
        return self._walks

    @contextmanager
    def _starting_policy(self) -> Iterator[None]:
        """Let the model hold what the run started from; where an adapter is trained, switching it off does."""
        if not isinstance(self.model, PeftModel):
            self.live_adapter.load(self.start_adapter)
        yield


def _never() -> bool:
    return False


def seed_visit(seed: int, device: torch.device) -> None:
    """Do what transformers' `set_seed` does, without asking for accelerators that a model on the CPU does not use.

    torch keeps a stack trace for every seed that it would give to a GPU which is not there.
    """
    if device.type != "cpu" or torch.cuda.is_available():
        set_seed(seed)
        return
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


@torch.no_grad()
def _correct(trainer: Any, correct: Correction, trained: dict[str, torch.nn.Parameter]) -> None:
    with_gradient = {name: parameter for name, parameter in trained.items() if parameter.grad is not None}
    gradients = {name: parameter.grad for name, parameter in with_gradient.items()}
    with true_gradients(loss_scale(trainer), gradients) as usable:
        if usable:
            correct(gradients, {name: parameter.detach() for name, parameter in with_gradient.items()})
