"""Make a client repo of anybody's files: CSV, TSV, JSON, Parquet, Arrow or Excel, with a client column.

The forms of public files are recognised (`importing/row_forms.py`); `columns` names the columns of others. Message
lists may be JSON text or, as pandas writes them into CSV files, the Python literal of a list; nothing is evaluated
beyond literals. Columns that are not used are named, and an import stops where one reason rejects many rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from fedllm_data.build import BuildResult, build
from fedllm_data.client_ids import canonical_id, is_missing
from fedllm_data.errors import ConfigError
from fedllm_data.importing.conversation_turns import RowChanges
from fedllm_data.importing.conversations import ROLE_MEANINGS, MessageReader
from fedllm_data.importing.import_notes import ImportNotes, check_max_rejected_fraction, refuse_common_failure
from fedllm_data.importing.record_columns import RecordColumns, Unusable, WatchedFields
from fedllm_data.importing.row_forms import preference_columns, sft_columns
from fedllm_data.importing.tool_text import without_nulls
from fedllm_data.language_column import LanguageColumn, are_languages
from fedllm_data.licences import read_licence
from fedllm_data.pipeline.language import language_code
from fedllm_data.pipeline.load import Loaded
from fedllm_data.schema import UNDETERMINED, Task, row_problem
from fedllm_data.source import Filters, Rejected, Source, SourceRow
from fedllm_data.upstream.compression import bare_name
from fedllm_data.upstream.records import AS_SEEN, ReadSettings, Record, check_settings, data_files, read_records

__all__ = ["TARGETS", "import_files", "row_of"]

TARGETS: dict[Task, tuple[str, ...]] = {
    "sft": ("instruction", "input", "response", "system", "messages", "tools", "language", "row_id", "group"),
    "preference": (
        "prompt",
        "input",
        "chosen",
        "rejected",
        "system",
        "tools",
        "chosen_model",
        "rejected_model",
        "language",
        "row_id",
        "group",
    ),
}
"""What `columns` can name for each task."""

_BY_MAPPING_ONLY = ("row_id", "group")
"""Columns of these names are used only where `columns` says so: foreign ids are seldom unique, and a column `group`
may tell the arms of a study."""
_ARROW_SUFFIXES = (".parquet", ".arrow", ".feather")
_NUM_SAMPLED = 20_000
"""Records of each file that are looked at before the import: whether optional columns are there and what they hold."""


def import_files(
    paths: Sequence[Path],
    out: Path,
    *,
    task: Task,
    client_column: str,
    columns: Mapping[str, str] | None = None,
    name: str | None = None,
    language: str | None = None,
    roles: Mapping[str, str] | None = None,
    max_rejected_fraction: float = 0.1,
    shared_items: bool | None = None,
    licence: str = "",
    attribution: str = "",
    gate: str = "",
    seed: int = 0,
    filters: Filters | None = None,
    unfiltered: bool = False,
    salt: bytes | None = None,
    scrub: bool = False,
    reading: ReadSettings = AS_SEEN,
    overwrite: bool = False,
    memory_limit: str = "256MB",
    progress: Callable[[str, int], None] = lambda step, count: None,
    finish: Callable[[Path, dict[str, Any]], None] | None = None,
) -> BuildResult:
    """Build a client repo from files.

    Args:
        paths: .csv, .tsv, .jsonl, .ndjson, .json, .parquet, .arrow, .feather or .xlsx files, also compressed (.gz,
            .bz2, .xz, .zst).
        out: the folder to make.
        task: sft or preference.
        client_column: the column that tells whose row it is; `metadata.user` is `user` in the column `metadata`.
        columns: what the columns are called, where they are not called as in `TARGETS`: target to column; `a+b` joins
            the texts of two columns by a blank line, and an empty name leaves a target out.
        name: name of the corpus; None takes the name of `out`.
        language: code or name of the language of all rows, where no column tells it. A column `language` that
            `columns` does not name is used if most of its distinct values are languages.
        roles: what the roles of messages mean, where the files have names of their own: name to user, assistant,
            system, tool or call.
        max_rejected_fraction: stop where one reason rejects more than this fraction of the rows; 1 never stops.
        shared_items: whether clients judge or answer the same items, so that equal rows of two clients are no
            duplicates; None: for preference rows, whose equality is that two people agree. Equal rows of one client
            are duplicates either way.
        licence: identifier as on the Hub (cc-by-4.0, ...), in any spelling, or the licence's name; empty where
            unknown.
        attribution: whom to credit.
        gate: what readers on the Hub must agree to; a licence that forbids commercial use needs it.
        seed: decides the splits.
        filters: what to leave out; by default exact duplicates alone.
        unfiltered: keep every client and every valid row.
        salt: replace client ids by keyed hashes.
        scrub: replace e-mail addresses, phone numbers, IP addresses and keys in the texts by placeholders.
        reading: delimiter, encoding and sheet, where the files do not show them.
        overwrite: replace a folder made here that holds another dataset or a report alone.
        memory_limit: what DuckDB may hold before it spills to disk.
        progress: called with the step and a count of rows.
        finish: called with the complete folder and the facts before the folder is put in place.

    Raises:
        ConfigError: if `columns` names an unknown target, two forms or a column that no file has, the language is
            none, a setting fits no file, or the output cannot be written.
        SourceError: if a file cannot be read, one reason rejects too many rows, or no rows are left.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     path = Path(place, "rows.csv")
    ...     _ = path.write_text("who,instruction,response" + chr(10) + "ann,Hi,Hello" + chr(10) + "ann,Bye,See you")
    ...     import_files([path], Path(place, "repo"), task="sft", client_column="who").num_rows
    {'train': 1, 'test': 1}
    """
    columns, roles = dict(columns or {}), dict(roles or {})
    _check_forms(columns, roles)
    check_max_rejected_fraction(max_rejected_fraction)
    unknown = sorted(set(columns) - set(TARGETS[task]))
    if unknown:
        raise ConfigError(
            f"--columns cannot name {unknown[0]!r} for {task} rows; it can name {', '.join(TARGETS[task])}"
        )
    for path in paths:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder, not a file; name the files in it")
        data_files(path)
    if not paths:
        raise ConfigError("there is no file to import; name at least one")
    check_settings(reading, list(paths))

    notes = ImportNotes([client_column, *columns.values()])

    if language is not None and language != UNDETERMINED and language_code(language) == UNDETERMINED:
        raise ConfigError(f"--language {language[:40]!r} is no language; write a code such as en, or its English name")
    decided: dict[str, Any] = {"client_column": client_column, "columns": dict(columns)}
    spoken = _language_column(paths, columns, reading)
    if spoken.column is not None and not spoken.is_used:
        columns["language"] = ""

    def read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
        for file in paths:
            for item in read_records(file, reading):
                if isinstance(item, Record):
                    if columns.get("language") != "":
                        spoken.code(_perhaps(_watched(item.fields, columns), columns, "language"))
                    yield _convert(item, task, client_column, columns, language, roles, notes)
                else:
                    yield item
        decided["language"] = spoken.facts()

    def look_at(loaded: Loaded, num_valid: int) -> dict[str, Any]:
        refuse_common_failure(loaded, num_valid, max_rejected_fraction)
        return {"import": notes.facts()}

    names = ", ".join(path.name for path in paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
    source = Source(
        name=name or Path(out).resolve().name,
        task=task,
        summary=f"Rows imported from {names}; a client is a value of the column {client_column!r}.",
        client=f"a value of the column {client_column!r}",
        licence=read_licence(licence).words,
        licence_url="",
        attribution=attribution,
        gate=gate,
        upstream=names,
        revision="",
        citation="",
        read=read,
        is_row_per_record=True,
        options={},
        clients_share_items=task == "preference" if shared_items is None else shared_items,
        notes=decided,
    )
    return build(
        source,
        out,
        source_files=paths,
        seed=seed,
        filters=filters,
        unfiltered=unfiltered,
        salt=salt,
        scrub=scrub,
        overwrite=overwrite,
        memory_limit=memory_limit,
        progress=progress,
        look_at=look_at,
        finish=finish,
    )


def _check_forms(columns: Mapping[str, str], roles: Mapping[str, str]) -> None:
    """Refuse two forms of a row at once, and roles that mean nothing."""
    for target in ("instruction", "response", "input"):
        if columns.get("messages") and columns.get(target):
            raise ConfigError(
                f"--columns names both messages and {target}; a row is a conversation or an instruction with its "
                "response: leave one out"
            )
    for name, meaning in roles.items():
        if meaning not in ROLE_MEANINGS:
            raise ConfigError(f"--roles {name[:40]}={meaning[:40]} means none of {', '.join(ROLE_MEANINGS)}")


def row_of(
    fields: Mapping[str, Any],
    task: Task,
    client_column: str,
    columns: Mapping[str, str] | None = None,
    language: str | None = None,
    roles: Mapping[str, str] | None = None,
    notes: ImportNotes | None = None,
) -> dict[str, Any] | str:
    """Return a raw record as a schema row, or the reason why it cannot be one.

    What the row then holds is judged by `schema.row_problem`. Where `columns` names a `group` and the record has one,
    it stands beside the columns of the schema. `notes` counts what was not used and what was changed.

    >>> row_of({"who": 7, "q": "Hi", "response": "Hello"}, "sft", "who", {"instruction": "q"})["client_id"]
    '7'
    >>> row_of({"who": 7, "response": "Hello"}, "sft", "who")
    "column 'instruction' is missing; the columns are 'who', 'response'; name it with --columns instruction=COLUMN"
    """
    columns = columns or {}
    fields, changes = WatchedFields(fields, (client_column, *columns.values())), RowChanges()
    record = RecordColumns(fields, columns, _get, taken=[client_column])
    try:
        row = {
            "client_id": canonical_id(_get(fields, client_column, "; name one with --client-column")),
            "language": _language(_perhaps(fields, columns, "language"), language),
        }
        row_id = _optional(fields, columns, "row_id")
        if not is_missing(row_id):
            row["row_id"] = canonical_id(row_id)
        form = sft_columns if task == "sft" else preference_columns
        row |= form(record, MessageReader(roles or {}, changes), changes)
        problem = row_problem(row, task)
        group = _perhaps(fields, columns, "group")
        if not is_missing(group):
            row["group"] = canonical_id(group)
    except Unusable as reason:
        row, problem = {}, str(reason)
    if notes is not None:
        notes.add(fields, record, None if problem else changes)
    return row or str(problem)


def _convert(
    record: Record,
    task: Task,
    client_column: str,
    columns: Mapping[str, str],
    language: str | None,
    roles: Mapping[str, str],
    notes: ImportNotes,
) -> SourceRow | Rejected:
    # Only Arrow pads: in JSON a null was written by somebody.
    fields = record.fields
    if _repeats_header(fields):
        return Rejected(record.file, record.line, "holds the names of the columns, as files that were joined do")
    if bare_name(record.file).endswith(_ARROW_SUFFIXES):
        fields = {name: without_nulls(value) for name, value in fields.items()}
    row = row_of(fields, task, client_column, columns, language, roles, notes)
    if isinstance(row, str):
        return Rejected(record.file, record.line, row)
    return SourceRow(row, record.file, record.line, group=row.pop("group", None))


def _repeats_header(fields: Mapping[str, Any]) -> bool:
    """Whether each value is its column's name; a byte order mark may stand before the first."""
    return len(fields) > 1 and all(
        isinstance(value, str) and canonical_id(value) == canonical_id(name) for name, value in fields.items()
    )


def _language_column(paths: Sequence[Path], columns: Mapping[str, str], reading: ReadSettings) -> LanguageColumn:
    """Decide which column tells the language, from the first records of every file.

    Raises:
        ConfigError: if `columns` names a column for the language or the group that no record has.
    """
    sampled = [name for name in ("language", "group") if columns.get(name)]
    seen: dict[str, dict[str, None]] = {}
    for path in paths:
        for item in islice(read_records(path, reading), _NUM_SAMPLED):
            if isinstance(item, Rejected):
                continue
            for name in {"language", *sampled}:
                with suppress(Unusable):
                    value = _get(_watched(item.fields, columns), columns.get(name, name))
                    seen.setdefault(name, {})[str(value)[:80]] = None
    for name in sampled:
        if name not in seen:
            raise ConfigError(f"--columns {name}={columns[name]}: no file has this column; correct it or leave it out")
    words = [word for word in seen.get("language", ()) if not is_missing(word)]
    is_asked = "language" in columns
    column = columns.get("language", "language") if "language" in seen else None
    is_used = column is not None and (is_asked or are_languages(words))
    return LanguageColumn(column or None, is_asked=is_asked, is_used=is_used, values=tuple(words[:10]))


def _watched(fields: Mapping[str, Any], columns: Mapping[str, str]) -> Mapping[str, Any]:
    """The record with the columns within its columns, where any are named."""
    return WatchedFields(fields, columns.values()) if any("." in name for name in columns.values()) else fields


def _get(fields: Mapping[str, Any], column: str, remedy: str = "") -> Any:
    if column not in fields:
        present = ", ".join(repr(str(name)[:40]) for name in list(fields)[:12])
        raise Unusable(f"column {column[:60]!r} is missing; the columns are {present}{remedy}")
    return fields[column]


def _optional(fields: Mapping[str, Any], columns: Mapping[str, str], target: str) -> Any:
    """An optional column: one that `columns` names must be there, one of the target's own name may be."""
    if target in columns:
        return _get(fields, columns[target]) if columns[target] else None
    return None if target in _BY_MAPPING_ONLY else fields.get(target)


def _perhaps(fields: Mapping[str, Any], columns: Mapping[str, str], target: str) -> Any:
    """A column that a record may lack, also where `columns` names it: JSON lines leave out what is null."""
    try:
        return _optional(fields, columns, target)
    except Unusable:
        return None


def _language(value: object, preset: str | None) -> str:
    """The code of a language by any of its names and tags; the preset where nothing is said."""
    return language_code(preset if is_missing(value) else value)
