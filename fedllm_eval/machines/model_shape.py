"""What the cost of a model's training depends on: a few counts. Imports nothing heavy."""

from dataclasses import asdict, dataclass

from fedllm_data.errors import ConfigError

__all__ = ["ModelShape"]


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """The counts from which operations, memory and messages follow."""

    num_matmul_parameters: int
    """Weights that a token is multiplied by: all linear layers and the output layer, no table of embeddings."""
    num_layers: int
    hidden_size: int
    num_trainable: int
    vocab_size: int

    def __post_init__(self) -> None:
        """Refuse counts that no model has.

        Raises:
            ConfigError: naming the count.
        """
        for name, value in asdict(self).items():
            if value < (0 if name == "num_trainable" else 1):
                raise ConfigError(f"{name} is {value}; no model has that")
