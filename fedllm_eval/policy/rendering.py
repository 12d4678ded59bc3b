"""One place where a chat template is run: conversation in, text or token ids out, and one error for all that can fail.

A template is a program that came with a model. It may refuse a role or an order of roles, hold a mistake, or write
today's date. What it raises becomes a `ChatTemplateError`, so that a caller can leave the row out and say why. A date
can be fixed (`fix_date`): what a run trains on must be the same when it is resumed and when it is scored.
Needs a transformers tokenizer, no torch.
"""

import json
import re
from ast import literal_eval
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from fedllm_data.errors import ChatTemplateError, ConfigError

__all__ = [
    "fix_date",
    "own_template",
    "render_batch_ids",
    "render_ids",
    "render_marked",
    "render_text",
    "roles_of",
    "writes_date",
]

Message = Mapping[str, Any]

_FORMAT = re.compile(r"""(["'])(?:(?!\1)[^\\\n])*%[a-zA-Z-](?:(?!\1)[^\\\n])*\1""")
"""A string of a template that may be a format of dates."""
_DATES: WeakKeyDictionary[Any, date] = WeakKeyDictionary()
"""Tokenizer -> the day that its template takes for today."""


def own_template(tokenizer: Any) -> str:
    """Return the tokenizer's chat template; if it has several, the one for plain conversations.

    Raises:
        ConfigError: if it has none.
    """
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if template is None:
        raise ConfigError(
            f"tokenizer {tokenizer.name_or_path!r} has no chat template; set tokenizer.chat_template or use an "
            "instruct model"
        )
    return str(template)


def writes_date(tokenizer: Any) -> bool:
    """Return whether the chat template asks what day it is."""
    return "strftime_now" in own_template(tokenizer)


def fix_date(tokenizer: Any, day: date) -> None:
    """From now on, give this day to a template that asks for the day."""
    _DATES[tokenizer] = day


def roles_of(messages: Sequence[Message]) -> str:
    """Return the roles of a conversation in one word.

    >>> roles_of([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    'user/assistant'
    """
    return "/".join(str(message.get("role")) for message in messages)


def render_text(
    tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool = False, template: str | None = None
) -> str:
    """Return a conversation as the model reads it.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
        messages: the conversation.
        add_generation_prompt: whether the text ends where the assistant is to speak.
        template: a chat template to use instead of the tokenizer's own.

    Raises:
        ChatTemplateError: if the template cannot render this conversation.
    """
    options = {"tokenize": False, "add_generation_prompt": add_generation_prompt}
    return str(_apply(tokenizer, messages, template, options))


def render_ids(
    tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool = False, template: str | None = None
) -> list[int]:
    """Return a conversation as token ids; arguments and errors are those of `render_text`."""
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": add_generation_prompt}
    return list(_apply(tokenizer, messages, template, options)["input_ids"])


def render_batch_ids(
    tokenizer: Any, conversations: Sequence[Sequence[Message]], *, add_generation_prompt: bool = False
) -> list[list[int]]:
    """Return what `render_ids` does for each conversation, in one call of the tokenizer.

    Raises:
        ChatTemplateError: if the template cannot render one of them; which one, only `render_ids` tells.
    """
    if not conversations:
        return []
    options = {"tokenize": True, "return_dict": True, "add_generation_prompt": add_generation_prompt}
    given = [[dict(message) for message in messages] for messages in conversations]
    found = _apply_to(tokenizer, given, conversations[0], None, options)["input_ids"]
    return [list(ids) for ids in found]


def render_marked(
    tokenizer: Any, messages: Sequence[Message], *, template: str | None = None
) -> tuple[list[int], list[int]]:
    """Return token ids, and 1 where the template's `{% generation %}` marks stand around a token, else 0.

    Raises:
        ChatTemplateError: if the template cannot render this conversation.
    """
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    encoded = _apply(tokenizer, messages, template, options)
    return list(encoded["input_ids"]), list(encoded["assistant_masks"])


def _apply(tokenizer: Any, messages: Sequence[Message], template: str | None, options: dict[str, Any]) -> Any:
    return _apply_to(tokenizer, [dict(message) for message in messages], messages, template, options)


def _apply_to(
    tokenizer: Any, given: Any, messages: Sequence[Message], template: str | None, options: dict[str, Any]
) -> Any:
    """What the template makes of a conversation or of several; `messages` are the ones that an error is about."""
    own = own_template(tokenizer)
    if (day := _DATES.get(tokenizer)) is not None and "strftime_now" in (template or own):
        template = _on_day(template or own, day)
    if template is not None:
        options["chat_template"] = template
    try:
        return tokenizer.apply_chat_template(given, **options)
    except Exception as error:  # whatever somebody else's program raises
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ChatTemplateError(
            f"the chat template of {tokenizer.name_or_path!r} cannot render a conversation of the roles "
            f"{roles_of(messages) or 'none'}: {reason}; leave such rows out, or use another template by "
            "chat_template_path",
            reason=reason,
        ) from error


@lru_cache(maxsize=16)
def _on_day(template: str, day: date) -> str:
    """The template with a clock that stands still: transformers lets a template's arguments hold no function."""
    noon = datetime.combine(day, time(12))
    formats = sorted({literal_eval(match.group()) for match in _FORMAT.finditer(template)})
    days = json.dumps({each: noon.strftime(each) for each in formats})
    unknown = "strftime_now is asked for a format that does not stand in the template"
    return (
        "{%- macro strftime_now(format) -%}"
        f"{{%- set days = {days} -%}}"
        f"{{%- if format not in days -%}}{{{{ raise_exception('{unknown}') }}}}{{%- endif -%}}"
        "{{- days[format] -}}{%- endmacro +%}"  # the plus keeps a line break that the template may begin with
    ) + template
