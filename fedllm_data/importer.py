"""Make a client repo of anybody's files: CSV, TSV, JSON, Parquet, Arrow or Excel, with a client column.

The forms of public files are recognised (`importing/row_forms.py`); `columns` names the columns of others. Message
lists may be JSON text or, as pandas writes them into CSV files, the Python literal of a list; nothing is evaluated
beyond literals. Columns that are not used are named, and an import stops where one reason rejects many rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from fedllm_data.build import BuildResult, build
from fedllm_data.build_settings import BuildSettings
from fedllm_data.client_ids import SEPARATOR, canonical_id, is_missing
from fedllm_data.did_you_mean import alike
from fedllm_data.errors import ConfigError
from fedllm_data.import_settings import ImportSettings, part_settings
from fedllm_data.importing.conversation_turns import RowChanges
from fedllm_data.importing.conversations import MessageReader
from fedllm_data.importing.import_notes import ImportNotes, refuse_common_failure, refuse_if_unusable
from fedllm_data.importing.record_columns import RecordColumns, Unusable, WatchedFields
from fedllm_data.importing.row_forms import plain_messages, preference_columns, sft_columns
from fedllm_data.importing.tool_text import without_nulls
from fedllm_data.language_column import LanguageColumn, are_languages
from fedllm_data.licences import read_licence
from fedllm_data.pipeline.language_detection import language_code
from fedllm_data.pipeline.load import Loaded
from fedllm_data.rehearsal import is_rehearsed
from fedllm_data.schema import Task, client_id_problem, row_problem
from fedllm_data.source import Rejected, Source, SourceRow
from fedllm_data.upstream.compressed_files import bare_name
from fedllm_data.upstream.records import ReadSettings, Record, check_settings, data_files, read_records

__all__ = ["import_files", "row_of"]

_BY_MAPPING_ONLY = ("row_id", "group", "organisation")
"""Columns of these names are used only where `columns` says so: foreign ids are seldom unique, and a column `group`
may tell the arms of a study."""
_ARROW_SUFFIXES = (".parquet", ".arrow", ".feather")
_NUM_SAMPLED = 20_000
"""Records of each file that are looked at before the import: whether optional columns are there and what they hold."""


def import_files(
    paths: Sequence[Path],
    out: Path,
    settings: ImportSettings | None = None,
    *,
    build_settings: BuildSettings | None = None,
    progress: Callable[[str, int], None] = lambda step, count: None,
    finish: Callable[[Path, dict[str, Any]], None] | None = None,
    **single: Any,
) -> BuildResult:
    """Build a client repo from files.

    Args:
        paths: .csv, .tsv, .jsonl, .ndjson, .json, .parquet, .arrow, .feather or .xlsx files, also compressed (.gz,
            .bz2, .xz, .zst).
        out: the folder to make.
        settings: how the files are read; task and client column have no preset, so give them here or in `single`.
        build_settings: how the repo is built; None removes exact duplicates and nothing else.
        progress: called with the step and a count of rows.
        finish: called with the complete folder and the facts before the folder is put in place.
        single: fields of `ImportSettings` and `BuildSettings` by name, which replace those of the settings given.

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
    own, of_build = part_settings(single)
    settings = ImportSettings(**own) if settings is None else replace(settings, **own)
    task, client_column, columns = settings.task, settings.client_column, dict(settings.columns)
    for path in paths:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder, not a file; name the files in it")
        data_files(path)
    if not paths:
        raise ConfigError("there is no file to import; name at least one")
    check_settings(settings.reading, list(paths))

    notes = ImportNotes([client_column, *columns.values()])

    decided: dict[str, Any] = {"client_column": client_column, "columns": dict(columns)}
    spoken = _language_column(paths, columns, settings.reading)
    if spoken.column is not None and not spoken.is_used:
        columns["language"] = ""
    as_read = replace(settings, columns=columns)

    def read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
        for file in paths:
            for item in read_records(file, settings.reading):
                if isinstance(item, Record):
                    if columns.get("language") != "":
                        spoken.code(_perhaps(_watched(item.fields, columns), columns, "language"))
                    yield _convert(item, as_read, notes)
                else:
                    yield item
        decided["language"] = spoken.facts()

    def look_at(loaded: Loaded, num_valid: int) -> dict[str, Any]:
        refuse_common_failure(loaded, num_valid, settings.max_rejected_fraction)
        return {"import": notes.facts()}

    names = ", ".join(path.name for path in paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
    source = Source(
        name=settings.name or Path(out).resolve().name,
        task=task,
        summary=f"Rows imported from {names}; a client is a value of the column {client_column!r}.",
        client=f"a value of the column {client_column!r}",
        licence=read_licence(settings.licence).words,
        licence_url="",
        attribution=settings.attribution,
        gate=settings.gate,
        upstream=names,
        revision="",
        citation="",
        read=read,
        is_row_per_record=True,
        options={},
        clients_share_items=task == "preference" if settings.shared_items is None else settings.shared_items,
        notes=decided,
    )
    if is_rehearsed():
        refuse_if_unusable(source.name, islice(read(None, 0, {}), _NUM_SAMPLED))
    return build(
        source,
        out,
        build_settings,
        progress=progress,
        look_at=look_at,
        finish=finish,
        **of_build,
        source_files=tuple(paths),
    )


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
    it stands beside the columns of the schema; where it names an `organisation`, the client's
    id begins with it. `notes` counts what was not used and what was changed.

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
            "client_id": _client_id(fields, client_column, columns),
            "language": _language(_perhaps(fields, columns, "language"), language),
        }
        row_id = _optional(fields, columns, "row_id")
        if not is_missing(row_id):
            row["row_id"] = canonical_id(row_id)
        messages = plain_messages(record, roles or {}) if task == "sft" else None
        if messages is not None:
            row["messages"] = messages
            problem = client_id_problem(row["client_id"])
        else:
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


def _client_id(fields: Mapping[str, Any], client_column: str, columns: Mapping[str, str]) -> object:
    """The client's id, after its organisation's where `columns` names one: HOSPITAL:DOCTOR."""
    client_id = canonical_id(_get(fields, client_column, "; name one with --client-column"))
    if not columns.get("organisation") or is_missing(client_id):
        return client_id
    organisation = canonical_id(_get(fields, columns["organisation"]))
    if not isinstance(organisation, str) or is_missing(organisation):
        raise Unusable(f"column {columns['organisation'][:40]!r}: the row names no organisation")
    if SEPARATOR in organisation:
        raise Unusable(
            f"column {columns['organisation'][:40]!r}: the organisation's name contains {SEPARATOR!r}, which parts it "
            "from the client's id; replace it"
        )
    return f"{organisation}{SEPARATOR}{client_id}"


def _convert(record: Record, settings: ImportSettings, notes: ImportNotes) -> SourceRow | Rejected:
    # Only Arrow pads: in JSON a null was written by somebody.
    fields = record.fields
    if _repeats_header(fields):
        return Rejected(record.file, record.line, "holds the names of the columns, as files that were joined do")
    if bare_name(record.file).endswith(_ARROW_SUFFIXES):
        fields = {name: without_nulls(value) for name, value in fields.items()}
    row = row_of(
        fields,
        settings.task,
        settings.client_column,
        settings.columns,
        settings.language,
        settings.roles,
        notes,
    )
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
        ConfigError: if `columns` names a column for the language, the group or the organisation that no record has.
    """
    sampled = [name for name in ("language", "group", "organisation") if columns.get(name)]
    seen: dict[str, dict[str, None]] = {}
    names: tuple[str, ...] = ()
    for path in paths:
        for item in islice(read_records(path, reading), _NUM_SAMPLED):
            if isinstance(item, Rejected):
                continue
            names = names or tuple(map(str, item.fields))
            for name in {"language", *sampled}:
                with suppress(Unusable):
                    value = _get(_watched(item.fields, columns), columns.get(name, name))
                    seen.setdefault(name, {})[str(value)[:80]] = None
    for name in sampled:
        if name not in seen:
            missing = _missing(columns[name], names)
            raise ConfigError(
                f"--columns {name}={columns[name]}: no file has it: {missing}; correct it or leave it out"
            )
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
        raise Unusable(_missing(column, tuple(str(name) for name in fields)) + remedy)
    return fields[column]


@lru_cache(maxsize=256)
def _missing(column: str, names: tuple[str, ...]) -> str:
    """What to say of a column that is not there; the rows of a file mostly have the same columns."""
    present = ", ".join(repr(name[:40]) for name in names[:12])
    near = alike(column, names)
    hint = f"did you mean {near[0][:40]!r}? " if near else ""
    return f"column {column[:60]!r} is missing; {hint}the columns are {present}"


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
