"""What a client's training needs of memory, at each LoRA rank or with its last layers alone: for clients that differ.

By the formulas of `fedllm_eval/machines/memory.py` (upper end), from the base's sizes and TRL's settings; nothing is
loaded. It says nothing of the machine that this runs on, so that a run goes on the same anywhere: the base counts in
single precision unless its `dtype` or a quantisation is given. Imports no torch at its top.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.memory import Precision, memory_need
from fedllm_eval.machines.model_shape import ModelShape
from fedllm_train.models.adapter_shapes import AdapterSettings
from fedllm_train.models.model_shape import shape_of_folder_or_id, shape_of_model

__all__ = ["ClientMemory", "MemoryFit", "goes_by_memory", "memory_fit"]

_SHORT = ("bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class MemoryFit:
    """One training step, at any rank and depth."""

    shape: ModelShape
    """The shape of the whole adapter, which has the largest rank."""
    rank: int
    """That rank."""
    precision: Precision
    batch_size: int
    """Sequences in memory at once."""
    sequence_length: int
    recompute: bool

    def gb_of_rank(self, rank: int) -> float:
        """Return what a step with factors of some rank needs, in 10^9 bytes.

        >>> shape = ModelShape(
        ...     num_matmul_parameters=1400, num_layers=4, hidden_size=10, vocab_size=20, num_trainable=80
        ... )
        >>> fit = MemoryFit(shape=shape, rank=8, precision="bf16", batch_size=1, sequence_length=1, recompute=False)
        >>> round((fit.gb_of_rank(8) - fit.gb_of_rank(4)) * 1e9)
        640
        """
        return self._gb(replace(self.shape, num_trainable=self.shape.num_trainable * rank // self.rank))

    def gb_of_last_layers(self, num_layers: int) -> float:
        """Return what a step needs that trains the adapter of the last layers alone, in 10^9 bytes.

        What lies below keeps nothing for the backward pass.
        """
        shape = self.shape.of_last_layers(num_layers)
        return self._gb(replace(shape, num_layers=num_layers, num_parameters=self.shape.num_base_parameters))

    def _gb(self, shape: ModelShape) -> float:
        return memory_need(
            shape,
            self.precision,
            batch_size=self.batch_size,
            sequence_length=self.sequence_length,
            recompute=self.recompute,
        ).total_gb[1]


@dataclass(frozen=True, kw_only=True)
class ClientMemory:
    """The clients' memories, and what training needs of them."""

    memory_gb: Callable[[str], float | None]
    """Client id -> its machine's memory; None where the client table does not say."""
    fit: MemoryFit

    def most(self, client_id: str, choices: list[int], gb_of: Callable[[int], float], what: str) -> int:
        """Return the largest of some numbers that fits a client's memory.

        Args:
            client_id: the client.
            choices: increasing numbers, of ranks or of layers.
            gb_of: what each needs.
            what: what the numbers are, for the error.

        Raises:
            ConfigError: if the client's memory is not known, or not even the smallest fits.
        """
        has = self.memory_gb(client_id)
        if has is None:
            raise ConfigError(
                f"client {client_id!r} has no memory_gb in the client table, by which {what} are chosen; state it, or "
                "give a profile that has it"
            )
        fitting = [each for each in choices if gb_of(each) <= has]
        if not fitting:
            raise ConfigError(
                f"client {client_id!r} has {has:g} GB of memory, and training with the least of the {what}, "
                f"{choices[0]}, needs {gb_of(choices[0]):.3g} GB; leave it out (cohort_rule fixed), make batches or "
                "rows shorter, or load the base in fewer bits"
            )
        return fitting[-1]


def goes_by_memory(config: Any) -> bool:
    """Return whether a setting of a federation goes by the clients' memory."""
    return (config.get("client_ranks") or "").startswith("memory") or config.get("client_layers") == "memory"


def memory_fit(
    model: Any, peft: Any, client: Any, *, task: str, quantization: Any = None, dtype: str | None = None
) -> MemoryFit:
    """Return what a client's training needs, before anything is loaded.

    Args:
        model: folder or Hub id of the base, or a model in memory.
        peft: PEFT's settings of the fresh adapter; None for LoRA of rank 8 on all linear modules.
        client: TRL's settings.
        task: sft, dpo or kto.
        quantization: a `BitsAndBytesConfig`, or None.
        dtype: the base's, by name, if it is given.

    Raises:
        ConfigError: if the adapter has no LoRA factors, rows have no greatest length, or the model cannot be read.
    """
    settings = AdapterSettings() if peft is None else _settings(peft)
    shape = shape_of_folder_or_id(model, settings) if isinstance(model, str) else shape_of_model(model, settings)
    if client.max_length is None:
        raise ConfigError("max_length is None, so what a client's training needs is not known; give max_length")
    precision: Precision = "bf16" if dtype in _SHORT else "fp32"
    if quantization is not None:
        precision = "nf4" if getattr(quantization, "load_in_4bit", False) else "int8"
    return MemoryFit(
        shape=shape,
        rank=settings.rank,
        precision=precision,
        batch_size=client.per_device_train_batch_size * (2 if task == "dpo" else 1),
        sequence_length=client.max_length,
        recompute=bool(client.gradient_checkpointing or getattr(client, "activation_checkpointing", False)),
    )


def _settings(peft: Any) -> AdapterSettings:
    """PEFT's settings as far as they decide what is trained; targets that PEFT picks itself count as all modules."""
    if not hasattr(peft, "r"):
        raise ConfigError(
            f"{type(peft).__name__} has no LoRA factors, so there is no rank to choose; use a LoraConfig"
        )
    targets = peft.target_modules or "all-linear"
    return AdapterSettings(
        kind="dora" if peft.use_dora else "lora",
        rank=peft.r,
        targets=targets if isinstance(targets, str) else sorted(targets),
        rank_pattern=dict(peft.rank_pattern or {}),
    )
