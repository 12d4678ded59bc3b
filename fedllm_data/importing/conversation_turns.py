"""Turns of a conversation in the roles of the schema: which are answered, and one prompt of two statements of it.

Standard library only.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from fedllm_data.importing.record_columns import Unusable

__all__ = ["RowChanges", "Turn", "answered", "joined", "same_turns"]


@dataclass(frozen=True)
class Turn:
    """What one role says."""

    role: str
    content: str
    is_tool: bool = False
    """A call or a result: it follows what stands before it on the next line."""


@dataclass
class RowChanges:
    """What was changed on the way from a record to its row."""

    names: set[str] = field(default_factory=set)
    """Some of `merged_turns`, `unanswered_turns`, `tools_as_text`, `empty_system`, `joined_parts`, `dialogue_text`."""
    unused_keys: Counter[str] = field(default_factory=Counter)
    """Keys of messages that hold something and have no place in a row, with the number of messages."""


def answered(name: str, turns: Sequence[Turn], changes: RowChanges) -> list[Turn]:
    """Return turns up to the assistant's last one: what nobody answered teaches nothing.

    Raises:
        Unusable: if the assistant says nothing.

    >>> turns = [Turn("user", "Hi"), Turn("assistant", "Hello"), Turn("user", "Bye")]
    >>> [turn.content for turn in answered("messages", turns, RowChanges())]
    ['Hi', 'Hello']
    """
    num_answered = max((index for index, turn in enumerate(turns, start=1) if turn.role == "assistant"), default=0)
    if num_answered == 0:
        raise Unusable(f"{name}: holds no message of an assistant")
    if num_answered < len(turns):
        changes.names.add("unanswered_turns")
    return list(turns[:num_answered])


def joined(prompt: Sequence[Turn], shared: Sequence[Turn]) -> list[Turn] | None:
    """Return one prompt of two statements of it, None if they contradict each other.

    Args:
        prompt: what the prompt is said to be.
        shared: what the two answers have before them.

    Returns:
        The longer one where it holds the other, or both where the second goes on where the first ends or within it.
        Space around texts does not count.

    >>> system, user, other = Turn("system", "Be kind"), Turn("user", "Hi"), Turn("user", "Bye")
    >>> joined([system, user], [user]) == joined([user], [system, user]) == joined([system], [user]) == [system, user]
    True
    >>> joined([user], [other]) is None
    True
    """
    found = [
        list(shared)
        for start in range(len(shared) - len(prompt) + 1)
        if same_turns(shared[start : start + len(prompt)], prompt)
    ]
    found += [
        [*prompt, *shared[overlap:]]
        for overlap in range(min(len(prompt), len(shared)), 0, -1)
        if same_turns(prompt[-overlap:], shared[:overlap])
    ]
    if not shared or (prompt and prompt[-1].role != shared[0].role != "system"):
        found.append([*prompt, *shared])
    return next((turns for turns in found if _is_prompt(turns)), found[0] if found else None)


def _is_prompt(turns: Sequence[Turn]) -> bool:
    roles = [turn.role for turn in turns]
    roles = roles[1:] if roles[:1] == ["system"] else roles
    return roles == [("user", "assistant")[index % 2] for index in range(len(roles))] and roles[-1:] == ["user"]


def same_turns(one: Sequence[Turn], other: Sequence[Turn]) -> bool:
    """Return whether two sequences of turns say the same.

    >>> same_turns([Turn("user", "Hi")], [Turn("user", "Hi ")])
    True
    """
    return [(turn.role, turn.content.strip()) for turn in one] == [(turn.role, turn.content.strip()) for turn in other]
