"""The log-probabilities that a model gives to answers.

Symbols: N rows. Every sequence is scored on its own: batches are made by length to waste little padding, results come
back in row order as float64 sums over the answer's tokens, and which rows share a batch moves a sum by rounding only
(about 1e-5 in float32).

The prompt of a pair is read once for both answers (`shared_prompts.py`). Rows become tokens once for all models that
score them (`encoded_rows.py`, which also says what is truncated and what is dropped; the values of a dropped row are
NaN with 0 tokens). What a model was found to say of a sequence can be kept (`known_logps.py`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fedllm_data.errors import ConfigError, MetricError
from fedllm_eval.policy.answer_logits import logits_at, summed_logps
from fedllm_eval.policy.encoded_rows import (
    EncodedMessages,
    EncodedPairs,
    Sequence,
    encode_message_rows,
    encode_pair_rows,
    sequence_key,
)
from fedllm_eval.policy.known_logps import KnownLogps
from fedllm_eval.policy.policies import Backbone, Policy, load_policy, load_reference
from fedllm_eval.policy.shared_prompts import can_share_prompts, pair_batches, two_answers_logps

__all__ = [
    "Backbone",
    "MessageLosses",
    "PairLogps",
    "Policy",
    "batches_by_length",
    "load_policy",
    "load_reference",
    "message_losses",
    "pair_logps",
    "score_messages",
    "score_pairs",
    "sequence_logps",
    "usable_length",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]
"""Called with (sequences done, sequences in all) after every batch."""

DEFAULT_MAX_LENGTH = 1024
"""TRL's default for SFT and DPO."""
MAX_BATCH_TOKENS = 4096
"""Padded tokens a batch may hold: bounds the logits in memory (0.8 GB for 49,152 words in float32)."""


class MessageLosses(NamedTuple):
    """Negative log-likelihood of the assistant's tokens, row by row."""

    nll_sum_N: FloatArray
    """In nats; NaN where no assistant token is left."""
    num_tokens_N: IntArray
    truncated_N: npt.NDArray[np.bool_]
    unrendered_N: npt.NDArray[np.bool_]


class PairLogps(NamedTuple):
    """Log-probabilities of both answers of each pair, summed over the answer's tokens."""

    chosen_N: FloatArray
    """In nats; NaN where the prompt leaves no room for the answers."""
    rejected_N: FloatArray
    chosen_tokens_N: IntArray
    rejected_tokens_N: IntArray
    truncated_N: npt.NDArray[np.bool_]
    unrendered_N: npt.NDArray[np.bool_]


def usable_length(model: Any, max_length: int | None = None) -> int:
    """Return how many tokens a sequence may have: TRL's default of 1,024, or less where the model holds less.

    Raises:
        ConfigError: if more is asked for than the model has positions, or less than 2.

    >>> from transformers import LlamaConfig
    >>> from types import SimpleNamespace
    >>> usable_length(SimpleNamespace(config=LlamaConfig(max_position_embeddings=256)))
    256
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if max_length is None:
        return min(DEFAULT_MAX_LENGTH, positions or DEFAULT_MAX_LENGTH)
    if max_length < 2:
        raise ConfigError(f"max_length is {max_length}; a prompt and an answer take at least 2 tokens")
    if positions is not None and max_length > positions:
        raise ConfigError(
            f"max_length is {max_length}, but the model has {positions} positions; ask for at most those"
        )
    return max_length


def message_losses(
    model: Any,
    tokenizer: Any,
    rows: Iterable[Mapping[str, Any]],
    *,
    batch_size: int = 8,
    max_length: int | None = DEFAULT_MAX_LENGTH,
    progress: Progress | None = None,
) -> MessageLosses:
    """Return the negative log-likelihood of the assistant's tokens in each row's `messages`.

    Args:
        model: a causal language model, with or without a PEFT adapter switched on.
        tokenizer: its tokenizer, with a chat template.
        rows: N rows of the `sft` format.
        batch_size: sequences a batch holds at most.
        max_length: tokens a conversation keeps; None keeps all.
        progress: called after every batch.

    Returns:
        Sums in nats, token counts, which rows were truncated and which could not be rendered, in row order.

    Raises:
        MetricError: if the model gives values that are not finite.
        ConfigError: if the tokenizer has no chat template.
    """
    encoded = encode_message_rows(tokenizer, rows, max_length)
    return score_messages(model, encoded, batch_size=batch_size, progress=progress)


def score_messages(
    model: Any,
    encoded: EncodedMessages,
    *,
    batch_size: int = 8,
    progress: Progress | None = None,
    known: KnownLogps | None = None,
) -> MessageLosses:
    """Return what `message_losses` does, for rows that are tokens already.

    Args:
        model: a causal language model.
        encoded: N conversations.
        batch_size: sequences a batch holds at most.
        progress: called after every batch.
        known: log-probabilities under this model: those it has are taken from it, the others are put into it.

    Raises:
        MetricError: if the model gives values that are not finite.
        ConfigError: if the batch size is not positive.
    """
    logp_N, num_tokens_N = sequence_logps(model, encoded.sequences, batch_size, progress, known)
    return MessageLosses(-logp_N, num_tokens_N, encoded.truncated_N, encoded.unrendered_N)


def pair_logps(
    model: Any,
    tokenizer: Any,
    rows: Iterable[Mapping[str, Any]],
    *,
    batch_size: int = 8,
    max_length: int | None = DEFAULT_MAX_LENGTH,
    progress: Progress | None = None,
) -> PairLogps:
    """Return the log-probabilities of each row's `chosen` and `rejected` answer after its `prompt`.

    Args:
        model: a causal language model, with or without a PEFT adapter switched on.
        tokenizer: its tokenizer, with a chat template.
        rows: N rows of the `preference` format.
        batch_size: sequences, not pairs, that a batch holds at most.
        max_length: tokens that prompt + answer keep; None keeps all.
        progress: called after every batch.

    Returns:
        Sums in nats, token counts, which pairs were truncated (one answer is enough) and which could not be rendered,
        in row order.

    Raises:
        MetricError: if the model gives values that are not finite.
        ConfigError: if the tokenizer has no chat template.
    """
    encoded = encode_pair_rows(tokenizer, rows, max_length)
    return score_pairs(model, encoded, batch_size=batch_size, progress=progress)


def score_pairs(
    model: Any,
    encoded: EncodedPairs,
    *,
    batch_size: int = 8,
    progress: Progress | None = None,
    known: KnownLogps | None = None,
) -> PairLogps:
    """Return what `pair_logps` does, for rows that are tokens already; arguments are those of `score_messages`.

    Raises:
        MetricError: if the model gives values that are not finite.
        ConfigError: if the batch size is not positive.
    """
    _check_batch_size(batch_size)
    num_pairs = len(encoded.prompts)
    logp_N2 = np.full((num_pairs, 2), np.nan)
    keys = {}
    if known is not None:
        keys = {
            (at, side): sequence_key(encoded.sequence(at, side))
            for at in np.flatnonzero(~encoded.dropped_N).tolist()
            for side in (0, 1)
        }
        for place, key in keys.items():
            logp_N2[place] = known.get(key)
    missing = np.flatnonzero(~encoded.dropped_N & np.isnan(logp_N2).any(axis=1)).tolist()
    share = batch_size > 1 and can_share_prompts(model)
    together = [at for at in missing if share and encoded.prompts[at]]
    alone = [at for at in missing if not (share and encoded.prompts[at])]
    num_done = 2 * (num_pairs - len(missing))

    def told(num_more: int) -> None:
        if progress is not None and num_more:
            progress(num_done + num_more, 2 * num_pairs)

    with _evaluating(model):
        prompts, answers = [encoded.prompts[at] for at in together], [encoded.answers[at] for at in together]
        for batch in pair_batches(prompts, answers, batch_size, MAX_BATCH_TOKENS):
            logp_N2[[together[i] for i in batch]] = two_answers_logps(
                model, [prompts[i] for i in batch], [answers[i] for i in batch]
            )
            told(2 * len(batch))
            num_done += 2 * len(batch)
    logp_N2[alone] = _sequences_alone(model, encoded, alone, batch_size, told)
    bad = [at for at in missing if not np.isfinite(logp_N2[at]).all()]
    if bad:
        raise _not_finite(logp_N2[bad[0]], f"pair {bad[0]}", len(bad))
    if known is not None:
        for place, key in keys.items():
            logp_N2[place] = known.put(key, float(logp_N2[place]))
    # The first token of a sequence is never scored.
    tokens_N2 = np.array(
        [[len(answer) - (not prompt) for answer in pair] for prompt, pair in zip(*encoded[:2], strict=True)],
        dtype=np.int64,
    ).reshape(-1, 2)
    tokens_N2[encoded.dropped_N] = 0
    facts = encoded.truncated_N, encoded.unrendered_N
    return PairLogps(logp_N2[:, 0], logp_N2[:, 1], tokens_N2[:, 0], tokens_N2[:, 1], *facts)


def sequence_logps(
    model: Any,
    sequences: list[Sequence],
    batch_size: int,
    progress: Progress | None = None,
    known: KnownLogps | None = None,
) -> tuple[FloatArray, IntArray]:
    """Return the sum of log-probabilities over each sequence's masked tokens, and how many those are.

    Args:
        model: a causal language model.
        sequences: token ids and masks; the first token of a sequence is never scored.
        batch_size: sequences a batch holds at most.
        progress: called after every batch.
        known: as in `score_messages`.

    Returns:
        Sums in nats, NaN where no masked token is left, and numbers of tokens, in the order given.

    Raises:
        MetricError: if the model gives values that are not finite.
        ConfigError: if the batch size is not positive.
    """
    _check_batch_size(batch_size)
    logp_N = np.full(len(sequences), np.nan)
    # The first token has nothing before it to be predicted from.
    positions = [[at for at in range(1, len(ids)) if mask[at]] for ids, mask in sequences]
    num_tokens_N = np.array([len(at) for at in positions], dtype=np.int64)
    keys = {}
    if known is not None:
        keys = {i: sequence_key(sequences[i]) for i in np.flatnonzero(num_tokens_N).tolist()}
        for i, key in keys.items():
            logp_N[i] = known.get(key)
    # What follows the last masked token cannot change an earlier prediction, and that token itself is not read.
    lengths = [at[-1] if at and np.isnan(logp_N[i]) else 0 for i, at in enumerate(positions)]
    num_done = lengths.count(0)
    with _evaluating(model):
        for batch in batches_by_length(lengths, batch_size):
            logp_N[batch] = _batch_logps(model, [sequences[i][0] for i in batch], [positions[i] for i in batch])
            num_done += len(batch)
            if progress is not None:
                progress(num_done, len(sequences))
    bad = np.flatnonzero(~np.isfinite(logp_N) & (num_tokens_N > 0))
    if bad.size:
        raise _not_finite(logp_N[bad[:1]], f"sequence {bad[0]}", bad.size)
    if known is not None:
        for i, key in keys.items():
            logp_N[i] = known.put(key, float(logp_N[i]))
    return logp_N, num_tokens_N


def _sequences_alone(
    model: Any, encoded: EncodedPairs, pairs: list[int], batch_size: int, told: Callable[[int], None]
) -> FloatArray:
    """The (P, 2) sums of pairs whose two sequences are read one by one."""
    sequences = [encoded.sequence(at, side) for at in pairs for side in (0, 1)]
    return sequence_logps(model, sequences, batch_size, lambda done, _: told(done))[0].reshape(-1, 2)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """The model without dropout for the length of the block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _not_finite(logps: FloatArray, what: str, num: int) -> MetricError:
    value = logps[~np.isfinite(logps)][0]
    return MetricError(
        f"the model gives log-probability {value} to {what} ({num} such in all); its weights or the dtype are broken, "
        "check the training run"
    )


def batches_by_length(lengths: list[int], batch_size: int) -> Iterator[list[int]]:
    """Yield batches of positions, the longest sequences first: a batch too big for the memory fails at once.

    Args:
        lengths: tokens of each sequence; one of 0 is in no batch.
        batch_size: sequences that a batch holds at most.
    """
    batch: list[int] = []
    for index in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) == batch_size or (len(batch) + 1) * lengths[batch[0]] > MAX_BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


@torch.inference_mode()
def _batch_logps(model: Any, ids: list[list[int]], positions: list[list[int]]) -> list[float]:
    width = max(at[-1] for at in positions)
    input_ids = torch.zeros(len(ids), width, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, (tokens, at) in enumerate(zip(ids, positions, strict=True)):
        input_ids[row, : at[-1]] = torch.tensor(tokens[: at[-1]])
        attention_mask[row, : at[-1]] = 1
    # A token is predicted by the one before it.
    rows_M = torch.tensor([row for row, at in enumerate(positions) for _ in at])
    columns_M = torch.tensor([position - 1 for at in positions for position in at])
    device = next(model.parameters()).device
    inputs = {"input_ids": input_ids.to(device), "attention_mask": attention_mask.to(device)}
    parts = torch.split(logits_at(model, rows_M, columns_M, **inputs), [len(at) for at in positions])
    targets = [[tokens[position] for position in at] for tokens, at in zip(ids, positions, strict=True)]
    return [
        summed_logps(part, torch.tensor(target, device=part.device))
        for part, target in zip(parts, targets, strict=True)
    ]
