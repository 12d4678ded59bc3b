"""A client's local training: one resident TRL trainer for the whole run, visited by one client after another.

A visit loads the global adapter in place, hands the trainer the client's token ids and starts it with a fresh
optimizer and the visit's own seed. Building a trainer costs seconds and tokenising again costs more than the steps on
a small model; a visit costs the steps plus some milliseconds (`benchmarks/client_round_overhead.py`).

What comes out is what `SFTTrainer(...)` or `DPOTrainer(...)` built anew for this client, with this seed, would give,
to the bit.
"""

import time
from typing import Any

import torch
from peft import PeftModel
from transformers import PrinterCallback, set_seed
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from fedllm_data.errors import ConfigError
from fedllm_train import codec
from fedllm_train.adapter import Adapter, LiveAdapter
from fedllm_train.engine import ClientTask, ClientUpdate, LeftOut
from fedllm_train.tokens import TokenCache

__all__ = ["ResidentTrainer"]

_NOT_METRICS = {
    *("total_flos", "epoch", "step", "num_tokens"),
    *("train_runtime", "train_samples_per_second", "train_steps_per_second"),
}
"""What TRL logs at the end of a visit beside means over its steps."""


class ResidentTrainer:
    """Trains any client of a run on one model and one trainer."""

    def __init__(
        self,
        model: PeftModel,
        tokenizer: Any,
        args: SFTConfig | DPOConfig,
        tokens: TokenCache,
        *,
        starts_from_base: bool,
    ) -> None:
        """Build the trainer around the policy the run starts from.

        Args:
            model: base model with the trained adapter named "default", holding the starting adapter.
            tokenizer: the model's tokenizer.
            args: settings from `resident_args.py`.
            tokens: the clients' rows.
            starts_from_base: whether base and starting adapter together still equal the base, which then is DPO's
                reference; else the reference is a frozen copy of the adapter, made here and never touched again.

        Raises:
            ConfigError: if no client has a row to train on.
        """
        example = tokens.example()
        if not example.num_rows:
            raise ConfigError(
                f"no client has a row with a trained token within max_length={args.max_length}; raise max_length"
            )
        trainer_class = SFTTrainer if isinstance(args, SFTConfig) else DPOTrainer
        self._trainer = _resident_class(trainer_class)(
            model=model, args=args, train_dataset=example, processing_class=tokenizer
        )
        self._trainer.remove_callback(PrinterCallback)
        if "ref" in model.peft_config and starts_from_base:
            # Disabling adapters gives the same reference without computing with zeros in every step.
            model.delete_adapter("ref")
        self._tokens = tokens
        self.live_adapter = LiveAdapter(model)

    @property
    def model(self) -> PeftModel:
        """The resident model, holding whatever adapter was loaded last."""
        return self._trainer.model

    @property
    def trainer(self) -> SFTTrainer | DPOTrainer:
        """The resident TRL trainer."""
        return self._trainer

    def train_client(self, task: ClientTask) -> ClientUpdate | LeftOut:
        """Train one client from the adapter it was sent."""
        tokens = self._tokens[task.client_id]
        if not tokens.num_rows:
            return LeftOut(
                client_id=task.client_id,
                reason=f"none of its {tokens.num_dropped_rows} rows holds a trained token within max_length",
            )
        started = time.perf_counter()
        adapter, metrics = self._visit(codec.decode(task.message), tokens.rows, task.learning_rate, task.seed)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in adapter.values()):
            return LeftOut(client_id=task.client_id, reason="its update is not finite; lower the learning rate")
        return ClientUpdate(
            client_id=task.client_id,
            message=codec.encode(adapter),
            num_rows=tokens.num_rows,
            num_dropped_rows=tokens.num_dropped_rows,
            num_steps=self._trainer.state.global_step,
            metrics=metrics,
            seconds=time.perf_counter() - started,
        )

    def _visit(self, adapter: Adapter, rows: Any, learning_rate: float, seed: int) -> tuple[Adapter, dict[str, float]]:
        trainer = self._trainer
        self.live_adapter.load(adapter)
        trainer.train_dataset = rows
        trainer.args.learning_rate = learning_rate
        trainer.optimizer, trainer.lr_scheduler = None, None
        # accelerate wraps the model's forward for mixed precision at every train(); without this the wraps would pile.
        forward = trainer.model.__dict__.get("forward")
        # The order of the rows and any dropout follow from the seed last set, as in a trainer built with it.
        set_seed(seed)
        trainer.train()
        if forward is None:
            trainer.model.__dict__.pop("forward", None)
        else:
            trainer.model.__dict__["forward"] = forward
        logged = trainer.state.log_history[-1]
        return self.live_adapter.read(), {k: float(v) for k, v in logged.items() if k not in _NOT_METRICS}


def _resident_class(trainer_class: type) -> type:
    """Return the trainer class with what a resident trainer must not do again left out; training is untouched."""

    class Resident(trainer_class):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset  # the rows come encoded (`tokens.py`)

        def floating_point_ops(self, inputs: Any) -> int:
            # Only a number for the trainer's log, and counting parameters anew walks all modules in every step.
            return 0

    Resident.__name__ = trainer_class.__name__
    return Resident
