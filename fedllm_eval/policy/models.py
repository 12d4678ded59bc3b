"""The log-probabilities that a model gives to answers.

Symbols: N rows. Every sequence is scored on its own: batches are made by length to waste little padding, results come
back in row order as float64 sums over the answer's tokens, and which rows share a batch moves a sum by rounding only
(about 1e-5 in float32).

Truncation follows TRL's trainers: the first `max_length` tokens stay. A row that keeps no answer token (for a pair:
whose prompt alone fills `max_length`) is one that TRL would drop from training; here its values are NaN with 0
tokens. So are those of a row that the chat template cannot render, which training leaves out too. All cases are
counted in what is returned.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from fedllm_data.errors import ChatTemplateError, ConfigError, MetricError
from fedllm_eval.policy.chat import encode_messages, encode_pair
from fedllm_eval.policy.generation import takes_logits_to_keep
from fedllm_eval.policy.policies import Backbone, Policy, load_policy, load_reference

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
    "sequence_logps",
    "usable_length",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Sequence = tuple[list[int], list[int]]
"""Token ids, and 1 where a token is to be scored."""
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
    sequences, truncated, unrendered = [], [], []
    for row in rows:
        encoded = _or_nothing(encode_messages, tokenizer, row["messages"])
        unrendered.append(encoded is None)
        encoded = encoded or {"input_ids": [], "assistant_masks": []}
        ids, mask = encoded["input_ids"], encoded["assistant_masks"]
        truncated.append(max_length is not None and len(ids) > max_length)
        sequences.append((ids[:max_length], mask[:max_length]))
    logp_N, num_tokens_N = sequence_logps(model, sequences, batch_size, progress)
    return MessageLosses(-logp_N, num_tokens_N, np.array(truncated, dtype=bool), np.array(unrendered, dtype=bool))


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
    """
    sequences: list[Sequence] = []
    truncated, dropped, unrendered = [], [], []
    for row in rows:
        encoded = _or_nothing(encode_pair, tokenizer, row["prompt"], row["chosen"], row["rejected"])
        unrendered.append(encoded is None)
        encoded = encoded or {"prompt_ids": [], "chosen_ids": [], "rejected_ids": []}
        prompt_ids = encoded["prompt_ids"]
        lengths = []
        for answer_ids in (encoded["chosen_ids"], encoded["rejected_ids"]):
            lengths.append(len(prompt_ids) + len(answer_ids))
            mask = [0] * len(prompt_ids) + [1] * len(answer_ids)
            sequences.append(((prompt_ids + answer_ids)[:max_length], mask[:max_length]))
        truncated.append(max_length is not None and max(lengths) > max_length)
        dropped.append(max_length is not None and len(prompt_ids) >= max_length)
    logp_2N, num_tokens_2N = sequence_logps(model, sequences, batch_size, progress)
    # An answer without tokens has no log-probability; TRL cannot train on such a pair, so both sides go.
    dropped_N = np.array(dropped, dtype=bool) | (num_tokens_2N.reshape(-1, 2) == 0).any(axis=1)
    chosen_N, rejected_N = (np.where(dropped_N, np.nan, logp_2N[side::2]) for side in (0, 1))
    chosen_tokens_N, rejected_tokens_N = (np.where(dropped_N, 0, num_tokens_2N[side::2]) for side in (0, 1))
    facts = (np.array(each, dtype=bool) for each in (truncated, unrendered))
    return PairLogps(chosen_N, rejected_N, chosen_tokens_N, rejected_tokens_N, *facts)


def sequence_logps(
    model: Any, sequences: list[Sequence], batch_size: int, progress: Progress | None = None
) -> tuple[FloatArray, IntArray]:
    """Return the sum of log-probabilities over each sequence's masked tokens, and how many those are.

    Args:
        model: a causal language model.
        sequences: token ids and masks; the first token of a sequence is never scored.
        batch_size: sequences a batch holds at most.
        progress: called after every batch.

    Returns:
        Sums in nats, NaN where no masked token is left, and numbers of tokens, in the order given.

    Raises:
        MetricError: if the model gives values that are not finite.
        ConfigError: if the batch size is not positive.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
    logp_N = np.full(len(sequences), np.nan)
    # The first token has nothing before it to be predicted from.
    positions = [[at for at in range(1, len(ids)) if mask[at]] for ids, mask in sequences]
    num_tokens_N = np.array([len(at) for at in positions], dtype=np.int64)
    # What follows the last masked token cannot change an earlier prediction, and that token itself is not read.
    lengths = [at[-1] if at else 0 for at in positions]
    was_training = model.training
    model.eval()
    num_done = int((num_tokens_N == 0).sum())
    try:
        for batch in batches_by_length(lengths, batch_size):
            logp_N[batch] = _batch_logps(model, [sequences[i][0] for i in batch], [positions[i] for i in batch])
            num_done += len(batch)
            if progress is not None:
                progress(num_done, len(sequences))
    finally:
        model.train(was_training)
    bad = np.flatnonzero(~np.isfinite(logp_N) & (num_tokens_N > 0))
    if bad.size:
        raise MetricError(
            f"the model gives log-probability {logp_N[bad[0]]} to sequence {bad[0]} ({bad.size} such in "
            "all); its weights or the dtype are broken, check the training run"
        )
    return logp_N, num_tokens_N


def _or_nothing(encode: Callable[..., dict[str, list[int]]], *given: Any) -> dict[str, list[int]] | None:
    """What an encoder makes of a row, None where the chat template cannot render it."""
    try:
        return encode(*given)
    except ChatTemplateError:
        return None


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
    # Logits are needed where an answer token comes next, in any row: with a vocabulary of 50,000 they are most of
    # the memory and a good part of the time.
    keep = sorted({position - 1 for at in positions for position in at})
    device = next(model.parameters()).device
    options: dict[str, Any] = {"use_cache": False}
    if takes_logits_to_keep(model) and not _learns_prompt(model):
        options["logits_to_keep"] = torch.tensor(keep, device=device)
    logits = model(input_ids=input_ids.to(device), attention_mask=attention_mask.to(device), **options).logits
    if logits.shape[1] != len(keep):
        # The virtual tokens of prompt tuning come first and have logits too.
        logits = logits[:, -width:][:, torch.tensor(keep, device=device)]
    column = {position: index for index, position in enumerate(keep)}
    sums = []
    for row, (tokens, at) in enumerate(zip(ids, positions, strict=True)):
        row_logits = logits[row, [column[position - 1] for position in at]].float()
        targets = torch.tensor([tokens[position] for position in at], device=device)
        selected = row_logits.gather(-1, targets[:, None]).squeeze(-1).double()
        sums.append(float((selected - row_logits.logsumexp(-1).double()).sum()))
    return sums


def _learns_prompt(model: Any) -> bool:
    return any(config.is_prompt_learning for config in getattr(model, "peft_config", {}).values())
