"""The answers that a policy writes to conversations, batched.

Prompts are sorted by length and padded on the left; a row that has ended leaves the batch. Which rows share a batch
and the order they are given in do not matter: greedy answers depend on the conversation alone, and a sampled answer
draws its uniforms from a stream of its own that hangs on the seed and the conversation's content. What remains is
rounding (about 1e-5 in float32): two tokens that tie to that precision may swap.

`token_choice.py` says how a token is drawn. Penalties and other settings of a model's `generation_config` are left
aside, its end tokens are not. Imports torch when called.
"""

import inspect
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedllm_data.errors import ConfigError, MetricError
from fedllm_eval.policy.rendering import render_ids, render_text
from fedllm_eval.policy.token_choice import TokenChooser

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = [
    "Answer",
    "conversation_key",
    "generate",
    "generate_answers",
    "prompt_lengths",
    "stop_token_ids",
    "takes_logits_to_keep",
]

Message = dict[str, str]
Conversation = Sequence[Message]
Progress = Callable[[int, int], None]
"""Called with (answers finished, answers in all)."""


class Answer(NamedTuple):
    """One answer and how it ended."""

    text: str
    """Without special tokens and white space around it."""
    num_tokens: int
    """Tokens generated, the end token included."""
    finished: bool
    """Whether the policy ended it itself, rather than the limit of tokens."""


def generate_answers(
    policy: "Policy",
    conversations: Sequence[Conversation],
    *,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 8,
    progress: Progress | None = None,
) -> list[str]:
    """Return the texts of `generate`'s answers, in the order of the conversations.

    Raises:
        ConfigError: as `generate` does.
        MetricError: as `generate` does.
    """
    answers = generate(
        policy,
        conversations,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        batch_size=batch_size,
        progress=progress,
    )
    return [answer.text for answer in answers]


def generate(
    policy: "Policy",
    conversations: Sequence[Conversation],
    *,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 8,
    progress: Progress | None = None,
    on_answer: Callable[[int, Answer], None] | None = None,
    on_tokens: Callable[[int, list[int], list[int]], None] | None = None,
) -> list[Answer]:
    """Return one answer for each conversation.

    Args:
        policy: who answers; its tokenizer needs a chat template.
        conversations: message lists that end where the assistant is to speak.
        max_new_tokens: tokens an answer has at most; fewer where the model's positions end.
        temperature: 0 takes the likeliest token; above 0 logits are divided by it and a token is drawn.
        top_p: share of probability that the nucleus holds at least, in (0, 1]; 1 keeps the whole vocabulary.
        seed: seeds the streams that sampling draws from; the same conversation gets the same answer under one seed.
        batch_size: conversations answered side by side.
        progress: called whenever an answer has ended.
        on_answer: given (position of the conversation, answer) as soon as it has ended; of equal conversations the
            first alone.
        on_tokens: given (position, prompt's token ids, answer's token ids with the end token) in the same way.

    Returns:
        Answers in the order of the conversations.

    Raises:
        ConfigError: if a setting makes no sense, or a prompt fills the model's positions; before anything is answered.
        MetricError: if the model gives values that are not finite.
    """
    _check(max_new_tokens, temperature, top_p, batch_size)
    _check_writes(policy)
    keys = [conversation_key(conversation, index) for index, conversation in enumerate(conversations)]
    first = {key: index for index, key in reversed(list(enumerate(keys)))}
    prompts = {key: _prompt_ids(policy.tokenizer, conversations[index]) for key, index in first.items()}
    room = _room(policy, prompts, first, max_new_tokens)
    stops = stop_token_ids(policy)
    times = Counter(keys)
    answers: dict[str, Answer] = {}
    num_done = 0

    def finish(key: str, ids: list[int], by_stop: bool) -> None:
        nonlocal num_done
        text = policy.tokenizer.decode(ids[:-1] if by_stop else ids, skip_special_tokens=True).strip()
        answers[key] = Answer(text, len(ids), by_stop)
        num_done += times[key]
        if on_answer is not None:
            on_answer(first[key], answers[key])
        if on_tokens is not None:
            on_tokens(first[key], prompts[key], ids)
        if progress is not None:
            progress(num_done, len(keys))

    # Longest first: a batch too big for the memory fails at once. Equal lengths go by content, not by position.
    order = sorted(prompts, key=lambda key: (-len(prompts[key]), key))
    choose = TokenChooser(temperature, top_p, seed)
    with policy.active() as model:
        was_training = model.training
        model.eval()
        try:
            for begin in range(0, len(order), batch_size):
                batch = order[begin : begin + batch_size]
                _run_batch(
                    model,
                    {key: prompts[key] for key in batch},
                    {key: room[key] for key in batch},
                    choose,
                    stops,
                    finish,
                )
        finally:
            model.train(was_training)
    return [answers[key] for key in keys]


def prompt_lengths(policy: "Policy", conversations: Sequence[Conversation]) -> npt.NDArray[np.int64]:
    """Return the number of tokens of each conversation as it is put to the policy, generation prompt included."""
    return np.array([len(_prompt_ids(policy.tokenizer, item)) for item in conversations], dtype=np.int64)


def stop_token_ids(policy: "Policy") -> frozenset[int]:
    """Return the tokens that end an answer: the model's, the tokenizer's and the chat template's end of turn."""
    model, tokenizer = policy.model, policy.tokenizer
    stops: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        ids = getattr(source, "eos_token_id", None)
        stops.update([ids] if isinstance(ids, int) else ids or [])
    # A base model that was trained under another template may still name its old end token.
    marker = "answer"
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": marker}]
    tail = render_text(tokenizer, turns).rpartition(marker)[2].strip()
    stops.update(
        index
        for token, index in zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
        if tail.startswith(token)
    )
    return frozenset(stops)


def _run_batch(
    model: Any,
    prompts: dict[str, list[int]],
    room: dict[str, int],
    choose: TokenChooser,
    stops: frozenset[int],
    finish: Callable[[str, list[int], bool], None],
) -> None:
    """Generate until every conversation has ended; `finish` is called with key, tokens and whether a stop came."""
    import torch

    device = next(model.parameters()).device
    width = max(map(len, prompts.values()))
    # What stands in the padding is masked; any token will do.
    input_ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(prompts.values()):
        input_ids[row, width - len(ids) :] = torch.tensor(ids)
        mask[row, width - len(ids) :] = 1
    input_ids, mask = input_ids.to(device), mask.to(device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    written: dict[str, list[int]] = {key: [] for key in prompts}
    alive = list(prompts)
    cache = None
    options: dict[str, Any] = {"logits_to_keep": 1} if takes_logits_to_keep(model) else {}
    with torch.inference_mode():
        while True:
            output = model(
                input_ids=input_ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                **options,
            )
            cache = output.past_key_values
            logits = output.logits[:, -1].float()
            if not bool(torch.isfinite(logits.max(-1).values).all()):
                raise MetricError(
                    "the model gives logits that are not finite; its weights or the dtype are broken, check the "
                    "training run"
                )
            stay = []
            for at, (key, token) in enumerate(zip(alive, choose(alive, logits), strict=True)):
                ids = written[key]
                ids.append(token)
                if ids[-1] in stops or len(ids) >= room[key]:
                    finish(key, ids, ids[-1] in stops)
                else:
                    stay.append(at)
            if not stay:
                return
            if len(stay) < len(alive):
                index = torch.tensor(stay, device=device)
                cache.batch_select_indices(index)
                mask, positions = mask[index], positions[index]
                alive = [alive[at] for at in stay]
            input_ids = torch.tensor([written[key][-1:] for key in alive], device=device)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
            positions = positions[:, -1:] + 1


def _prompt_ids(tokenizer: Any, conversation: Conversation) -> list[int]:
    return render_ids(tokenizer, conversation, add_generation_prompt=True)


def _room(
    policy: "Policy", prompts: dict[str, list[int]], first: dict[str, int], max_new_tokens: int
) -> dict[str, int]:
    """New tokens that each conversation may have: the same in any batch."""
    positions = getattr(policy.model.config, "max_position_embeddings", None)
    if positions is None:
        return dict.fromkeys(prompts, max_new_tokens)
    for key, ids in prompts.items():
        if len(ids) >= positions:
            raise ConfigError(
                f"conversation {first[key]} is {len(ids)} tokens long, but model {policy.name!r} has {positions} "
                "positions and needs one to answer; shorten it or leave it out"
            )
    return {key: min(max_new_tokens, positions - len(ids)) for key, ids in prompts.items()}


def conversation_key(conversation: Conversation, index: int) -> str:
    """Return what tells one conversation from another: its messages alone.

    Raises:
        ConfigError: if it has no message; `index` says which one it is.

    >>> conversation_key([{"role": "user", "content": "Hi"}], 0)
    '[["user", "Hi"]]'
    """
    if not conversation:
        raise ConfigError(f"conversation {index} has no message; leave it out")
    return json.dumps([[message["role"], message["content"]] for message in conversation], ensure_ascii=False)


def _check_writes(policy: "Policy") -> None:
    """Refuse an adapter of virtual tokens: PEFT puts them before every step's token, also where a cache has them."""
    kinds = getattr(policy.model, "peft_config", {}).values()
    if policy.adapter is not None and any(kind.is_prompt_learning for kind in kinds):
        raise ConfigError(
            f"{policy.name!r} is an adapter of virtual tokens (prompt or prefix tuning), with which no answers can be "
            "generated here; score given answers, or train another kind of adapter"
        )


def takes_logits_to_keep(model: Any) -> bool:
    """Return whether a model can leave out the logits of positions that nobody reads."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def _check(max_new_tokens: int, temperature: float, top_p: float, batch_size: int) -> None:
    if max_new_tokens < 1 or batch_size < 1:
        raise ConfigError(f"max_new_tokens {max_new_tokens}, batch_size {batch_size}: both must be at least 1")
    if not temperature >= 0 or not np.isfinite(temperature):
        raise ConfigError(f"temperature is {temperature}; it must be 0 (greedy) or a positive number")
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p is {top_p}; it must be above 0 and at most 1")
