"""What must be known of a model to say how much arithmetic and memory its training takes: plain numbers.

Symbols: L layers of width h, a vocabulary of V, N weights that are multiplied with activations (the head included, the
embedding table not: it is looked up), n trained weights. `decoder_shape.py` works the numbers out from the sizes of a
decoder; a loaded model gives the same. Imports the standard library only.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from fedllm_data.errors import ConfigError

__all__ = ["ModelShape"]


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A causal language model with the weights that are trained."""

    num_matmul_parameters: int
    """N: weights of all linear layers, the head counted also where it is the embedding table."""
    num_layers: int
    hidden_size: int
    vocab_size: int
    num_trainable: int
    """n: the adapter's weights; of full tuning all weights."""
    trains_base: bool = False
    """Whether the base's own weights are trained (full tuning), so that there is no adapter."""
    num_parameters: int | None = None
    """All weights of the base, embeddings and norms included, a shared table once; None means N."""
    attention_size: int | None = None
    """Heads times the size of one; None means h."""
    kv_size: int | None = None
    """Key heads times the size of one; None means the attention's size."""
    intermediate_size: int | None = None
    """Width of the feed-forward layer; None means 4 h."""
    adapter_input_size: int | None = None
    """Width of what the adapter's factors read in one layer, each input once; None means h."""
    num_without_input_gradient: int = 0
    """Weights, adapter's included, whose input has no gradient: those of the first layer that read the embedding."""
    num_attention_gradients: int | None = None
    """Matrix products in the backward pass of attention; None means all four of every layer."""
    num_not_recomputed: int | None = None
    """Weights that activation checkpointing multiplies once only: the head, and the end of every layer where
    recomputation stops early; None means the head alone."""

    def __post_init__(self) -> None:
        """Refuse numbers that no model has.

        Raises:
            ConfigError: naming the number.
        """
        for name in ("num_matmul_parameters", "num_layers", "hidden_size", "vocab_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"a model's {name} is {getattr(self, name)}; it must be positive")
        if self.num_trainable < 0:
            raise ConfigError(f"a model's num_trainable is {self.num_trainable}; it must not be negative")

    @property
    def num_head_parameters(self) -> int:
        """Weights of the head."""
        return self.vocab_size * self.hidden_size

    @property
    def num_base_parameters(self) -> int:
        """All weights of the base, as far as known."""
        return self.num_matmul_parameters if self.num_parameters is None else self.num_parameters

    def of_last_layers(self, num_layers: int) -> "ModelShape":
        """Return the shape when only the adapters of the last layers are trained and the others are read only.

        The layers are taken to be alike.

        Args:
            num_layers: how many, from 1 to all.

        Raises:
            ConfigError: if there are not that many, or the base itself is trained.

        >>> whole = ModelShape(
        ...     num_matmul_parameters=1400, num_layers=4, hidden_size=10, vocab_size=20, num_trainable=80
        ... )
        >>> whole.of_last_layers(1).num_trainable, whole.of_last_layers(4) == whole
        (20, True)
        """
        if not 1 <= num_layers <= self.num_layers or self.trains_base:
            what = "all weights are trained" if self.trains_base else f"the model has {self.num_layers}"
            raise ConfigError(f"{num_layers} layers cannot be trained alone: {what}; give 1 to {self.num_layers}")
        if num_layers == self.num_layers:
            return self
        frozen_layers = self.num_layers - num_layers
        frozen = self.num_trainable * frozen_layers // self.num_layers
        layers = self.num_matmul_parameters - self.num_head_parameters + self.num_trainable
        gradients = 4 * self.num_layers if self.num_attention_gradients is None else self.num_attention_gradients
        return replace(
            self,
            num_matmul_parameters=self.num_matmul_parameters + frozen,
            num_trainable=self.num_trainable - frozen,
            num_without_input_gradient=self.num_without_input_gradient + layers * frozen_layers // self.num_layers,
            num_attention_gradients=gradients - 4 * frozen_layers,
        )

    def as_record(self) -> dict[str, Any]:
        """Return the shape as a JSON-ready mapping, without what is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "ModelShape":
        """Return the shape of a record; keys of later versions are passed over.

        Raises:
            ConfigError: if a number is missing.

        >>> shape = ModelShape(
        ...     num_matmul_parameters=1400, num_layers=4, hidden_size=10, vocab_size=20, num_trainable=80
        ... )
        >>> ModelShape.from_record(shape.as_record()) == shape
        True
        """
        known = {field.name for field in fields(cls)}
        try:
            return cls(**{name: value for name, value in record.items() if name in known})
        except TypeError as error:
            raise ConfigError(f"the record of a model's shape is incomplete ({error}); plan the run again") from error
