"""A few held-out prompts and what base, SFT and DPO answer: greedy, so the same models give the same words.

Which prompts are shown is settled by a hash of their ids before any model answers.
"""

from collections import Counter
from hashlib import blake2b
from pathlib import Path
from typing import Any

from fedllm_data.clients import load_clients
from fedllm_eval.policy.rendering import render_ids

__all__ = ["choose_rows", "generate_answers", "held_out_answers"]

NUM_ANSWERS = 6
MAX_NEW_TOKENS = 40
MAX_PROMPT_CHARS = 400
"""Longer prompts would fill the page and may not fit a small model."""


def held_out_answers(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the answers of the three policies of a quickstart folder, and the base model's number of parameters.

    Returns:
        One item a prompt: `client_id`, `language`, `prompt`, `reference`, `base`, `sft`, `dpo`.

    >>> held_out_answers(Path("no-such-folder"))
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no folder no-such-folder/fed-synth here, ...
    """
    from fedllm_eval.policy.policies import load_policy

    rows = choose_rows(load_clients(folder / "fed-synth", "test").rows.to_list())
    prompts = [row["messages"][:-1] for row in rows]
    base = load_policy(folder / "base", device="cpu")
    num_parameters = sum(parameter.numel() for parameter in base.model.parameters())
    answers = {"base": generate_answers(base, prompts)}
    for name in ("sft", "dpo"):
        answers[name] = generate_answers(load_policy(folder / "runs" / name, share=base, device="cpu"), prompts)
    items = [
        {
            "client_id": row["client_id"],
            "language": row["language"],
            "prompt": "\n".join(message["content"] for message in row["messages"][:-1]),
            "reference": row["messages"][-1]["content"],
            **{name: texts[position] for name, texts in answers.items()},
        }
        for position, row in enumerate(rows)
    ]
    return items, num_parameters


def choose_rows(rows: list[dict[str, Any]], num_rows: int = NUM_ANSWERS) -> list[dict[str, Any]]:
    """Return rows to show: one of each of the most frequent languages, then second ones until there are enough.

    Within a language the order is that of a hash of the row ids.

    Args:
        rows: rows in the `sft` format; those that end in no answer or are too long to show are passed over.
        num_rows: how many to return; fewer if there are fewer.

    >>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    >>> rows = [{"row_id": str(n), "language": language, "messages": turns} for n, language in enumerate("aaabb")]
    >>> [row["language"] for row in choose_rows(rows, 3)]
    ['a', 'b', 'a']
    """
    usable = [
        row
        for row in rows
        if row["messages"][-1]["role"] == "assistant"
        and sum(len(message["content"]) for message in row["messages"]) <= MAX_PROMPT_CHARS
    ]
    counts = Counter(row["language"] for row in usable)
    seen: Counter[str] = Counter()
    ranked = []
    for row in sorted(usable, key=lambda row: blake2b(row["row_id"].encode()).digest()):
        ranked.append((seen[row["language"]], -counts[row["language"]], row["language"], row))
        seen[row["language"]] += 1
    return [row for *_, row in sorted(ranked, key=lambda item: item[:3])[:num_rows]]


def generate_answers(policy: Any, prompts: list[list[dict[str, str]]]) -> list[str]:
    """Return a policy's greedy answers; one that was cut at the limit ends in an ellipsis.

    Args:
        policy: a `fedllm_eval.policy.policies.Policy`.
        prompts: conversations that the policy answers.

    >>> generate_answers(None, [])
    []
    """
    import torch

    if not prompts:
        return []
    tokenizer = policy.tokenizer
    ids = [render_ids(tokenizer, prompt, add_generation_prompt=True) for prompt in prompts]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    length = max(map(len, ids))
    # Padding is on the left: generation continues from the last position.
    input_ids = torch.tensor([[pad] * (length - len(row)) + row for row in ids])
    attention_mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in ids])
    with policy.active() as model, torch.inference_mode():
        generated = model.generate(
            input_ids=input_ids.to(model.device),
            attention_mask=attention_mask.to(model.device),
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
            pad_token_id=pad,
        )
    answers = []
    for row in generated[:, length:].tolist():
        text = tokenizer.decode(row, skip_special_tokens=True).strip()
        is_cut = len(row) == MAX_NEW_TOKENS and row[-1] not in (pad, tokenizer.eos_token_id)
        answers.append(text + " …" if is_cut else text)
    return answers
