"""The TRL trainer that is built once and stays: TRL's own class, with what must not be done again left out.

Training is untouched: `training_step`, losses, optimizer and collator are TRL's. Left out is what a visit brings along
(encoded rows, kept reference) or nobody reads; added is the point at which a client rule changes the gradients.
"""

import warnings
from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from trl import SFTTrainer

from fedllm_data.errors import ConfigError
from fedllm_train.clients.loss_walk import LossWalk
from fedllm_train.clients.model_walks import ModelWalks
from fedllm_train.clients.objectives import ClientArgs, objective_of
from fedllm_train.clients.preference_kernel import PlainHead
from fedllm_train.clients.row_steps import RowSteps
from fedllm_train.clients.sft_kernel import plain_loss
from fedllm_train.models.tokenizer import with_settled_tokenizer

__all__ = ["build_trainer"]


def build_trainer(model: Any, tokenizer: Any, args: ClientArgs, example: Any, *, keeps_reference: bool) -> Any:
    """Return a trainer for any client's rows.

    Args:
        model: with the adapter "default", or a model all of whose weights are trained.
        tokenizer: the model's tokenizer, from `models/tokenizer.py`.
        args: settings from `clients/resident_args.py`.
        example: encoded rows of some client, from which TRL learns what rows look like.
        keeps_reference: whether `clients/reference.py` brings the reference's log-probabilities.

    Raises:
        ConfigError: if TRL refuses the settings.
    """
    objective = objective_of(args)
    args = with_settled_tokenizer(args, tokenizer)
    given: dict[str, Any] = {}
    if args.model_init_kwargs is not None:
        args = copy(args)
        args.model_init_kwargs = None  # the model is loaded with them, and TRL would warn that it is loaded
    if objective.name != "sft" and not isinstance(model, PeftModel):
        # TRL would load the reference from the model's name once more.
        if keeps_reference:
            args = copy(args)
            args.precompute_ref_log_probs = True
        else:
            given["ref_model"] = deepcopy(model).requires_grad_(False).eval()
    try:
        with warnings.catch_warnings():
            # PEFT finds TRL's "ref" within the "prefix_tuning_" that no parameter's name begins with.
            warnings.filterwarnings("ignore", message="Adapter name 'ref' should not be contained")
            return _resident_class(objective.trainer)(
                model=model, args=args, train_dataset=example, processing_class=tokenizer, **given
            )
    except (ValueError, NotImplementedError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"TRL's {objective.trainer.__name__} refuses these settings: {reason}") from error


def _resident_class(trainer_class: type) -> type:
    """Return the trainer class with what a resident trainer must not do again left out; training is untouched."""

    class Resident(trainer_class):  # type: ignore[misc]
        correct_gradients: Callable[[], None] | None = None
        """Called when the gradients of an optimizer step are complete, before they are clipped."""
        frozen: Sequence[torch.nn.Parameter] = ()
        """Tensors of the adapter that rest."""
        loss_walk: LossWalk | None = None
        """What takes the steps where a client rule looks at losses alone."""
        row_steps: RowSteps | None = None
        """What makes the gradients of a step where they are private to rows."""
        plain_kernel = False
        """Whether the loss, and what the kept reference says, come from the model's ordinary forward."""

        walks: ModelWalks | None = None
        """What walking the model finds, during a visit."""
        never_wrapped: Any = None
        """The model, once the trainer has found that it is trained as it is."""

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if not self.plain_kernel:
                return super().compute_loss(model, inputs, *args, **kwargs)
            if self.aux_loss_enabled:
                raise ConfigError("a plain kernel leaves out the balancing loss of a mixture of experts; use trl")
            if isinstance(self, SFTTrainer):
                return plain_loss(model, inputs, kwargs.get("num_items_in_batch"))
            return super().compute_loss(self._plain_head(model), inputs, *args, **kwargs)

        def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
            return super().compute_ref_log_probs(self._plain_head(model) if self.plain_kernel else model, inputs)

        def _plain_head(self, model: Any) -> PlainHead:
            return PlainHead(model, sums_squares=getattr(self, "use_weighting", False))

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if self.loss_walk is not None:
                return self.loss_walk.add(self, partial(self._loss_alone, model, inputs, *args, **kwargs))
            if self.row_steps is not None:
                for each in (model, self.optimizer):
                    if callable(switch := getattr(each, "train", None)):  # a schedule-free optimizer has modes, too
                        switch()
                loss = self.row_steps.take(self, partial(self._loss_of_rows, model))
            else:
                loss = super().training_step(model, inputs, *args, **kwargs)
            # PEFT lets the whole adapter be trained again when TRL comes back from its "ref"; what rests must not
            # count where gradients are clipped.
            for parameter in self.frozen:
                parameter.grad = None
            if self.correct_gradients is not None and self.accelerator.sync_gradients:
                self.correct_gradients()
            return loss

        def _loss_of_rows(self, model: Any, inputs: Any) -> Any:
            """The loss of a batch: SFT's summed over tokens, as a mean over one token is; DPO's mean over pairs."""
            with self.compute_loss_context_manager():
                one = torch.ones((), device=self.accelerator.device)
                return self.compute_loss(model, inputs, num_items_in_batch=one)

        def batch_of(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
            """Return a batch of encoded rows, on the trainer's device."""
            return dict(self._prepare_inputs(self.data_collator(rows)))

        def used_columns(self, rows: Any) -> Any:
            """Return rows with the columns that a batch is made of."""
            return self._remove_unused_columns(rows, description="training")

        def _loss_alone(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            """The loss of a training step, without the step; TRL adds keys to what it is given."""
            self.accelerator.backward = lambda loss, **kwargs: None
            try:
                return super().training_step(model, dict(inputs), *args, **kwargs)
            finally:
                del self.accelerator.backward

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset  # the rows come encoded (`clients/token_cache.py`)

        def _precompute_ref_logps(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset  # `clients/reference.py` does

        def get_decay_parameter_names(self, model: Any) -> Any:
            if self.walks is None:
                return super().get_decay_parameter_names(model)
            if self.walks.decay_names is None:
                self.walks.decay_names = frozenset(super().get_decay_parameter_names(model))
            return self.walks.decay_names

        def _wrap_model(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            if model is not self.never_wrapped:
                wrapped = super()._wrap_model(model, *args, **kwargs)
                self.never_wrapped = wrapped if wrapped is model else None
                return wrapped
            return model

        def _remove_unused_columns(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            self._set_signature_columns_if_needed()
            if dataset.column_names and set(dataset.column_names) <= set(self._signature_columns):
                return dataset
            return super()._remove_unused_columns(dataset, *args, **kwargs)

        def floating_point_ops(self, inputs: Any) -> int:
            # Only a number for the trainer's log, and counting parameters again walks all modules in every step.
            return 0

    Resident.__name__ = trainer_class.__name__
    return Resident
