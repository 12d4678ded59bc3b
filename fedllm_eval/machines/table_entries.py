"""The entries of a client table's file, CSV, Parquet, JSON or YAML, each with its place for the error.

JSON and YAML hold a list of entries with a `client_id` each, or a mapping from client id to entry; there, and in a
CSV's column, an entry may have `windows`, and a FedScale trace (`active`, `inactive`, `finish_time`) counts as such.
Nothing is interpreted here but ids, so that every value can be refused with its file, line and column.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedllm_data.client_ids import canonical_id, is_missing
from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_eval.machines.window_text import TRACE

__all__ = ["COLUMNS", "NUMBERS", "SUFFIXES", "Entry", "read_entries"]

NUMBERS = ("download_mbit", "upload_mbit", "latency_ms", "flops", "memory_gb", "watts", "drop_out")
COLUMNS = ("client_id", *NUMBERS, "profile", "windows", "attack")
SUFFIXES = (".csv", ".parquet", ".json", ".yaml", ".yml")
_NAMED = ", ".join(map(repr, COLUMNS))
"""For errors: quoted, since `drop_out` without quotes would be told as the flag of this name."""
_OF_TRACES = ("duration", "model")
"""What FedScale's traces hold besides."""


@dataclass(frozen=True)
class Entry:
    """One client's entry as it is written."""

    client_id: str
    values: Mapping[str, Any]
    """By column, without those that are empty."""
    where: str
    """File and line."""


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the entries of a file in its order.

    Args:
        path: a file whose name ends in one of `SUFFIXES`.

    Raises:
        ConfigError: if it cannot be read, holds nothing, an entry has no client id, or a column is not known.

    >>> list(read_entries(Path("no/such.csv")))
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: the client table no/such.csv cannot be read ...; name a file that is there
    """
    readers = {".csv": _csv, ".parquet": _parquet, ".json": _json, ".yaml": _yaml, ".yml": _yaml}
    if path.suffix.lower() not in readers:
        raise ConfigError(f"the client table {path} ends in none of {', '.join(SUFFIXES)}; rename or convert it")
    try:
        found = False
        for where, given in readers[path.suffix.lower()](path):
            found = True
            yield _entry(where, given)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"the client table {path} cannot be read ({error}); name a file that is there") from error
    if not found:
        raise ConfigError(f"the client table {path} has no entry; give one per client, or one for client_id *")


def _entry(where: str, given: Any) -> Entry:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where} is {given!r} and no entry with names; its names are {_NAMED}")
    values = {name: value for name, value in given.items() if not _is_empty(value)}
    if all(name in values for name in TRACE):
        if "windows" in values:
            raise ConfigError(f"{where} has windows and a trace; keep one")
        values["windows"] = {name: values.pop(name) for name in TRACE}
        for name in _OF_TRACES:
            values.pop(name, None)
    for name in given:
        if name not in COLUMNS and not (name in (*TRACE, *_OF_TRACES) and "windows" in values):
            hint = did_you_mean(str(name), COLUMNS).replace("did you mean ", "did you mean column ")
            raise ConfigError(f"{where} has a column {name!r} that is not used; {hint}choose from {_NAMED}")
    client_id = canonical_id(values.pop("client_id", None))
    if not isinstance(client_id, str) or is_missing(client_id):
        raise ConfigError(f"{where} has no client_id; give each entry one, or * for all that have no entry")
    return Entry(client_id, values, where)


def _is_empty(value: Any) -> bool:
    return not isinstance(value, (list, dict)) and is_missing(value)


def _csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            names = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = names
            if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
                raise ConfigError(
                    f"{path} parts its columns by {'semicolons' if ';' in names[0] else 'tabs'}; save it with commas, "
                    "and decimal points"
                )
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ConfigError(f"{path} has two columns {twice!r}; keep one")
            if "client_id" not in names:
                raise ConfigError(f"{path} has no column client_id; its columns are {_NAMED}")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row:
                    raise ConfigError(f"{where} has more values than there are columns; write 12.5, not 12,5")
                if None in row.values():
                    raise ConfigError(f"{where} has fewer values than there are columns; complete it")
                yield where, row
        except csv.Error as error:
            raise ConfigError(
                f"{path}, line {reader.line_num} cannot be read ({error}); save it as CSV again"
            ) from error


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        for batch in pq.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except pa.ArrowException as error:
        raise ConfigError(f"{path} is no Parquet file ({error}); save it again") from error


def _json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if (
            twice := next((name for name in names if names.count(name) > 1), None)
            if len(set(names)) < len(names)
            else None
        ):
            raise ConfigError(f"{path} names {twice!r} twice; keep one")
        return dict(pairs)

    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=once, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}, line {error.lineno} is no JSON ({error.msg}); correct it") from error
    except RecursionError as error:
        raise _too_deep(path) from error
    if isinstance(content, dict):
        for client_id, given in content.items():
            yield _of_mapping(f"{path}, client {client_id!r}", client_id, given)
        return
    if not isinstance(content, list):
        raise ConfigError(f"{path} holds neither a list of entries nor a mapping from client id to entry; give one")
    for number, given in enumerate(content, start=1):
        yield f"{path}, entry {number}", given


def _yaml(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every scalar stays text, so that 007 is no number; lines are those of the entries."""
    import yaml

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=loader)
        if root is not None:
            _check_finite(path, root, ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        why = " ".join(str(getattr(error, "problem", error)).split())
        raise ConfigError(f"{path}{line} is no YAML ({why}); correct it") from error
    except RecursionError as error:
        raise _too_deep(path) from error

    def plain(node: Any) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return node.value
        if isinstance(node, yaml.SequenceNode):
            return [plain(each) for each in node.value]
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = plain(key)
            if not isinstance(name, str) or name in found:
                raise ConfigError(f"{path}, line {key.start_mark.line + 1} names {name!r} twice; keep one")
            found[name] = plain(value)
        return found

    if isinstance(root, yaml.SequenceNode):
        for node in root.value:
            yield f"{path}, line {node.start_mark.line + 1}", plain(node)
    elif isinstance(root, yaml.MappingNode):
        names = set()
        for key, value in root.value:
            client_id, where = plain(key), f"{path}, line {key.start_mark.line + 1}"
            if not isinstance(client_id, str) or client_id in names:
                raise ConfigError(f"{where} names {client_id!r} twice; keep one")
            names.add(client_id)
            yield _of_mapping(where, client_id, plain(value))
    elif root is not None:
        raise ConfigError(f"{path} holds neither a list of entries nor a mapping from client id to entry; give one")


def _whole(digits: str) -> int | float:
    """A whole number of JSON; one of more digits than Python reads is infinite, and refused with its place."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def _check_finite(path: Path, node: Any, above: tuple[int, ...]) -> None:
    """Refuse a YAML node that is part of itself, which an alias can make it."""
    if id(node) in above:
        raise ConfigError(f"{path}, line {node.start_mark.line + 1} names an entry that is part of itself; correct it")
    if isinstance(node.value, str):
        return
    for each in node.value:
        for part in each if isinstance(each, tuple) else (each,):
            _check_finite(path, part, (*above, id(node)))


def _too_deep(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} holds lists within lists too deep to be read; give a list of entries, or a mapping from client id "
        "to entry"
    )


def _of_mapping(where: str, client_id: str, given: Any) -> tuple[str, dict[str, Any]]:
    if not isinstance(given, dict):
        return where, given
    if "client_id" in given:
        raise ConfigError(f"{where} has a client_id of its own besides the name it stands under; leave it out")
    return where, {"client_id": client_id, **given}
