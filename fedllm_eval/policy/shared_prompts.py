"""Both answers of a pair behind one reading of their prompt.

The chosen and the rejected answer follow the same prompt, which is a third of the tokens of a pass that reads it
twice. Here a row is the prompt, the chosen and the rejected answer one after the other; both answers have the
positions that follow the prompt, and a mask keeps the second from seeing the first. What comes out differs from
reading two sequences by the rounding of float32.

Only models whose every layer attends to the whole sequence, and which take positions and a mask of that shape, are
read like this; the others (sliding windows, state spaces, adapters of virtual tokens, flash attention) are read
sequence by sequence. Imports torch when called.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fedllm_eval.policy.answer_logits import logits_at, summed_logps

if TYPE_CHECKING:
    import torch

__all__ = ["can_share_prompts", "pair_batches", "two_answers_logps"]

Tokens = Sequence[int]
Answers = tuple[Tokens, Tokens]
"""The chosen and the rejected one."""
PADDING = 3
"""Segment of what belongs to neither the prompt (0) nor an answer (1, 2)."""


def can_share_prompts(model: Any) -> bool:
    """Return whether a model can be given two answers behind one prompt."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not {"position_ids", "attention_mask"} <= set(inspect.signature(base.forward).parameters):
        return False
    if any(config.is_prompt_learning for config in getattr(model, "peft_config", {}).values()):
        return False
    config = base.config.get_text_config()
    if getattr(config, "_attn_implementation", None) not in ("sdpa", "eager") or getattr(config, "alibi", False):
        return False
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return False
    # Models without `layer_types` say by one setting that all layers slide.
    return getattr(config, "layer_types", None) is not None or not getattr(config, "sliding_window", None)


def pair_batches(
    prompts: Sequence[Tokens], answers: Sequence[Answers], batch_size: int, max_tokens: int
) -> Iterator[list[int]]:
    """Yield batches of positions of pairs, the longest first: a batch too big for the memory fails at once.

    Args:
        prompts: one for each pair.
        answers: chosen and rejected of each.
        batch_size: sequences, two for a pair, that a batch holds at most.
        max_tokens: padded tokens that a batch may hold.

    >>> list(pair_batches([[1], [1, 2, 3]], [([4], [5]), ([4], [5, 6])], 8, 100))
    [[1, 0]]
    """
    lengths = [len(prompt) + sum(map(len, pair)) for prompt, pair in zip(prompts, answers, strict=True)]
    batch: list[int] = []
    for at in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        if batch and (2 * len(batch) + 2 > batch_size or (len(batch) + 1) * lengths[batch[0]] > max_tokens):
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


def two_answers_logps(model: Any, prompts: Sequence[Tokens], answers: Sequence[Answers]) -> list[list[float]]:
    """Return the log-probabilities of two answers to each prompt, summed over their tokens.

    Args:
        model: one that `can_share_prompts`.
        prompts: P of them, each of at least one token.
        answers: P pairs of at least one token each.

    Returns:
        P pairs of sums in nats.
    """
    import torch

    # The last token of an answer predicts nothing that counts, so it is not read.
    read = [(*prompt, *one[:-1], *other[:-1]) for prompt, (one, other) in zip(prompts, answers, strict=True)]
    width = max(map(len, read))
    input_ids = torch.zeros(len(read), width, dtype=torch.long)
    position_ids = torch.zeros_like(input_ids)
    segment_PW = torch.full_like(input_ids, PADDING)
    places: list[tuple[int, int]] = []
    for row, (tokens, prompt, pair) in enumerate(zip(read, prompts, answers, strict=True)):
        input_ids[row, : len(tokens)] = torch.tensor(tokens)
        begin, last = len(prompt), len(prompt) - 1
        position_ids[row, :begin] = torch.arange(begin)
        segment_PW[row, :begin] = 0
        for segment, answer in enumerate(pair, start=1):
            end = begin + len(answer) - 1
            position_ids[row, begin:end] = torch.arange(len(prompt), len(prompt) + len(answer) - 1)
            segment_PW[row, begin:end] = segment
            # The first token of either answer is predicted by the last one of the prompt.
            places += [(row, last), *((row, at) for at in range(begin, end))]
            begin = end
    device, dtype = next(model.parameters()).device, model.dtype
    rows_M, columns_M = torch.tensor(places).T
    inputs = {
        "input_ids": input_ids.to(device),
        "position_ids": position_ids.to(device),
        "attention_mask": _mask(segment_PW, dtype).to(device),
    }
    with torch.inference_mode():
        logits_MV = logits_at(model, rows_M, columns_M, **inputs)
        return _sums(logits_MV, answers)


def _sums(logits_MV: "torch.Tensor", answers: Sequence[Answers]) -> list[list[float]]:
    """The sums over each answer's tokens, whose logits follow one another."""
    import torch

    flat = [torch.tensor(answer, device=logits_MV.device) for pair in answers for answer in pair]
    parts = torch.split(logits_MV, [len(answer) for answer in flat])
    sums = [summed_logps(part, answer) for part, answer in zip(parts, flat, strict=True)]
    return [sums[at : at + 2] for at in range(0, len(sums), 2)]


def _mask(segment_PW: "torch.Tensor", dtype: "torch.dtype") -> "torch.Tensor":
    """What is added to attention scores, (P, 1, W, W): 0 for the prompt and one's own segment before, else lowest."""
    import torch

    earlier_WW = torch.ones(segment_PW.shape[1], segment_PW.shape[1], dtype=torch.bool).tril()
    seen = (segment_PW[:, None, :] == 0) | (segment_PW[:, None, :] == segment_PW[:, :, None])
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~(seen & earlier_WW), torch.finfo(dtype).min)
    return mask[:, None]
