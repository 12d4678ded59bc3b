"""From a message list, in any of the forms that public files have, to turns of the roles of the schema.

A conversation is a list of messages (`{role, content}`, ShareGPT's `{from, value}`, OASST's `{role, text}`, Capybara's
`{input, output}`), one such message, the JSON text or Python literal of either, or a dialogue text
(`dialogue_text.py`). What changes on the way is stated in `RowChanges`:

- roles have many names and any case; `developer` is the system;
- the parts of a content that are text are joined by line breaks, other parts are refused;
- tool calls, results and tools become text (`tool_text.py`);
- consecutive turns of one role become one, joined by a blank line;
- an empty system message is left out, and so are last turns without an answer, where a row needs one.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from fedllm_data.importing.conversation_turns import RowChanges, Turn
from fedllm_data.importing.dialogue_text import dialogue_turns
from fedllm_data.importing.record_columns import JOINT, Unusable, type_name
from fedllm_data.importing.tool_text import call_text, calls_of, parsed, result_text

__all__ = ["ROLE_MEANINGS", "MessageReader", "is_conversation"]

ROLE_MEANINGS = ("user", "assistant", "system", "tool", "call")
"""What a role can mean: the three of the schema, the result of a tool, and a call that stands as a message."""

_ROLES = {
    "user": ("user", "human", "prompter"),
    "assistant": (
        "assistant",
        "gpt",
        "chatgpt",
        "gpt4",
        "gpt_4",
        "bing",
        "bard",
        "model",
        "bot",
        "chatbot",
        "ai",
        "claude",
    ),
    "system": ("system", "developer"),
    "tool": (
        "tool",
        "function",
        "observation",
        "function_response",
        "function_result",
        "tool_response",
        "tool_result",
        "ipython",
    ),
    "call": ("function_call", "tool_call", "tool_calls"),
}
_MEANING_OF = {name: meaning for meaning, names in _ROLES.items() for name in names}
_PLAIN_ROLES = ("user", "assistant", "system")
"""Roles that mean themselves, as long as `--roles` says nothing else."""
_ROLE_KEYS = ("role", "from")
_CALL_KEYS = ("function_call", "tool_calls")
_CONTENT_KEYS = ("content", "value", "text")
"""In order: `text` counts only where there is neither of the others."""
_TEXT_PARTS = ("text", "input_text", "output_text", None)
"""Types of parts that are text; a part that states no type is one by its `text`."""
_NESTED = re.compile(r"\s*[\[{]")
_MESSAGE_LIKE = re.compile(r"\s*(?:\[\s*)?\{")


class MessageReader:
    """Reads the conversations of one record."""

    def __init__(self, roles: Mapping[str, str], changes: RowChanges) -> None:
        """Prepare for one record.

        Args:
            roles: what the names of roles mean that are not known by themselves, each one of `ROLE_MEANINGS`.
            changes: where to state what is changed.
        """
        self._roles = roles
        self._changes = changes

    def conversation(self, name: str, value: object, *, is_certain: bool = False) -> list[Turn] | None:
        """Return the turns of a conversation, at least one; None if the value is ordinary text.

        Args:
            name: what reasons call the value.
            value: what the column holds.
            is_certain: the column must hold a conversation, so that a list of texts is one, too, whose turns
                alternate from the user on, and ordinary text is none.

        Raises:
            Unusable: if it is a conversation that no row can hold, or must be one and is none.
        """
        if isinstance(value, str):
            turns = dialogue_turns(value)
            if turns is not None:
                self._changes.names.add("dialogue_text")
                return [self._marked(name, index, *turn) for index, turn in enumerate(turns)]
            found = _parsed_messages(value, is_certain)
            if found is None:
                if is_certain:
                    raise Unusable(_no_conversation(name, value))
                return None
            value = found
        if isinstance(value, Mapping) and (is_certain or _is_message(value)):
            value = _rows_of(value)
        if not isinstance(value, list):
            if not is_certain:
                return None
            raise Unusable(f"{name}: must be a list of messages, got {type_name(value)}")
        if not value:
            raise Unusable(f"{name}: is an empty list")
        # `datasets` stores messages whose fields differ as JSON texts.
        value = [_parsed_messages(item, False) or item if isinstance(item, str) else item for item in value]
        plain = self._plain_turns(value)
        if plain is not None:
            return plain
        if is_certain and all(isinstance(text, str) for text in value):
            return [Turn(("user", "assistant")[index % 2], text) for index, text in enumerate(value)]
        return [turn for index, message in enumerate(value) for turn in self._turns(f"{name}[{index}]", message)]

    def meaning(self, place: str, role: object) -> str:
        """Return what the name of a role means, one of `ROLE_MEANINGS`.

        Raises:
            Unusable: if it is not known.
        """
        name = str(role).strip()
        known = self._roles.get(name) or self._roles.get(name.lower())
        known = known or _MEANING_OF.get(re.sub(r"[\s-]+", "_", name.lower()))
        if known is None:
            raise Unusable(
                f"{place}: role {name[:40]!r} is not known; say what it means with --roles {name[:40]}=user (or "
                "assistant, system, tool)"
            )
        return known

    def merged(self, name: str, turns: Iterable[Turn]) -> list[Turn]:
        """Return turns without blank ones, consecutive turns of one role as one.

        An empty system message is left out; any other empty turn is a fault.

        Raises:
            Unusable: if a turn is empty.
        """
        merged: list[Turn] = []
        for index, turn in enumerate(turns):
            if not turn.content.strip():
                if turn.role != "system":
                    raise Unusable(f"{name}[{index}]: content is empty")
                self._changes.names.add("empty_system")
            elif merged and merged[-1].role == turn.role:
                if not turn.is_tool:
                    self._changes.names.add("merged_turns")
                joint = "\n" if turn.is_tool else JOINT
                merged[-1] = replace(merged[-1], content=merged[-1].content + joint + turn.content)
            else:
                merged.append(turn)
        return merged

    def _plain_turns(self, messages: list[Any]) -> list[Turn] | None:
        """The turns of messages that are a role of the schema and a text, nothing else; None if one is not."""
        turns = []
        for message in messages:
            if type(message) is not dict or len(message) != 2:
                return None
            role, content = message.get("role"), message.get("content")
            if type(content) is not str or role not in _PLAIN_ROLES or role in self._roles:
                return None
            turns.append(Turn(role, content))
        return turns

    def _marked(self, name: str, index: int, mark: str, text: str) -> Turn:
        return self._turn(self.meaning(f"{name}[{index}]", "tool" if mark == "FUNCTION RESPONSE" else mark), text)

    def _turns(self, place: str, message: object) -> list[Turn]:
        if not isinstance(message, Mapping):
            raise Unusable(f"{place}: must be a message with role and content, got {type_name(message)}")
        roles = {key: message[key] for key in _ROLE_KEYS if message.get(key) is not None}
        if not roles and {"input", "output"} <= set(message):
            self._note_unused(message, {"input", "output"})
            return [
                Turn("user", self._content(f"{place}.input", message["input"])),
                Turn("assistant", self._content(f"{place}.output", message["output"])),
            ]
        meanings = {self.meaning(place, role) for role in roles.values()}
        content_keys = [key for key in _CONTENT_KEYS if message.get(key) is not None][:1]
        contents = {key: message[key] for key in ("content", "value") if message.get(key) is not None}
        if not meanings or not (content_keys or any(key in message for key in (*_CONTENT_KEYS, *_CALL_KEYS))):
            raise Unusable(f"{place}: must have role and content")
        if len(meanings) > 1 or any(content != message[content_keys[0]] for content in contents.values()):
            raise Unusable(f"{place}: says two things, {', '.join(map(str, (*roles, *contents)))}; leave one out")
        meaning = meanings.pop()
        call_keys = _CALL_KEYS if meaning in ("assistant", "call") else ()
        self._note_unused(message, {*roles, *contents, *content_keys, *call_keys})
        calls = [turn for key in call_keys if message.get(key) for turn in self._calls(f"{place}.{key}", message[key])]
        if not content_keys:
            if not calls:
                raise Unusable(f"{place}: content is null")
            return calls
        content = message[content_keys[0]]
        if meaning == "call":
            return [self._call_turn(place, content), *calls]
        if meaning == "tool" and _is_plain_json(content):
            return [self._turn("tool", result_text(content))]
        text = self._content(place, content)
        return [*([self._turn(meaning, text)] if text.strip() or not calls else []), *calls]

    def _turn(self, meaning: str, text: str) -> Turn:
        if meaning == "tool":
            self._changes.names.add("tools_as_text")
            return Turn("user", result_text(text), is_tool=True)
        if meaning == "call":
            self._changes.names.add("tools_as_text")
            return Turn("assistant", text, is_tool=True)
        return Turn(meaning, text)

    def _calls(self, place: str, value: object) -> list[Turn]:
        items = value if isinstance(value, list) else [value]
        for item in items:
            if isinstance(item, Mapping):
                self._note_unused(item, {"type", "function", "name", "arguments", "parameters"}, "tool_calls.")
        return [self._turn("call", call_text(call)) for call in calls_of(place, value)]

    def _call_turn(self, place: str, content: object) -> Turn:
        if isinstance(content, str) and "<tool_call>" in content:
            return self._turn("call", content)
        try:
            return self._turn("call", "\n".join(call_text(call) for call in calls_of(place, content)))
        except Unusable:
            if not isinstance(content, str):
                raise
            # A call in words of its own: what the model said is what is learnt.
            return self._turn("call", f"<tool_call>\n{content}\n</tool_call>")

    def _content(self, place: str, content: object) -> str:
        if isinstance(content, str):
            return content
        parts = [content] if isinstance(content, Mapping) else content
        if not isinstance(parts, list):
            raise Unusable(f"{place}: content must be text, got {type_name(content)}")
        texts = []
        for part in parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            kind = part.get("type") if isinstance(part, Mapping) else type_name(part)
            if not isinstance(part, Mapping) or kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
                raise Unusable(f"{place}: holds a part of type {str(kind)[:40]!r}, and rows hold text alone")
            self._note_unused(part, {"type", "text"}, "content.")
            texts.append(part["text"])
        if len(texts) > 1:
            self._changes.names.add("joined_parts")
        return "\n".join(texts)

    def _note_unused(self, message: Mapping[str, Any], used: set[str], prefix: str = "") -> None:
        # An empty list or text and a null say nothing; a 0 or false may (`weight: 0` keeps a turn out of the loss).
        self._changes.unused_keys.update(
            prefix + str(key) for key, value in message.items() if key not in used and value not in (None, "", [], {})
        )


def is_conversation(value: object) -> bool:
    """Return whether a value is a conversation by its form: messages, the text of messages, or a dialogue text.

    >>> is_conversation('[{"role": "user", "content": "Hi"}]'), is_conversation("Hi"), is_conversation([])
    (True, False, True)
    """
    if isinstance(value, str):
        return dialogue_turns(value) is not None or _parsed_messages(value, is_certain=False) is not None
    return isinstance(value, list) or _is_message(value)


def _parsed_messages(text: str, is_certain: bool) -> Any:
    """The messages that a text lists, None if it is ordinary text."""
    if not (_NESTED if is_certain else _MESSAGE_LIKE).match(text):
        return None
    try:
        value = parsed(text)
    except ValueError:
        return None
    items = [value] if isinstance(value, Mapping) else value
    is_list = isinstance(items, list) and bool(items) and all(_is_message(item) for item in items)
    return value if is_certain or is_list else None


def _rows_of(message: Mapping[str, Any]) -> list[Any]:
    """One message as a list, or the messages of a struct of lists, as `datasets` stores a sequence of structs."""
    lengths = {len(value) if isinstance(value, list) else -1 for value in message.values()}
    if len(lengths) != 1 or -1 in lengths:
        return [message]
    return [dict(zip(message, values, strict=True)) for values in zip(*message.values(), strict=True)]


def _is_message(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    has_content = any(key in value for key in (*_CONTENT_KEYS, *_CALL_KEYS))
    return has_content and any(isinstance(value.get(key), str | list) for key in _ROLE_KEYS)


def _is_plain_json(content: object) -> bool:
    """Whether the answer of a tool is data, not text and not the parts of a content."""
    if isinstance(content, list):
        return not all(isinstance(part, str) or (isinstance(part, Mapping) and "type" in part) for part in content)
    return not isinstance(content, str)


def _no_conversation(name: str, text: str) -> str:
    if _NESTED.match(text):
        return f"{name}: is neither JSON nor a Python literal"
    return (
        f"{name}: is neither JSON nor a Python literal of a message list, nor a text that marks its turns; name the "
        "columns of a question and its answer with --columns instruction=COLUMN,response=COLUMN"
    )
