"""Make a client repo of anybody's files: CSV, TSV, JSON lines, JSON or Parquet with a client column.

Three shapes are taken as they are: `instruction` and `response` (with an optional `system`), `messages`, and `prompt`,
`chosen` and `rejected`; `columns` names the columns of others. Message lists may be JSON text or, as pandas writes
them into CSV files, the Python literal of a list; nothing is ever evaluated beyond literals.
"""

import ast
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from fedllm_data.build import BuildResult, build
from fedllm_data.client_ids import canonical_id, is_missing
from fedllm_data.errors import ConfigError
from fedllm_data.language_column import LanguageColumn, are_languages
from fedllm_data.pipeline.language import language_code
from fedllm_data.schema import UNDETERMINED, Task
from fedllm_data.source import Filters, Rejected, Source, SourceRow
from fedllm_data.upstream.records import Record, data_files, read_records

__all__ = ["TARGETS", "import_files", "row_of"]

TARGETS: dict[Task, tuple[str, ...]] = {
    "sft": ("instruction", "response", "system", "messages", "language", "row_id", "group"),
    "preference": (
        "prompt",
        "chosen",
        "rejected",
        "system",
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
_NUM_SAMPLED = 20_000
"""Records of each file that are looked at before the import: whether optional columns are there and what they hold."""
_SHARE_GPT_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


class _Unusable(Exception):
    """A record that cannot become a row, with the reason."""


def import_files(
    paths: Sequence[Path],
    out: Path,
    *,
    task: Task,
    client_column: str,
    columns: Mapping[str, str] | None = None,
    name: str | None = None,
    language: str | None = None,
    shared_items: bool | None = None,
    licence: str = "",
    attribution: str = "",
    gate: str = "",
    seed: int = 0,
    filters: Filters | None = None,
    unfiltered: bool = False,
    salt: bytes | None = None,
    scrub: bool = False,
    overwrite: bool = False,
    memory_limit: str = "256MB",
    progress: Callable[[str, int], None] = lambda step, count: None,
    finish: Callable[[Path, dict[str, Any]], None] | None = None,
) -> BuildResult:
    """Build a client repo from files.

    Args:
        paths: .csv, .tsv, .jsonl, .json or .parquet files; text may be gzipped.
        out: the folder to make.
        task: sft or preference.
        client_column: the column that tells whose row it is.
        columns: what the columns are called, where they are not called as in `TARGETS`: target to column; an empty
            name leaves a target out.
        name: name of the corpus; None takes the name of `out`.
        language: code or name of the language of all rows, where no column tells it. A column `language` that
            `columns` does not name is used if most of its distinct values are languages.
        shared_items: whether clients judge or answer the same items, so that equal rows of two clients are no
            duplicates; None: for preference rows, whose equality is that two people agree. Equal rows of one client
            are duplicates either way.
        licence: identifier as on the Hub (cc-by-4.0, ...); empty where unknown.
        attribution: whom to credit.
        gate: what readers on the Hub must agree to; a licence that forbids commercial use needs it.
        seed: decides the splits.
        filters: what to leave out; by default exact duplicates alone.
        unfiltered: keep every client and every valid row.
        salt: replace client ids by keyed hashes.
        scrub: replace e-mail addresses, phone numbers, IP addresses and keys in the texts by placeholders.
        overwrite: replace a folder made here that holds another dataset or a report alone.
        memory_limit: what DuckDB may hold before it spills to disk.
        progress: called with the step and a count of rows.
        finish: called with the complete folder and the facts before the folder is put in place.

    Raises:
        ConfigError: if `columns` names an unknown target or a column that no file has, the language is none, or the
            output cannot be written.
        SourceError: if a file cannot be read, or no rows are left.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     path = Path(place, "rows.csv")
    ...     _ = path.write_text("who,instruction,response" + chr(10) + "ann,Hi,Hello" + chr(10) + "ann,Bye,See you")
    ...     import_files([path], Path(place, "repo"), task="sft", client_column="who").num_rows
    {'train': 1, 'test': 1}
    """
    columns = dict(columns or {})
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

    if language is not None and language != UNDETERMINED and language_code(language) == UNDETERMINED:
        raise ConfigError(f"--language {language[:40]!r} is no language; write a code such as en, or its English name")
    notes: dict[str, Any] = {"client_column": client_column, "columns": dict(columns)}
    spoken = _language_column(paths, columns)
    if spoken.column is not None and not spoken.is_used:
        columns["language"] = ""

    def read(path: Path | None, seed: int, options: dict[str, str]) -> Iterator[SourceRow | Rejected]:
        for file in paths:
            for item in read_records(file):
                if isinstance(item, Record):
                    if columns.get("language") != "":
                        spoken.code(_perhaps(item.fields, columns, "language"))
                    yield _convert(item, task, client_column, columns, language)
                else:
                    yield item
        notes["language"] = spoken.facts()

    names = ", ".join(path.name for path in paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
    source = Source(
        name=name or Path(out).resolve().name,
        task=task,
        summary=f"Rows imported from {names}; a client is a value of the column {client_column!r}.",
        client=f"a value of the column {client_column!r}",
        licence=licence,
        licence_url="",
        attribution=attribution,
        gate=gate,
        upstream=names,
        revision="",
        citation="",
        read=read,
        options={},
        clients_share_items=task == "preference" if shared_items is None else shared_items,
        notes=notes,
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
        finish=finish,
    )


def row_of(
    fields: Mapping[str, Any],
    task: Task,
    client_column: str,
    columns: Mapping[str, str] | None = None,
    language: str | None = None,
) -> dict[str, Any] | str:
    """Return a raw record as a schema row, or the reason why it cannot be one.

    What the row then holds is judged by `schema.row_problem`. Where `columns` names a `group` and the record has one,
    it stands beside the columns of the schema.

    >>> row_of({"who": 7, "q": "Hi", "response": "Hello"}, "sft", "who", {"instruction": "q"})["client_id"]
    '7'
    >>> row_of({"who": 7, "response": "Hello"}, "sft", "who")
    "column 'instruction' is missing; the columns are 'who', 'response'"
    """
    columns = columns or {}
    try:
        row = {
            "client_id": canonical_id(_get(fields, client_column)),
            "language": _language(_perhaps(fields, columns, "language"), language),
        }
        for target, value in (
            ("row_id", _optional(fields, columns, "row_id")),
            ("group", _perhaps(fields, columns, "group")),
        ):
            if not is_missing(value):
                row[target] = canonical_id(value)
        return row | (_sft_columns(fields, columns) if task == "sft" else _preference_columns(fields, columns))
    except _Unusable as reason:
        return str(reason)


def _convert(
    record: Record, task: Task, client_column: str, columns: Mapping[str, str], language: str | None
) -> SourceRow | Rejected:
    row = row_of(record.fields, task, client_column, columns, language)
    if isinstance(row, str):
        return Rejected(record.file, record.line, row)
    return SourceRow(row, record.file, record.line, group=row.pop("group", None))


def _language_column(paths: Sequence[Path], columns: Mapping[str, str]) -> LanguageColumn:
    """Decide which column tells the language, from the first records of every file.

    Raises:
        ConfigError: if `columns` names a column for the language or the group that no record has.
    """
    sampled = [name for name in ("language", "group") if columns.get(name)]
    seen: dict[str, dict[str, None]] = {}
    for path in paths:
        for item in islice(read_records(path), _NUM_SAMPLED):
            if isinstance(item, Rejected):
                continue
            for name in {"language", *sampled}:
                with suppress(_Unusable):
                    value = _get(item.fields, columns.get(name, name))
                    seen.setdefault(name, {})[str(value)[:80]] = None
    for name in sampled:
        if name not in seen:
            raise ConfigError(f"--columns {name}={columns[name]}: no file has this column; correct it or leave it out")
    words = [word for word in seen.get("language", ()) if not is_missing(word)]
    is_asked = "language" in columns
    column = columns.get("language", "language") if "language" in seen else None
    is_used = column is not None and (is_asked or are_languages(words))
    return LanguageColumn(column or None, is_asked=is_asked, is_used=is_used, values=tuple(words[:10]))


def _sft_columns(fields: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    has_messages = columns.get("messages", "messages") in fields or "messages" in columns
    if has_messages and "instruction" not in columns and "response" not in columns:
        messages = _messages("messages", _get(fields, columns.get("messages", "messages")))
    else:
        # An instruction may be a whole conversation up to the response, as chat logs often store it.
        instruction = _get(fields, columns.get("instruction", "instruction"))
        messages = _conversation("instruction", instruction) or [
            {"role": "user", "content": _text(fields, columns, "instruction")}
        ]
        messages.append({"role": "assistant", "content": _text(fields, columns, "response")})
    return {"messages": _with_system(fields, columns, messages)}


def _preference_columns(fields: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    chosen, rejected = (_answer(name, _get(fields, columns.get(name, name))) for name in ("chosen", "rejected"))
    if len(chosen) > 1 or len(rejected) > 1:
        # Whole conversations: what they share before the last turn is the prompt.
        if chosen[:-1] != rejected[:-1]:
            raise _Unusable("chosen and rejected: are conversations that differ before their last message")
        prompt, chosen, rejected = chosen[:-1], chosen[-1:], rejected[-1:]
    else:
        value = _get(fields, columns.get("prompt", "prompt"))
        prompt = _conversation("prompt", value) or [{"role": "user", "content": _as_text("prompt", value)}]
    row: dict[str, Any] = {
        "prompt": _with_system(fields, columns, prompt),
        "chosen": chosen,
        "rejected": rejected,
    }
    for name in ("chosen_model", "rejected_model"):
        value = _optional(fields, columns, name)
        row[name] = None if value is None else _as_text(name, value)
    return row


def _answer(name: str, value: object) -> list[dict[str, Any]]:
    return _conversation(name, value) or [{"role": "assistant", "content": _as_text(name, value)}]


def _conversation(name: str, value: object) -> list[dict[str, Any]] | None:
    """A message list, given as such or as the text of one; None where the value is ordinary text."""
    if isinstance(value, list):
        return _messages(name, value)
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            return _messages(name, value)
        except _Unusable:
            return None
    return None


def _messages(name: str, value: object) -> list[dict[str, Any]]:
    if isinstance(value, str):
        value = _parsed(name, value)
    if not isinstance(value, list):
        raise _Unusable(f"{name}: must be a list of messages, got {_type_name(value)}")
    return [_message(name, index, message) for index, message in enumerate(value)]


def _parsed(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        raise _Unusable(f"{name}: is neither JSON nor a Python literal") from None


def _message(name: str, index: int, message: object) -> dict[str, Any]:
    """Role and content alone: what else a message carries (names, null tool calls) has no place in the schema."""
    if isinstance(message, Mapping) and {"role", "content"} <= set(message):
        return {"role": message["role"], "content": message["content"]}
    if isinstance(message, Mapping) and {"from", "value"} <= set(message):
        role = message["from"]
        return {"role": _SHARE_GPT_ROLES.get(str(role), role), "content": message["value"]}
    raise _Unusable(f"{name}[{index}]: must have role and content")


def _with_system(
    fields: Mapping[str, Any], columns: Mapping[str, str], messages: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    system = _optional(fields, columns, "system")
    if system is None or system == "" or (messages and messages[0]["role"] == "system"):
        return messages
    return [{"role": "system", "content": _as_text("system", system)}, *messages]


def _text(fields: Mapping[str, Any], columns: Mapping[str, str], target: str) -> str:
    column = columns.get(target, target)
    return _as_text(target if column == target else f"{target} ({column})", _get(fields, column))


def _as_text(name: str, value: object) -> str:
    if value is None:
        raise _Unusable(f"{name}: is null")
    if not isinstance(value, str):
        raise _Unusable(f"{name}: must be text, got {_type_name(value)}")
    if not value.strip():
        raise _Unusable(f"{name}: is empty")
    return value


def _get(fields: Mapping[str, Any], column: str) -> Any:
    if column not in fields:
        present = ", ".join(repr(str(name)[:40]) for name in list(fields)[:12])
        raise _Unusable(f"column {column[:60]!r} is missing; the columns are {present}")
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
    except _Unusable:
        return None


def _language(value: object, preset: str | None) -> str:
    """The code of a language by any of its names and tags; the preset where nothing is said."""
    return language_code(preset if is_missing(value) else value)


def _type_name(value: object) -> str:
    return "null" if value is None else type(value).__name__
