"""What an import did to the records: columns and keys that were not used, rows that were changed; and when to stop.

Nothing is left out without a word: a column is either read in every row where it holds something, or named here with
the number of rows where it held something and was not read.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from fedllm_data.errors import ConfigError, SourceError
from fedllm_data.importing.conversations import RowChanges
from fedllm_data.importing.record_columns import RecordColumns, WatchedFields, is_absent
from fedllm_data.pipeline.load import Loaded

__all__ = ["CHANGES", "ImportNotes", "check_max_rejected_fraction", "import_lines", "refuse_common_failure"]

CHANGES = {
    "merged_turns": "consecutive turns of one role became one",
    "unanswered_turns": "last turns that nobody answered were left out",
    "tools_as_text": "tools, their calls and results were written as text",
    "empty_system": "an empty system message was left out",
    "joined_parts": "several parts of a message became one text",
    "dialogue_text": "a text with marked turns (Human: ... Assistant: ...) was read as a conversation",
}
"""What can be changed in a row, in words."""
_MOST_COLUMNS = 40


class ImportNotes:
    """Counts over all records of an import."""

    def __init__(self, paths: Sequence[str] = ()) -> None:
        """Count nothing yet.

        Args:
            paths: the columns that were asked for; `a.b` is the field b of the column a.
        """
        self._paths = [part.strip() for path in paths for part in (path, *path.split("+"))]
        self._unused: Counter[str] = Counter()
        self._columns: dict[str, Counter[str]] = defaultdict(Counter)
        self._changes: Counter[str] = Counter()
        self._unused_keys: Counter[str] = Counter()

    def add_record(self, fields: WatchedFields, columns: RecordColumns) -> None:
        """Count what was read of a record, whether or not it became a row."""
        for target, column in columns.by_target.items():
            self._columns[target][column] += 1
        for name in fields:
            value = fields.peek(name)
            if name not in fields.read:
                self._unused[str(name)] += not is_absent(value)
            elif isinstance(value, Mapping) and name not in self._paths:
                for key, item in value.items():
                    if not any(path == f"{name}.{key}" or path.startswith(f"{name}.{key}.") for path in self._paths):
                        self._unused[f"{name}.{key}"] += not is_absent(item)

    def add_row(self, changes: RowChanges) -> None:
        """Count what was changed in a record that became a row."""
        self._changes.update(changes.names)
        self._unused_keys.update(changes.unused_keys)

    def facts(self) -> dict[str, Any]:
        """Return what `build.json` says of the import; numbers are rows, those of keys are messages.

        A column that was read in some records and not in others is named only if a value was left.
        """
        read = {column for columns in self._columns.values() for column in columns}
        unused = {name: num for name, num in self._unused.items() if num or name not in read}
        return {
            "columns_by_target": {target: sorted(columns) for target, columns in sorted(self._columns.items())},
            "unused_columns": dict(sorted(unused.items(), key=lambda item: (-item[1], item[0]))),
            "unused_message_keys": dict(sorted(self._unused_keys.items())),
            "changed_rows": {name: self._changes[name] for name in CHANGES if self._changes[name]},
        }


def import_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return what the summary of an import says of columns and changed rows.

    Args:
        facts: what `ImportNotes.facts` returned.

    >>> import_lines({"columns_by_target": {"instruction": ["q"], "response": ["response"]}, "unused_columns":
    ...     {"topic": 3}, "unused_message_keys": {}, "changed_rows": {}})
    ['columns read: instruction=q, response', 'columns not used: topic (3 rows)']
    """
    lines = []
    if facts["columns_by_target"]:
        read = (
            target if columns == [target] else f"{target}={' or '.join(columns)}"
            for target, columns in facts["columns_by_target"].items()
        )
        lines.append(f"columns read: {', '.join(read)}")
    for words, unit, counts in (
        ("columns not used", "row", facts["unused_columns"]),
        ("keys of messages not used", "message", facts["unused_message_keys"]),
    ):
        named = [f"{name} ({_counted(count, unit)})" for name, count in list(counts.items())[:_MOST_COLUMNS]]
        more = f" and {len(counts) - _MOST_COLUMNS} more, in build.json" if len(counts) > _MOST_COLUMNS else ""
        if named:
            lines.append(f"{words}: {', '.join(named)}{more}")
    return [*lines, *(f"{_counted(count, 'row')}: {CHANGES[name]}" for name, count in facts["changed_rows"].items())]


def check_max_rejected_fraction(value: float) -> None:
    """Refuse what is no fraction.

    Raises:
        ConfigError: if the value is not in [0, 1].
    """
    if not 0 <= value <= 1:
        raise ConfigError(f"--max-rejected-fraction is {value}; it is a fraction from 0 to 1, and 1 never stops")


def refuse_common_failure(loaded: Loaded, num_valid: int, max_rejected_fraction: float) -> None:
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


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
