"""Which chat template a conversation is read with where the assistant's tokens must be known.

The tokenizer's own, if it marks the assistant's tokens (`{% generation %}`), or if its turns can be found in what it
renders. Many well-known templates allow neither, because they write a turn otherwise once the conversation goes on;
for those TRL ships a training template that renders every turn alike and marks it
(`trl.chat_template_utils.get_training_chat_template`), and it is used for every row: the tokens and the mask are
those of `SFTConfig(assistant_only_loss=True)`. What a template is good for is tried on two short conversations, once a
tokenizer. TRL is imported only for a template that needs it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from fedllm_data.errors import ChatTemplateError
from fedllm_eval.policy.rendering import Message, own_template, render_ids, render_marked, render_text
from fedllm_eval.policy.turns import Span, assistant_spans, spans_by_prefix

__all__ = ["TrainingTemplate", "marked_tokens", "training_template", "trains_end_of_turn"]

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_ONE: list[Message] = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
_TWO: list[Message] = [*_ONE, {"role": "user", "content": "second"}, {"role": "assistant", "content": "last"}]


@dataclass(frozen=True)
class TrainingTemplate:
    """How a tokenizer's conversations are read."""

    template: str | None
    """TRL's, or None for the tokenizer's own."""
    marks: bool
    """Whether it marks the assistant's tokens itself."""


_FOUND: WeakKeyDictionary[Any, tuple[str, TrainingTemplate]] = WeakKeyDictionary()
"""Tokenizer -> its own template, and what was found for it."""


def training_template(tokenizer: Any) -> TrainingTemplate:
    """Return how conversations are read with a tokenizer; found at the first call for a chat template.

    Raises:
        ConfigError: if the tokenizer has no chat template.
    """
    own = own_template(tokenizer)
    known = _FOUND.get(tokenizer)
    if known is None or known[0] != own:
        known = (own, _find(tokenizer, own))
        _FOUND[tokenizer] = known
    return known[1]


def marked_tokens(
    tokenizer: Any, messages: Sequence[Message], reading: TrainingTemplate
) -> tuple[list[int], list[int]]:
    """Return token ids, and 1 for each token that the assistant wrote, else 0.

    Raises:
        ChatTemplateError: if the conversation cannot be rendered, or the assistant's tokens cannot be found in it.
    """
    if reading.marks:
        return render_marked(tokenizer, messages, template=reading.template)
    text = render_text(tokenizer, messages)
    return _mask(tokenizer, text, assistant_spans(tokenizer, messages, text))


def trains_end_of_turn(tokenizer: Any, *, marked: bool = True) -> bool:
    """Return whether a model that is trained under a tokenizer's template learns to end its turn.

    Args:
        tokenizer: with a chat template.
        marked: whether the loss is on the assistant's tokens alone; else all that its own template renders counts.

    Returns:
        True as well where the template cannot render a question with its answer, of which nothing can be said.
    """
    try:
        if marked:
            ids, mask = marked_tokens(tokenizer, _ONE, training_template(tokenizer))
        else:
            ids = render_ids(tokenizer, _ONE)
            mask = [1] * len(ids)
    except ChatTemplateError:
        return True
    return _ends_turn(tokenizer, ids, mask)


def _find(tokenizer: Any, own: str) -> TrainingTemplate:
    if _MARKS.search(own):
        return TrainingTemplate(template=None, marks=True)
    as_it_is = TrainingTemplate(template=None, marks=False)
    try:
        texts = [render_text(tokenizer, conversation) for conversation in (_ONE, _TWO)]
        silent = any(render_text(tokenizer, _with_other_words(index)) == texts[0] for index in range(len(_ONE)))
    except ChatTemplateError:
        return as_it_is  # its rows will say why
    if silent:
        raise ChatTemplateError(
            f"the chat template of {tokenizer.name_or_path!r} leaves out what a message says (a template of an image "
            "model may take lists of parts alone); use another template by chat_template_path",
            reason="the chat template leaves out what a message says",
        )
    spans = [spans_by_prefix(tokenizer, each, text) for each, text in zip((_ONE, _TWO), texts, strict=True)]
    found = None not in spans
    if found and _ends_turn(tokenizer, *_mask(tokenizer, texts[0], spans[0] or [])):
        return as_it_is
    template = _of_trl(tokenizer)
    if template is None:
        return as_it_is
    try:
        encoded = [render_marked(tokenizer, each, template=template) for each in (_ONE, _TWO)]
    except ChatTemplateError:
        return as_it_is
    useful = all(any(mask) for _, mask in encoded) and (not found or _ends_turn(tokenizer, *encoded[0]))
    return TrainingTemplate(template=template, marks=True) if useful else as_it_is


def _with_other_words(index: int) -> list[Message]:
    """The shorter conversation with something else said in one message."""
    return [{**each, "content": "other words"} if at == index else each for at, each in enumerate(_ONE)]


def _of_trl(tokenizer: Any) -> str | None:
    """TRL's training template for the tokenizer's own, None where it has none."""
    from trl.chat_template_utils import get_training_chat_template

    try:
        template = get_training_chat_template(tokenizer)
    except Exception:  # TRL tries the template on tool calls, and a template may raise anything
        return None
    return None if template is None else str(template)


def _mask(tokenizer: Any, text: str, spans: list[Span]) -> tuple[list[int], list[int]]:
    if not getattr(tokenizer, "is_fast", True):
        raise ChatTemplateError(
            f"tokenizer {tokenizer.name_or_path!r} does not tell which characters a token stands for, so the "
            "assistant's tokens cannot be found; use its fast version (tokenizer.json)",
            reason="the tokenizer is no fast one",
        )
    # Like apply_chat_template itself: the template writes the special tokens, the tokenizer must not add more.
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    mask = [
        int(any(begin >= span_begin and end <= span_end and end > begin for span_begin, span_end in spans))
        for begin, end in encoded["offset_mapping"]
    ]
    return list(encoded["input_ids"]), mask


def _ends_turn(tokenizer: Any, ids: list[int], mask: list[int]) -> bool:
    """Whether the last masked token that is not white space is one that can end a turn."""
    ends = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    for token in reversed([token for token, kept in zip(ids, mask, strict=True) if kept]):
        if token in ends:
            return True
        if tokenizer.decode([token]).strip():
            return False
    return False
