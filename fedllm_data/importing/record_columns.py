"""Which column of a record is what: names given with `--columns`, the targets' own names, and other common names.

A target is what a row is made of: instruction, response, messages, prompt, ... Its column is the one that `--columns`
names (`title+body` joins columns), else the one of its own name, else the one column of a name in `OTHER_NAMES` that
is there. Two such names are ambiguous and nothing is guessed.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from fedllm_data.upstream.nested_columns import nested_columns

__all__ = [
    "JOINT",
    "OTHER_NAMES",
    "RecordColumns",
    "Unusable",
    "WatchedFields",
    "ambiguity",
    "is_absent",
    "type_name",
]

JOINT = "\n\n"
"""Between texts that become one: joined columns, an instruction and its input, turns of one role."""

OTHER_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "messages": (("conversations", "conversation", "dialogue", "dialog", "chat", "text"),),
    "instruction": (("prompt", "question", "query"), ("input", "inputs")),
    "response": (("output", "completion", "answer", "targets"),),
    "system": (("system_prompt",),),
    "prompt": (("instruction", "question", "query"), ("conversations", "conversation", "messages"), ("input",)),
    "input": (("context",),),
    "tools": (),
}
"""What public files call a target, in steps: a name of a later step counts where none of an earlier one is there."""


_OF_NO_CONVERSATION = frozenset({"language", "row_id", "group"})
"""Targets that say nothing of what a conversation is made of."""


class Unusable(Exception):
    """A record that cannot become a row, with the reason."""


class WatchedFields(Mapping[str, Any]):
    """The fields of a record, which remember what was read, so that the rest can be named."""

    def __init__(self, fields: Mapping[str, Any], paths: Iterable[str] = ()) -> None:
        """Watch the fields of one record.

        Args:
            fields: the record.
            paths: names that may lead to a column within a column, such as `metadata.user`.
        """
        self._fields = fields
        nested = _nested_names(tuple(paths))
        self._nested = nested_columns(fields, nested) if nested else {}
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        """Return a value and remember that it was read, or that something within its column was."""
        if name in self._nested:
            column, value = self._nested[name]
            self.read.add(column)
            return value
        value = self._fields[name]
        self.read.add(name)
        return value

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return iter(self._fields)

    def __len__(self) -> int:
        """Return the number of fields."""
        return len(self._fields)

    def __contains__(self, name: object) -> bool:
        """Return whether there is such a field, or one within a field; asking is not reading."""
        return name in self._fields or name in self._nested

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value and remember that it was read; the default where there is none."""
        return self[name] if name in self else default

    def peek(self, name: str) -> Any:
        """Return a value, None if there is none, without counting it as read."""
        return self._nested[name][1] if name in self._nested else self._fields.get(name)


class RecordColumns:
    """The columns of one record, by target."""

    def __init__(
        self,
        fields: WatchedFields,
        names: Mapping[str, str],
        lookup: Callable[[Mapping[str, Any], str], Any],
        taken: Collection[str] = (),
    ) -> None:
        """Look at one record.

        Args:
            fields: the record.
            names: target to column, as given; an empty name leaves a target out.
            lookup: returns the value of a column, or raises `Unusable` if it is missing.
            taken: columns that are something else already, such as the client's.
        """
        self._fields = fields
        self._names = names
        self._lookup = lookup
        self._taken = _all_parts((*taken,), (*names.values(),))
        self.by_target: dict[str, str] = {}
        """The column that was read for a target."""

    def is_named(self, target: str) -> bool:
        """Return whether a column was given for a target."""
        return bool(self._names.get(target))

    def is_left_out(self, target: str) -> bool:
        """Return whether the target was given an empty name."""
        return self._names.get(target) == ""

    def own_value(self, target: str) -> Any:
        """Return the value of the column of the target's own name without reading it; None if there is none."""
        return None if self.is_left_out(target) else self._fields.peek(target)

    def is_alone(self, target: str, *, beside: Collection[str]) -> bool:
        """Return whether a target's own column is there, and no other makes a part of the conversation.

        Args:
            target: what is looked for; also the name of its column.
            beside: names of the columns that would add to it.
        """
        fields = self._fields
        if target not in fields or target in self._taken or not _OF_NO_CONVERSATION.issuperset(self._names):
            return False
        return not any(name in fields for name in beside)

    def own(self, target: str) -> Any:
        """Read the column of a target's own name, which is there."""
        self.by_target[target] = target
        return self._fields[target]

    def candidates(self, target: str, is_fit: Callable[[Any], bool] = lambda value: not is_absent(value)) -> list[str]:
        """Return the columns a target can be read from: one, or several that nobody has chosen between, or none.

        Args:
            target: what is looked for.
            is_fit: whether a value of a column with another name than the target's can be it.
        """
        if target in self._names:
            return [self._names[target]] if self._names[target] else []
        taken = self._taken | {column for other, column in self.by_target.items() if other != target}
        if target in self._fields and target not in taken and not is_absent(self._fields.peek(target)):
            return [target]
        for step in OTHER_NAMES.get(target, ()):
            found = [
                name for name in step if name in self._fields and name not in taken and is_fit(self._fields.peek(name))
            ]
            if found:
                return found
        # A null of the target's own name is told as such.
        return [target] if target in self._fields and target not in taken else []

    def column(self, target: str) -> str:
        """Return the column of a target that must be there.

        Raises:
            Unusable: if there is none, or there are several to choose between.
        """
        found = self.candidates(target)
        if len(found) > 1:
            raise Unusable(ambiguity(f"could be the {target}", found, [f"{target}={name}" for name in found]))
        if not found:
            raise Unusable(f"{self.missing(target)}; name it with --columns {target}=COLUMN")
        return found[0]

    def missing(self, target: str) -> str:
        """Return the words for a column that is not there."""
        present = ", ".join(repr(str(name)[:40]) for name in list(self._fields)[:12])
        return f"column {target!r} is missing; the columns are {present}"

    def value(self, target: str) -> Any:
        """Return the value of a target that must be there.

        Raises:
            Unusable: if its column is missing or ambiguous, or joined columns do not hold text.
        """
        column = self.column(target)
        self.by_target[target] = column
        return self._value(column)

    def optional(self, target: str) -> Any:
        """Return the value of a target that need not be there: None if it is not, or where it is blank.

        Raises:
            Unusable: if a column was named that is missing, or the choice is ambiguous.
        """
        if not self.candidates(target):
            return None
        value = self.value(target)
        return None if is_absent(value) else value

    def text(self, target: str) -> str | None:
        """Return the text of a target that need not be there.

        Raises:
            Unusable: see `optional`; also if the value is no text.
        """
        value = self.optional(target)
        if value is not None and not isinstance(value, str):
            raise Unusable(f"{self.label(target)}: must be text, got {type_name(value)}")
        return value

    def label(self, target: str) -> str:
        """Return what reasons call a target: with its column, where that has another name."""
        column = self.by_target.get(target, target)
        return target if column == target else f"{target} ({column})"

    def _value(self, column: str) -> Any:
        names = [part.strip() for part in column.split("+")]
        if column in self._fields or len(names) == 1 or "" in names:
            return self._lookup(self._fields, column)
        texts = []
        for name in names:
            value = self._lookup(self._fields, name)
            if not (is_absent(value) or isinstance(value, str)):
                raise Unusable(f"column {name[:60]!r}: must be text to be joined with others, got {type_name(value)}")
            texts += [] if is_absent(value) else [value]
        return JOINT.join(texts)


@lru_cache(maxsize=256)
def _nested_names(paths: tuple[str, ...]) -> tuple[str, ...]:
    """The names that can lead to a column within a column."""
    return tuple(part.strip() for path in paths for part in (path, *path.split("+")) if "." in part)


@lru_cache(maxsize=256)
def _all_parts(taken: tuple[str, ...], named: tuple[str, ...]) -> frozenset[str]:
    """The columns that are taken, those that are joined each for itself."""
    return frozenset({*taken, *(part.strip() for name in named for part in (name, *name.split("+")))})


def ambiguity(what: str, columns: list[str], settings: list[str]) -> str:
    """Return the reason for a record that can be read in more than one way.

    Args:
        what: what the columns could be.
        columns: their names.
        settings: what to write after `--columns`, for each way.

    >>> ambiguity("could be the response", ["output", "answer"], ["response=output", "response=answer"])
    "columns 'output' and 'answer' could be the response; choose with --columns response=output or response=answer"
    """
    names = " and ".join(repr(name) for name in columns)
    return f"columns {names} {what}; choose with --columns {' or '.join(settings)}"


def is_absent(value: object) -> bool:
    """Return whether a value stands for nothing: null, blank text, or the number that data frames write for a null.

    >>> [is_absent(value) for value in (None, " ", float("nan"), 0, [])]
    [True, True, True, False, False]
    """
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def type_name(value: object) -> str:
    """Return what reasons call the type of a value.

    >>> type_name(None), type_name([])
    ('null', 'list')
    """
    return "null" if value is None else type(value).__name__
