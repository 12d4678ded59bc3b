"""What an import did to the records: columns and keys that were not used, rows that were changed; and when to stop.

Nothing is left out without a word: a column is either read in every row where it holds something, or named here with
the number of rows where it held something and was not read.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fedllm_data.errors import ConfigError, SourceError
from fedllm_data.importing.conversation_turns import RowChanges
from fedllm_data.importing.record_columns import RecordColumns, WatchedFields, is_absent
from fedllm_data.source import Rejected, SourceRow

if TYPE_CHECKING:
    from fedllm_data.pipeline.load import Loaded

__all__ = [
    "CHANGES",
    "ImportNotes",
    "change_lines",
    "check_max_rejected_fraction",
    "import_lines",
    "refuse_common_failure",
    "refuse_if_unusable",
]

CHANGES = {
    "merged_turns": "consecutive turns of one role became one",
    "unanswered_turns": "last turns that nobody answered were left out",
    "tools_as_text": "tools, their calls and results were written as text",
    "empty_system": "an empty system message was left out",
    "joined_parts": "several parts of a message became one text",
    "dialogue_text": "a text with marked turns (Human: ... Assistant: ...) was read as a conversation",
}
"""What can be changed in a row, in words."""
_MOST_COLUMNS = 200


class ImportNotes:
    """Counts over all records of an import."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        """Count nothing yet.

        Args:
            paths: the columns that were asked for; `a.b` is the field b of the column a.
        """
        self._paths = [part.strip() for path in paths for part in path.split("+")]
        self._unused: Counter[str] = Counter()
        self._read: set[str] = set()
        self._columns: dict[str, set[str]] = defaultdict(set)
        self._changes: Counter[str] = Counter()
        self._unused_keys: Counter[str] = Counter()

    def add(self, fields: WatchedFields, columns: RecordColumns, changes: RowChanges | None) -> None:
        """Count one record.

        Args:
            fields: the record, and what was read of it.
            columns: what it was read for.
            changes: what was changed; None if the record became no row, and nothing of it was used.
        """
        for target, column in columns.by_target.items():
            self._columns[target].add(column)
        for name in fields:
            value = fields.peek(name)
            if name not in fields.read:
                self._unused[str(name)] += changes is not None and not is_absent(value)
                continue
            self._read.add(str(name))
            if isinstance(value, Mapping) and any(path.startswith(f"{name}.") for path in self._paths):
                for key, item in value.items():
                    place = f"{name}.{key}"
                    if not any(f"{path}.".startswith(f"{place}.") for path in self._paths):
                        self._unused[place] += changes is not None and not is_absent(item)
        if changes is not None:
            self._changes.update(changes.names)
            self._unused_keys.update(changes.unused_keys)

    def facts(self) -> dict[str, Any]:
        """Return what `build.json` says of the import; numbers are rows, those of keys are messages.

        A column is named as unused if it was never read, or if a row left something in it unread.
        """
        parts = {
            part.strip() for columns in self._columns.values() for column in columns for part in column.split("+")
        }
        unused = {name: num for name, num in self._unused.items() if num or name not in self._read}
        return {
            "columns_by_target": {target: sorted(columns) for target, columns in sorted(self._columns.items())},
            "other_columns_read": sorted(self._read - parts),
            "unused_columns": dict(sorted(unused.items(), key=lambda item: (-item[1], item[0]))),
            "unused_message_keys": dict(sorted(self._unused_keys.items())),
            "changed_rows": {name: self._changes[name] for name in CHANGES if self._changes[name]},
        }


def import_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return what the summary of an import says of columns and changed rows.

    Args:
        facts: what `ImportNotes.facts` returned.

    >>> import_lines({"columns_by_target": {"instruction": ["q"], "response": ["response"]}, "other_columns_read":
    ...     ["who"], "unused_columns": {"topic": 3}, "unused_message_keys": {}, "changed_rows": {}})
    ['columns read: instruction=q, response, who', 'columns not used: topic (3 rows)']
    """
    read = [
        target if columns == [target] else f"{target}={' or '.join(columns)}"
        for target, columns in facts["columns_by_target"].items()
    ]
    lines = [f"columns read: {', '.join([*read, *facts['other_columns_read']])}"]
    for words, unit, counts in (
        ("columns not used", "row", facts["unused_columns"]),
        ("keys of messages not used", "message", facts["unused_message_keys"]),
    ):
        named = [f"{name} ({_counted(count, unit)})" for name, count in list(counts.items())[:_MOST_COLUMNS]]
        more = f" and {len(counts) - _MOST_COLUMNS} more, in build.json" if len(counts) > _MOST_COLUMNS else ""
        if named:
            lines.append(f"{words}: {', '.join(named)}{more}")
    return [*lines, *change_lines(facts)]


def change_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return what was changed in rows, one sentence each, with the number of rows.

    >>> change_lines({"changed_rows": {"merged_turns": 2}})
    ['2 rows: consecutive turns of one role became one']
    """
    return [f"{_counted(count, 'row')}: {CHANGES[name]}" for name, count in facts["changed_rows"].items()]


def check_max_rejected_fraction(value: float) -> None:
    """Refuse what is no fraction.

    Raises:
        ConfigError: if the value is not in [0, 1].
    """
    if not 0 <= value <= 1:
        raise ConfigError(f"--max-rejected-fraction is {value}; it is a fraction from 0 to 1, and 1 never stops")


def refuse_common_failure(loaded: "Loaded", num_valid: int, max_rejected_fraction: float) -> None:
    """Stop if one reason alone rejects more than a fraction of the rows: then the reading is wrong, not the rows.

    Args:
        loaded: what was met while the rows were read.
        num_valid: rows that can be used.
        max_rejected_fraction: the largest fraction of all rows that may fail for one reason.

    Raises:
        SourceError: names the reason at its first place, the count, and how to go on.
    """
    num_rows = num_valid + loaded.reasons.total()
    kind, num_failed = max(loaded.reasons.items(), key=lambda item: item[1], default=("", 0))
    if num_failed > max_rejected_fraction * num_rows:
        first = loaded.first[kind]
        raise SourceError(
            f"{num_failed:,} of {num_rows:,} rows ({num_failed / num_rows:.0%}) cannot be used for one reason, first "
            f"at {first.file}:{first.line}: {first.reason}; correct that, or go on without them by "
            "--max-rejected-fraction 1"
        )


def refuse_if_unusable(name: str, items: Iterable[SourceRow | Rejected]) -> None:
    """Stop a dry run if none of the first rows can be used, as when a column is misspelt.

    Args:
        name: of the dataset.
        items: the first rows that the import would read.

    Raises:
        SourceError: names the first row and why it cannot be used, as the import itself does.

    >>> refuse_if_unusable("tickets", [Rejected("rows.csv", 2, "column 'who' is missing")])
    Traceback (most recent call last):
    fedllm_data.errors.SourceError: tickets: of 1 rows read, 1 were rejected (the first at rows.csv:2: column 'who' ...
    """
    num_rejected, first = 0, ""
    for item in items:
        if isinstance(item, SourceRow):
            return
        first = first or f" (the first at {item.file}:{item.line}: {item.reason})"
        num_rejected += 1
    raise SourceError(
        f"{name}: of {num_rejected} rows read, {num_rejected} were rejected{first} and none could be used; look at "
        "the source, its format and its options"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}" if number else "empty in all rows that were used"
