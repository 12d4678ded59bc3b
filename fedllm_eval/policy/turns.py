"""Where the assistant's turns stand in a rendered conversation, for chat templates that do not mark them.

A turn runs from the end of its generation prompt to its end-of-turn token. As long as every shorter rendering is a
prefix of the longer ones, both ends are read off the renderings. Some templates write a turn otherwise once the
conversation goes on (they drop reasoning, or end the last turn with another token). There the words themselves are
found: the conversation is rendered once more with other words in this turn alone, and what differs is the turn. It
counts only if it is what the message says.
"""

from collections.abc import Sequence
from typing import Any

from fedllm_data.errors import ChatTemplateError
from fedllm_eval.policy.rendering import Message, render_text

__all__ = ["Span", "assistant_spans", "spans_by_prefix"]

Span = tuple[int, int]
"""First character and the one after the last."""

_OTHER_WORDS = "\ue000\ue001"
"""Of Unicode's private use: no text begins or ends with it, and no template trims it."""


def spans_by_prefix(tokenizer: Any, messages: Sequence[Message], text: str) -> list[Span] | None:
    """Return the spans where shorter renderings are prefixes of the longer ones, else None."""
    spans = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            span = _by_prefix(tokenizer, messages, index, text)
            if span is None:
                return None
            spans.append(span)
    return spans


def assistant_spans(tokenizer: Any, messages: Sequence[Message], text: str) -> list[Span]:
    """Return the characters of each turn of the assistant, its end of turn included.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        messages: the conversation.
        text: the conversation as the template renders it.

    Raises:
        ChatTemplateError: if a turn cannot be found.
    """
    spans: list[Span] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        span = _by_prefix(tokenizer, messages, index, text) or _by_difference(tokenizer, messages, index, text)
        if span is None or (spans and span[0] < spans[-1][1]):
            raise ChatTemplateError(
                f"the chat template of {tokenizer.name_or_path!r} renders what the assistant says in message {index} "
                "otherwise than it stands there, so its tokens cannot be found; add {% generation %} marks to the "
                'template, or train on all tokens with loss_on="all"',
                reason="the assistant's tokens cannot be found",
            )
        spans.append(span)
    return spans


def _by_prefix(tokenizer: Any, messages: Sequence[Message], index: int, text: str) -> Span | None:
    before = _try_render(tokenizer, messages[:index], add_generation_prompt=True)
    through = _try_render(tokenizer, messages[: index + 1])
    if before is None or through is None or not (text.startswith(through) and through.startswith(before)):
        return None
    end = len(through)
    stripped = through.rstrip()
    # "<|im_end|>\n": the newline belongs to the template, not to the answer. Without an end-of-turn token the
    # trailing white space is all there is to learn to stop on, so it stays.
    if len(stripped) > len(before) and stripped.endswith(tuple(tokenizer.all_special_tokens)):
        end = len(stripped)
    return len(before), end


def _by_difference(tokenizer: Any, messages: Sequence[Message], index: int, text: str) -> Span | None:
    said = messages[index].get("content")
    changed = [dict(message) for message in messages]
    changed[index]["content"] = _OTHER_WORDS
    other = _try_render(tokenizer, changed)
    if not isinstance(said, str) or other is None:
        return None
    begin = _common_prefix(text, other)
    behind = _common_prefix(text[begin:][::-1], other[begin:][::-1])
    end = len(text) - behind
    shown = text[begin:end].strip()
    # A template may trim an answer, or drop the reasoning that stands before it.
    if not said.strip().endswith(shown) or (said.strip() and not shown):
        return None
    before = _try_render(tokenizer, messages[:index], add_generation_prompt=True)
    if before is not None and len(before) <= begin and text.startswith(before):
        begin = len(before)
    elif before is not None:
        begin = _after_prompt(text, before, begin)
    return begin, end + _end_of_turn(tokenizer, messages[: index + 1], shown, text[end:])


def _after_prompt(text: str, before: str, begin: int) -> int:
    """Where a turn begins whose words begin at `begin`: right after what ends like its generation prompt.

    White space between the two belongs to the turn: a tokenizer may join it to the first word.
    """
    words, ends = text[:begin], {}
    for at in range(len(words.rstrip()), begin + 1):
        ends[at] = _common_prefix(text[:at][::-1], before[::-1])
    return max(reversed(ends), key=ends.__getitem__)


def _end_of_turn(tokenizer: Any, messages: Sequence[Message], shown: str, tail: str) -> int:
    """How many characters of what follows the words of a turn belong to it."""
    space = len(tail) - len(tail.lstrip())
    for token in sorted(tokenizer.all_special_tokens, key=len, reverse=True):
        if tail.startswith(token, space):
            return space + len(token)
    # Without a token that ends turns, what follows wherever this turn is the last is all there is to learn from.
    alone = _try_render(tokenizer, messages) or ""
    return _common_prefix(tail, alone.rpartition(shown)[2]) if shown in alone else space


def _try_render(tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str | None:
    """The text, or None where this part of a conversation cannot stand alone."""
    try:
        return render_text(tokenizer, messages, add_generation_prompt=add_generation_prompt)
    except ChatTemplateError:
        return None


def _common_prefix(a: str, b: str) -> int:
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))
