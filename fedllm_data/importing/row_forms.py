"""Which columns of a record make its row: the forms of instruction data and of preference data in public files.

`sft`: a conversation (`messages`, ShareGPT's `conversations`, a dialogue text), or an instruction and its response
(Alpaca's `instruction`, `input`, `output`; TRL's `prompt` and `completion`, plain or as messages; `question` and
`answer`). `preference`: `chosen` and `rejected` as texts, as one message each, or as whole conversations whose
beginning they share, beside a prompt or without. A form is recognised where it is the only one a record can have;
else the reason names the `--columns` that would choose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedllm_data.importing.conversation_turns import RowChanges, Turn, answered, joined, same_turns
from fedllm_data.importing.conversations import MessageReader, is_conversation
from fedllm_data.importing.dialogue_text import dialogue_turns, without_mark
from fedllm_data.importing.record_columns import JOINT, RecordColumns, Unusable, ambiguity, is_absent, type_name
from fedllm_data.importing.tool_text import tools_of, tools_text
from fedllm_data.schema import is_plain

__all__ = ["plain_messages", "preference_columns", "sft_columns"]

Messages = list[dict[str, str]]
_ADDED = ("system", "system_prompt", "tools")
"""Columns that say something beside the messages."""


def plain_messages(columns: RecordColumns, roles: Mapping[str, str]) -> Messages | None:
    """Return the messages of a record where they are a row's as they stand, which `sft_columns` would return.

    Most files of conversations hold no others. None says nothing: `sft_columns` then reads the record, or says what
    is wrong with it.

    Args:
        columns: the record's columns; the one that was read is stated in it.
        roles: what the names of roles mean that are not known by themselves.
    """
    if roles or not columns.is_alone("messages", beside=_ADDED):
        return None
    messages = columns.own_value("messages")
    return columns.own("messages") if is_plain(messages, "user", "assistant") else None


def sft_columns(columns: RecordColumns, reader: MessageReader, changes: RowChanges) -> dict[str, Messages]:
    """Return `messages` of a record.

    Args:
        columns: the record's columns.
        reader: reads conversations.
        changes: where to state what is changed.

    Raises:
        Unusable: if the record makes no row, with the reason.
    """
    if _is_conversation(columns):
        value = columns.value("messages")
        turns = reader.conversation("messages", value, is_certain=True) or []
    else:
        turns = _exchange(columns, reader)
    turns = _with_system(columns, reader.merged("messages", turns), changes)
    return {"messages": _messages(answered("messages", turns, changes))}


def preference_columns(columns: RecordColumns, reader: MessageReader, changes: RowChanges) -> dict[str, Any]:
    """Return `prompt`, `chosen` and `rejected` of a record, and the models' names; see `sft_columns`."""
    values = {side: columns.value(side) for side in ("chosen", "rejected")}
    # One text alone that looks like messages is an answer that shows some.
    are_conversations = all(is_conversation(value) for value in values.values())
    sides = {}
    for side, value in values.items():
        turns = reader.merged(side, _answer(columns.label(side), value, reader, are_conversations))
        sides[side] = answered(side, turns, changes)
    shared = sides["chosen"][:-1]
    if not same_turns(shared, sides["rejected"][:-1]):
        raise Unusable(
            "chosen and rejected: are conversations that differ before their last message; a pair is two answers to "
            "one prompt"
        )
    whole = joined(_prompt(columns, reader, is_needed=not shared), shared)
    if whole is None:
        raise Unusable(
            f"{columns.label('prompt')}: contradicts the messages that chosen and rejected begin with; leave one of "
            "them out (--columns prompt= takes theirs)"
        )
    return {
        "prompt": _messages(_with_system(columns, whole, changes)),
        "chosen": _messages(sides["chosen"][-1:]),
        "rejected": _messages(sides["rejected"][-1:]),
        "chosen_model": columns.text("chosen_model"),
        "rejected_model": columns.text("rejected_model"),
    }


def _is_conversation(columns: RecordColumns) -> bool:
    """Whether the row is a conversation, not an instruction and its response.

    Raises:
        Unusable: if it can be either, or neither.
    """
    if columns.is_named("messages"):
        return True
    if any(columns.is_named(target) for target in ("instruction", "response", "input")):
        return False
    own = columns.own_value("messages")
    is_pair = not any(is_absent(columns.own_value(target)) for target in ("instruction", "response"))
    if is_pair or not is_absent(own):
        return is_conversation(own) or not is_pair
    conversations = columns.candidates("messages", is_conversation)
    has_null = conversations == ["messages"]
    conversations = [] if has_null else conversations
    questions, answers = columns.candidates("instruction"), columns.candidates("response")
    if conversations and questions and answers:
        raise Unusable(
            ambiguity(
                "could be the row's conversation, or instruction and response",
                [*conversations, *questions, *answers],
                [f"messages={conversations[0]}", f"instruction={questions[0]},response={answers[0]}"],
            )
        )
    if not (conversations or questions or answers):
        if has_null:
            return True
        raise Unusable(
            f"{columns.missing('instruction')}; name them with --columns instruction=COLUMN,response=COLUMN or "
            "--columns messages=COLUMN"
        )
    return bool(conversations)


def _exchange(columns: RecordColumns, reader: MessageReader) -> list[Turn]:
    """An instruction, which chat logs often store as the whole conversation before the response, and the response."""
    instruction = columns.value("instruction")
    turns = _history(columns, reader, "instruction", instruction)
    if turns[-1].role != "user":
        raise Unusable(
            f"{columns.label('instruction')}: ends with {turns[-1].role}, so that the response answers nothing"
        )
    response, label = columns.value("response"), columns.label("response")
    # After a plain instruction a text that looks like messages is an answer that shows some.
    answer = _answer(label, response, reader, not isinstance(response, str) or is_conversation(instruction))
    if answer[0].role != "assistant":
        raise Unusable(f"{label}: must begin with an assistant message, begins with {answer[0].role}")
    return [*turns, *answer]


def _answer(label: str, value: object, reader: MessageReader, may_be_conversation: bool) -> list[Turn]:
    turns = reader.conversation(label, value) if may_be_conversation or isinstance(value, list) else None
    return turns or [Turn("assistant", _text(label, value))]


def _history(columns: RecordColumns, reader: MessageReader, target: str, value: object) -> list[Turn]:
    """The turns of an instruction or a prompt, with the input that belongs to its last one."""
    label = columns.label(target)
    turns = reader.conversation(label, value) if _asks(value) else None
    if turns is None:
        addition = _addition(columns)
        if is_absent(value) and addition:
            return [Turn("user", addition)]
        text = _text(label, value)
        return [Turn("user", text + JOINT + addition if addition else text)]
    if isinstance(value, str) and turns[-1] == Turn("assistant", ""):
        turns = turns[:-1]  # a dialogue text that ends with the mark of the answer that is asked for
    turns = reader.merged(label, turns)
    if not turns:
        raise Unusable(f"{label}: holds no message")
    addition = _addition(columns) if columns.is_named("input") else None
    if addition:
        turns[-1] = replace(turns[-1], content=turns[-1].content + JOINT + addition)
    return turns


def _addition(columns: RecordColumns) -> str | None:
    """The text that belongs to an instruction: Alpaca's `input`, or Dolly's `context` beside Dolly's other columns."""
    is_dolly = all(not is_absent(columns.own_value(target)) for target in ("instruction", "response"))
    return columns.text("input") if is_dolly or columns.candidates("input") != ["context"] else None


def _prompt(columns: RecordColumns, reader: MessageReader, *, is_needed: bool) -> list[Turn]:
    """The prompt that a record states; none where the answers hold it and no column `prompt` says more."""
    if not is_needed and not columns.is_named("prompt") and is_absent(columns.own_value("prompt")):
        return []
    if columns.is_left_out("prompt") and not is_needed:
        return []
    return _history(columns, reader, "prompt", columns.value("prompt"))


def _with_system(columns: RecordColumns, turns: Sequence[Turn], changes: RowChanges) -> list[Turn]:
    """Turns with the system message and the tools that other columns hold."""
    system = columns.text("system")
    own = turns[0].content if turns and turns[0].role == "system" else None
    rest = list(turns) if own is None else list(turns[1:])
    if system is not None:
        system = without_mark(system)
        if own is not None and own.strip() != system.strip():
            raise Unusable(
                f"{columns.label('system')}: differs from the system message that the conversation begins with; leave "
                "it out with --columns system="
            )
    text = own if own is not None else system
    tools = _tools(columns)
    if tools and "<tools>" not in (text or ""):
        columns.value("tools")
        changes.names.add("tools_as_text")
        text = f"{text}{JOINT}{tools}" if text else tools
    return rest if text is None else [Turn("system", text), *rest]


def _tools(columns: RecordColumns) -> str | None:
    """The tools that a column lists, as text; a column of this name that lists none is no such column."""
    value: Any = columns.optional("tools") if columns.is_named("tools") else columns.own_value("tools")
    if is_absent(value) or value == []:
        return None
    tools = tools_of(value)
    if tools is None and columns.is_named("tools"):
        raise Unusable(f"{columns.label('tools')}: must be a list of tools, each with a name, got {type_name(value)}")
    return tools_text(tools) if tools else None


def _asks(value: object) -> bool:
    """Whether a value can be a conversation up to an answer: a dialogue text that ends with one is an example."""
    turns = dialogue_turns(value) if isinstance(value, str) else None
    return turns is None or turns[-1][0].lower() != "assistant" or not turns[-1][1]


def _text(label: str, value: object) -> str:
    if value is None:
        raise Unusable(f"{label}: is null")
    if not isinstance(value, str):
        raise Unusable(f"{label}: must be text, got {type_name(value)}")
    if not value.strip():
        raise Unusable(f"{label}: is empty")
    return value


def _messages(turns: Sequence[Turn]) -> Messages:
    return [{"role": turn.role, "content": turn.content} for turn in turns]
