"""From messages to token ids: one definition of what is trained on and what is scored.

Only the assistant's tokens count. Where a chat template marks them (`{% generation %}`) the template is followed, as
TRL's `assistant_only_loss` does. Where it does not, the assistant's part of the text is found by rendering the
conversation turn by turn: a turn runs from the end of its generation prompt to the end of the turn, end-of-turn token
included, so that the model learns to stop. A template whose shorter renderings are not prefixes of the longer ones
cannot be cut that way and is refused. Needs a transformers tokenizer, no torch.
"""

from collections.abc import Sequence
from typing import Any

from fedllm_data.errors import ConfigError

__all__ = ["encode_messages", "encode_pair", "marks_generation"]

Message = dict[str, str]


def marks_generation(tokenizer: Any) -> bool:
    """Return whether the tokenizer's chat template says itself which tokens are the assistant's."""
    template = tokenizer.chat_template
    if template is None:
        raise ConfigError(
            f"tokenizer {tokenizer.name_or_path!r} has no chat template; set tokenizer.chat_template or use an "
            "instruct model"
        )
    return "{% generation" in template or "{%- generation" in template


def encode_messages(tokenizer: Any, messages: Sequence[Message]) -> dict[str, list[int]]:
    """Return `input_ids` and `assistant_masks` of a conversation, both of the length of the rendered conversation.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        messages: the conversation; roles system, user and assistant.

    Returns:
        Token ids, and 1 for each token that an assistant wrote (its end-of-turn token included), else 0.

    Raises:
        ConfigError: if the assistant's tokens cannot be told apart under this chat template.
    """
    if marks_generation(tokenizer):
        encoded = tokenizer.apply_chat_template(
            list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        return {"input_ids": list(encoded["input_ids"]), "assistant_masks": list(encoded["assistant_masks"])}
    text = tokenizer.apply_chat_template(list(messages), tokenize=False)
    spans = _assistant_spans(tokenizer, messages, text)
    # Like apply_chat_template itself: the template writes the special tokens, the tokenizer must not add more.
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    masks = [
        int(any(begin >= span_begin and end <= span_end and end > begin for span_begin, span_end in spans))
        for begin, end in encoded["offset_mapping"]
    ]
    return {"input_ids": list(encoded["input_ids"]), "assistant_masks": masks}


def encode_pair(
    tokenizer: Any, prompt: Sequence[Message], chosen: Sequence[Message], rejected: Sequence[Message]
) -> dict[str, list[int]]:
    """Return `prompt_ids`, `chosen_ids` and `rejected_ids`, cut as TRL's `DPOTrainer` cuts them.

    A completion begins where the tokens of prompt + completion part from those of the prompt with its generation
    prompt; where chosen and rejected part at different places, the earlier place counts for both.
    """
    prompt_ids = _render_ids(tokenizer, list(prompt), add_generation_prompt=True)
    chosen_ids = _render_ids(tokenizer, [*prompt, *chosen])
    rejected_ids = _render_ids(tokenizer, [*prompt, *rejected])
    cut = min(_common_prefix(prompt_ids, chosen_ids), _common_prefix(prompt_ids, rejected_ids))
    return {"prompt_ids": prompt_ids[:cut], "chosen_ids": chosen_ids[cut:], "rejected_ids": rejected_ids[cut:]}


def _assistant_spans(tokenizer: Any, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
    """Character spans of the assistant's turns in the rendered conversation."""
    spans = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = tokenizer.apply_chat_template(list(messages[:index]), tokenize=False, add_generation_prompt=True)
        through = tokenizer.apply_chat_template(list(messages[: index + 1]), tokenize=False)
        if not (text.startswith(through) and through.startswith(before)):
            raise ConfigError(
                f"the chat template of {tokenizer.name_or_path!r} renders a conversation differently when it goes on "
                "(an earlier turn is not a prefix of the whole), so the assistant's tokens cannot be found; add "
                "{% generation %} marks to the template or train on all tokens"
            )
        end = len(through)
        stripped = through.rstrip()
        # "<|im_end|>\n": the newline belongs to the template, not to the answer. Without an end-of-turn token the
        # trailing white space is all there is to learn to stop on, so it stays.
        if len(stripped) > len(before) and stripped.endswith(tuple(tokenizer.all_special_tokens)):
            end = len(stripped)
        spans.append((len(before), end))
    return spans


def _render_ids(tokenizer: Any, messages: list[Message], *, add_generation_prompt: bool = False) -> list[int]:
    encoded = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, add_generation_prompt=add_generation_prompt
    )
    return list(encoded["input_ids"])


def _common_prefix(a: list[int], b: list[int]) -> int:
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))
