"""Log-probabilities token by token, and greedy continuations of a begun answer: what audits ask of a model.

`fedllm_eval.policy.models` gives sums over answers; a membership score over the least likely tokens needs each of
them. Imports torch when called.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import MetricError

__all__ = ["continue_greedily", "token_logps"]

Array = npt.NDArray[np.float64]
MAX_BATCH_TOKENS = 4096


def token_logps(
    model: Any,
    sequences: Sequence[tuple[list[int], list[int]]],
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> list[Array]:
    """Return the log-probability of every masked token of every sequence, in nats.

    Args:
        model: a causal language model.
        sequences: token ids, and 1 where a token is wanted; the first token of a sequence never is.
        batch_size: sequences a batch holds at most.
        progress: called with (sequences done, sequences in all).

    Returns:
        One array a sequence, in the order given; empty where nothing is wanted.

    Raises:
        MetricError: if the model gives values that are not finite.
    """
    import torch

    found: list[Array] = [np.empty(0) for _ in sequences]
    order = sorted(range(len(sequences)), key=lambda i: (-len(sequences[i][0]), i))
    batches: list[list[int]] = []
    for index in order:
        if not any(sequences[index][1][1:]):
            continue
        width = len(sequences[batches[-1][0]][0]) if batches else 0
        if not batches or len(batches[-1]) == batch_size or (len(batches[-1]) + 1) * width > MAX_BATCH_TOKENS:
            batches.append([])
        batches[-1].append(index)
    device = next(model.parameters()).device
    num_done = 0
    with torch.inference_mode():
        for batch in batches:
            width = len(sequences[batch[0]][0])
            ids = torch.zeros(len(batch), width, dtype=torch.long)
            attention = torch.zeros_like(ids)
            for row, index in enumerate(batch):
                ids[row, : len(sequences[index][0])] = torch.tensor(sequences[index][0])
                attention[row, : len(sequences[index][0])] = 1
            logits = model(input_ids=ids.to(device), attention_mask=attention.to(device), use_cache=False).logits
            logps = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, 1:, None].to(device)).squeeze(-1)
            for row, index in enumerate(batch):
                wanted = np.flatnonzero(sequences[index][1][1:])
                found[index] = logps[row].double().cpu().numpy()[wanted]
                if not np.isfinite(found[index]).all():
                    raise MetricError(f"the model gives sequence {index} log-probabilities that are not finite")
            num_done += len(batch)
            if progress is not None:
                progress(num_done, len(sequences))
    return found


def continue_greedily(model: Any, tokenizer: Any, texts: Sequence[str], max_new_tokens: int) -> list[str]:
    """Return the likeliest continuation, token by token, of texts that already hold their special tokens."""
    import torch

    continuations = []
    ends = {tokenizer.eos_token_id}
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            given = len(ids)
            for _ in range(max_new_tokens):
                window = torch.tensor([ids], device=next(model.parameters()).device)
                token = int(model(input_ids=window, use_cache=False).logits[0, -1].argmax())
                if token in ends:
                    break
                ids.append(token)
            continuations.append(tokenizer.decode(ids[given:], skip_special_tokens=True))
    return continuations
