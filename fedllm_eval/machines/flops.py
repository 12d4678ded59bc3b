"""The floating-point operations of training: forward, LoRA, full tuning, DPO and KTO, with and without checkpointing.

Symbols: N weights multiplied with activations, n of the adapter, L layers with attention of width a, sequences of s
tokens. A multiplication and an addition are two operations. For one token

    forward                          2 N + 2 n + A,  A = 4 L s a   (scores and sums over all s positions)
    backward under LoRA              2 N + 4 n + 2 A, less what the first layer need not compute
    backward of full tuning          4 N + 2 A
    recomputed by checkpointing      2 (N - N_once) + 2 n + A, and the first layer's input has a gradient then

(Kaplan et al. 2020, section 2.1, taken apart matrix by matrix; within 1 % of `torch.utils.flop_counter` with eager
attention. Fused attention computes its scores once more in the backward pass, which is not counted, and a causal
kernel leaves half of them out.) Norms, activations and the optimizer are not counted. Imports no torch.
"""

from dataclasses import dataclass
from typing import Literal

from fedllm_data.errors import ConfigError
from fedllm_eval.machines.model_shape import ModelShape

__all__ = ["Objective", "Work", "forward_flops", "step_flops", "token_flops", "visit_flops"]

Objective = Literal["sft", "dpo", "kto"]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is done with every row."""

    objective: Objective = "sft"
    recompute: bool = False
    """Whether activations are computed again for the backward pass (gradient checkpointing)."""
    reads_reference: bool = True
    """Whether DPO's or KTO's reference reads the row as well; False where its log-probabilities are kept."""
    reads_mismatch: bool = True
    """Whether KTO's divergence is estimated from mismatched completions (`loss_type` kto), which policy and reference
    read too: these change, and are never kept."""


def forward_flops(shape: ModelShape, sequence_length: int, *, with_adapter: bool = True) -> float:
    """Return the operations of one token's forward pass.

    Args:
        shape: the model.
        sequence_length: s, tokens of the row.
        with_adapter: False for a reference that is the base.

    >>> forward_flops(ModelShape(
    ...     num_matmul_parameters=1000, num_layers=2, hidden_size=8, vocab_size=10, num_trainable=50
    ... ), 4)
    2356.0
    """
    adapter = 0 if shape.trains_base or not with_adapter else shape.num_trainable
    return 2.0 * (shape.num_matmul_parameters + adapter) + _attention(shape, sequence_length)


def step_flops(shape: ModelShape, sequence_length: int, *, recompute: bool = False) -> float:
    """Return the operations of training on one token: forward, backward and what is computed again.

    Args:
        shape: the model.
        sequence_length: s.
        recompute: whether activations are checkpointed.

    >>> shape = ModelShape(
    ...     num_matmul_parameters=1000, num_layers=2, hidden_size=8, vocab_size=10, num_trainable=50
    ... )
    >>> step_flops(shape, 4), step_flops(shape, 4, recompute=True)
    (5068.0, 7264.0)
    """
    attention = _attention(shape, sequence_length)
    matmul = float(shape.num_matmul_parameters)
    forward = forward_flops(shape, sequence_length)
    products = 4 * shape.num_layers
    if not recompute and shape.num_attention_gradients is not None:
        products = shape.num_attention_gradients
    backward = 2 * attention * products / (4 * shape.num_layers)
    if shape.trains_base:
        backward += 4 * matmul
    else:
        # transformers gives the embedding's output a gradient where activations are checkpointed.
        spared = 0 if recompute else shape.num_without_input_gradient
        backward += 2 * (matmul - spared) + 4 * shape.num_trainable
    if not recompute:
        return forward + backward
    once = shape.num_head_parameters if shape.num_not_recomputed is None else shape.num_not_recomputed
    return 2 * forward + backward - 2.0 * once


def visit_flops(shape: ModelShape, work: Work, *, num_rows: int, tokens_per_row: int) -> float:
    """Return the operations of a client's visit.

    Args:
        shape: the model.
        work: what is done with every row.
        num_rows: rows read over all steps: steps times rows a step.
        tokens_per_row: tokens of a row; for DPO of each of its two answers with the prompt, for KTO of its one.

    Raises:
        ConfigError: if a count is negative.

    >>> shape = ModelShape(
    ...     num_matmul_parameters=1000, num_layers=2, hidden_size=8, vocab_size=10, num_trainable=50
    ... )
    >>> visit_flops(shape, Work(), num_rows=3, tokens_per_row=4) == 3 * 4 * step_flops(shape, 4)
    True
    """
    if num_rows < 0 or tokens_per_row < 0:
        raise ConfigError(f"{num_rows} rows of {tokens_per_row} tokens; counts are not negative")
    sequences = 2 if work.objective == "dpo" else 1
    return token_flops(shape, work, tokens_per_row) * sequences * num_rows * tokens_per_row


def token_flops(shape: ModelShape, work: Work, sequence_length: int) -> float:
    """Return the operations for one token that is trained on, with what reads it besides.

    Args:
        shape: the model.
        work: what is done with every row.
        sequence_length: s, tokens of the sequence it stands in.

    >>> shape = ModelShape(
    ...     num_matmul_parameters=1000, num_layers=2, hidden_size=8, vocab_size=10, num_trainable=50
    ... )
    >>> token_flops(shape, Work(objective="dpo"), 4) - step_flops(shape, 4)
    2256.0
    """
    found = step_flops(shape, sequence_length, recompute=work.recompute)
    reference = forward_flops(shape, sequence_length, with_adapter=False)
    if work.objective != "sft" and work.reads_reference:
        found += reference
    if work.objective == "kto" and work.reads_mismatch:
        found += forward_flops(shape, sequence_length) + reference
    return found


def _attention(shape: ModelShape, sequence_length: int) -> float:
    """Scores and weighted sums of one token over all positions, in all layers."""
    return 4.0 * shape.num_layers * sequence_length * (shape.attention_size or shape.hidden_size)
