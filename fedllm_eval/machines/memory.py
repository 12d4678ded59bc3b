"""The memory of a training step: weights, adapter with its optimizer, activations, logits.

Symbols: L layers of width h, attention a, keys k, feed-forward i, vocabulary V, b sequences of s tokens, c bytes an
activation, n trained weights. In bytes

    weights        by precision; int8 and nf4 hold the linear layers, the head and the embedding stay in 16 bits
    trained        n (4 + 4 + 8): weight, gradient and AdamW's two moments in single precision
    activations    b s L (c (3 i + 2 a + 2 k) + 8 h + 4 x): what the backward pass reads; the two norms keep their
                   input, and the adapter's factors theirs (x), in single precision
    checkpointed   b s (L c h + one layer of the above)
    logits         b s V 4, two to three times: themselves, the loss's copy, their gradient

with fused attention, which keeps no scores. What a device's driver and allocator take besides is not counted. nf4
takes half a byte and its scales, together about .55 (Dettmers et al. 2023, arXiv 2305.14314). Imports no torch.
"""

from dataclasses import dataclass
from typing import Literal

from fedllm_eval.machines.model_shape import ModelShape

__all__ = ["MemoryNeed", "Precision", "memory_need"]

Precision = Literal["fp32", "bf16", "int8", "nf4"]
_WEIGHT_BYTES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "nf4": 0.55}
_QUANTIZED = ("int8", "nf4")
_TRAINED_BYTES = 4 + 4 + 8
_LOGIT_COPIES = (2, 3)


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Bytes by what they hold."""

    weights_bytes: float
    trained_bytes: float
    activation_bytes: float
    logits_bytes: tuple[float, float]
    """From, to."""

    @property
    def total_bytes(self) -> tuple[float, float]:
        """From, to."""
        rest = self.weights_bytes + self.trained_bytes + self.activation_bytes
        return rest + self.logits_bytes[0], rest + self.logits_bytes[1]

    @property
    def total_gb(self) -> tuple[float, float]:
        """From, to, in 10^9 bytes."""
        low, high = self.total_bytes
        return low / 1e9, high / 1e9

    def fits(self, memory_gb: float) -> bool:
        """Return whether the upper end fits a memory of this size."""
        return self.total_gb[1] <= memory_gb


def memory_need(
    shape: ModelShape, precision: Precision, *, batch_size: int, sequence_length: int, recompute: bool = False
) -> MemoryNeed:
    """Return what a training step needs.

    Args:
        shape: the model.
        precision: of the frozen weights. All trained weights are in single precision, so of full tuning nothing else
            is left.
        batch_size: sequences at once; for DPO twice the pairs.
        sequence_length: tokens of each, padding included.
        recompute: whether activations are checkpointed.

    >>> shape = ModelShape(
    ...     num_matmul_parameters=1400, num_layers=4, hidden_size=10, vocab_size=20, num_trainable=80
    ... )
    >>> memory_need(shape, "bf16", batch_size=1, sequence_length=1).weights_bytes
    2800.0
    """
    tokens = batch_size * sequence_length
    value_bytes = 4 if precision == "fp32" else 2
    layer = _layer_bytes(shape, value_bytes)
    if recompute:
        activations = tokens * (shape.num_layers * shape.hidden_size * value_bytes + layer)
    else:
        activations = tokens * shape.num_layers * layer
    logits = 4.0 * tokens * shape.vocab_size
    return MemoryNeed(
        weights_bytes=_weights_bytes(shape, precision),
        trained_bytes=float(_TRAINED_BYTES * shape.num_trainable),
        activation_bytes=float(activations),
        logits_bytes=(_LOGIT_COPIES[0] * logits, _LOGIT_COPIES[1] * logits),
    )


def _layer_bytes(shape: ModelShape, value_bytes: int) -> float:
    """What one layer keeps of a token for the backward pass."""
    attention = shape.attention_size or shape.hidden_size
    keys = shape.kv_size or attention
    wide = shape.intermediate_size or 4 * shape.hidden_size
    kept = value_bytes * (3 * wide + 2 * attention + 2 * keys) + 4 * 2 * shape.hidden_size
    if shape.trains_base:
        # Every linear layer keeps its input, and the norms, which are trained, what they give out before scaling.
        return kept + value_bytes * (2 * shape.hidden_size + wide) + 4 * 2 * shape.hidden_size
    reads = shape.hidden_size if shape.adapter_input_size is None else shape.adapter_input_size
    return kept + 4 * reads


def _weights_bytes(shape: ModelShape, precision: Precision) -> float:
    if shape.trains_base:
        return 0.0
    if precision not in _QUANTIZED:
        return _WEIGHT_BYTES[precision] * shape.num_base_parameters
    linear = shape.num_matmul_parameters - shape.num_head_parameters
    return _WEIGHT_BYTES[precision] * linear + 2.0 * (shape.num_base_parameters - linear)
