"""From messages to token ids: one definition of what is trained on and what is scored.

Only the assistant's tokens count, end-of-turn token included, so that the model learns to stop. Where a chat template
marks them (`{% generation %}`) the template is followed, as TRL's `assistant_only_loss` does; where it does not, they
are found in what the template renders (`turns.py`); and where it writes turns otherwise once the conversation goes on,
TRL's training template for it is taken (`training_template.py`). Pairs are rendered with the tokenizer's own template
and cut as TRL's `DPOTrainer` cuts them. Needs a transformers tokenizer, no torch.
"""

from collections.abc import Sequence
from typing import Any

from fedllm_eval.policy.rendering import Message, render_batch_ids, render_ids
from fedllm_eval.policy.training_template import marked_tokens, training_template

__all__ = ["encode_conversation", "encode_messages", "encode_pair", "encode_pairs"]


def encode_messages(tokenizer: Any, messages: Sequence[Message]) -> dict[str, list[int]]:
    """Return `input_ids` and `assistant_masks` of a conversation, both of the length of the rendered conversation.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        messages: the conversation; roles system, user and assistant.

    Returns:
        Token ids, and 1 for each token that an assistant wrote (its end-of-turn token included), else 0.

    Raises:
        ChatTemplateError: if the template cannot render the conversation, or the assistant's tokens cannot be told
            apart under it.
        ConfigError: if the tokenizer has no chat template.
    """
    ids, mask = marked_tokens(tokenizer, messages, training_template(tokenizer))
    return {"input_ids": ids, "assistant_masks": mask}


def encode_conversation(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return the token ids of a conversation under the tokenizer's own template, for a loss on all of them.

    Raises:
        ChatTemplateError: if the template cannot render the conversation.
    """
    return render_ids(tokenizer, messages)


def encode_pair(
    tokenizer: Any, prompt: Sequence[Message], chosen: Sequence[Message], rejected: Sequence[Message]
) -> dict[str, list[int]]:
    """Return `prompt_ids`, `chosen_ids` and `rejected_ids`, cut as TRL's `DPOTrainer` cuts them.

    A completion begins where the tokens of prompt + completion part from those of the prompt with its generation
    prompt; where chosen and rejected part at different places, the earlier place counts for both.

    Raises:
        ChatTemplateError: if the template cannot render one of the three.
    """
    prompt_ids = render_ids(tokenizer, prompt, add_generation_prompt=True)
    chosen_ids = render_ids(tokenizer, [*prompt, *chosen])
    rejected_ids = render_ids(tokenizer, [*prompt, *rejected])
    return _cut(prompt_ids, chosen_ids, rejected_ids)


def encode_pairs(
    tokenizer: Any, pairs: Sequence[tuple[Sequence[Message], Sequence[Message], Sequence[Message]]]
) -> list[dict[str, list[int]]]:
    """Return what `encode_pair` does for each (prompt, chosen, rejected), in three calls of the tokenizer.

    Raises:
        ChatTemplateError: if the template cannot render one of them; which one, only `encode_pair` tells.
    """
    prompts = render_batch_ids(tokenizer, [prompt for prompt, _, _ in pairs], add_generation_prompt=True)
    chosen, rejected = (render_batch_ids(tokenizer, [[*pair[0], *pair[side]] for pair in pairs]) for side in (1, 2))
    return [_cut(*ids) for ids in zip(prompts, chosen, rejected, strict=True)]


def _cut(prompt_ids: list[int], chosen_ids: list[int], rejected_ids: list[int]) -> dict[str, list[int]]:
    """A completion begins where its tokens part from the prompt's, at the earlier place of the two."""
    cut = min(_common_prefix(prompt_ids, chosen_ids), _common_prefix(prompt_ids, rejected_ids))
    return {"prompt_ids": prompt_ids[:cut], "chosen_ids": chosen_ids[cut:], "rejected_ids": rejected_ids[cut:]}


def _common_prefix(a: list[int], b: list[int]) -> int:
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))
