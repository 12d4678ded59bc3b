"""What is wrong with a client repo: the promises of `schema.py`, `repo.py` and `split.py`, tried one by one.

Files are read row group by row group, from a folder or the Hub. Every problem is one sentence that names the place.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fedllm_data.client_table import CLIENTS_SCHEMA
from fedllm_data.clients import task_of_columns
from fedllm_data.errors import SchemaError
from fedllm_data.repo import CLIENTS_FILE, ClientRepo, FolderRepo, client_bounds, open_repo, split_of_file
from fedllm_data.schema import PUBLIC_CLIENT, SCHEMAS, Task, row_problem
from fedllm_data.write import MAX_GROUP_ROWS

__all__ = ["check_repo"]

_MOST_PROBLEMS = 50


@dataclass
class _Seen:
    """What the files of a repo have shown so far."""

    task: Task | None = None
    row_ids: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    num_rows: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """split -> client -> rows"""
    languages: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """client -> language -> rows, over all splits"""
    problems: list[str] = field(default_factory=list)


def check_repo(repo_or_dir: str | Path, revision: str | None = None) -> list[str]:
    """Return what is wrong with a client repo: one sentence a problem, the first fifty; nothing if it is sound.

    Args:
        repo_or_dir: a client repo: a folder, or `org/name` on the Hub.
        revision: branch, tag or commit on the Hub; a folder takes none.

    Raises:
        SchemaError: if this is no client repo at all.
        HubError: if there is neither a folder nor a Hub dataset of this name.

    >>> check_repo("no/such/folder")
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no folder no/such/folder here, and it cannot be a Hub id, which is org/name; check ...
    """
    repo = open_repo(repo_or_dir, revision)
    by_split: dict[str, list[str]] = defaultdict(list)
    seen = _Seen()
    for path in repo.files():
        split = split_of_file(path)
        if split is not None:
            by_split[split].append(path)
        elif path != CLIENTS_FILE:
            seen.problems.append(
                f"{path}: belongs to no split; name it data/<split>-00000-of-00001.parquet or remove it"
            )
    if not by_split:
        raise SchemaError(
            f"{repo.name} is no client repo: it has no data/<split>-00000-of-0000N.parquet; "
            "make one with `fedllm-data build` or `fedllm-data import`"
        )
    if isinstance(repo, FolderRepo) and not (repo.folder / "README.md").is_file():
        seen.problems.append("README.md: is missing, and datasets.load_dataset cannot tell the configs without it")
    if "train" not in by_split:
        seen.problems.append("data/: there is no train split")
    for split, paths in by_split.items():
        _check_numbering(split, paths, seen)
        previous = ""
        for path in paths:
            previous = _check_file(repo, path, split, previous, seen)
    _check_splits(seen)
    _check_clients(repo, seen)
    if len(seen.problems) > _MOST_PROBLEMS:
        seen.problems[_MOST_PROBLEMS:] = [f"and {len(seen.problems) - _MOST_PROBLEMS} problems more"]
    return seen.problems


def _check_numbering(split: str, paths: list[str], seen: _Seen) -> None:
    expected = [f"data/{split}-{index:05d}-of-{len(paths):05d}.parquet" for index in range(len(paths))]
    if paths != expected:
        seen.problems.append(f"data/{split}: has the files {', '.join(paths[:5])}, expected {', '.join(expected[:5])}")


def _check_file(repo: ClientRepo, path: str, split: str, previous: str, seen: _Seen) -> str:
    """Check one data file; return its last client id, which the next file must not precede."""
    try:
        with repo.open(path) as file:
            parquet = pq.ParquetFile(file)
            if not _check_schema(path, parquet.schema_arrow, seen):
                return previous
            _check_groups(path, parquet.metadata, seen)
            position = 0
            for index in range(parquet.num_row_groups):
                rows = parquet.read_row_group(index, use_threads=False).to_pylist()
                previous = _check_rows(path, position, rows, split, previous, seen)
                position += len(rows)
    except (pa.ArrowException, OSError) as error:
        seen.problems.append(f"{path}: is no readable Parquet file ({str(error)[:100]})")
    except SchemaError as error:
        seen.problems.append(f"{path}: {error}")
    return previous


def _check_schema(path: str, schema: pa.Schema, seen: _Seen) -> bool:
    try:
        task = task_of_columns(schema.names, path)
    except SchemaError as error:
        seen.problems.append(str(error))
        return False
    if seen.task is not None and task != seen.task:
        seen.problems.append(f"{path}: holds {task} rows, other files {seen.task} rows")
        return False
    seen.task = task
    wanted = SCHEMAS[task]
    if schema.names != wanted.names:
        seen.problems.append(f"{path}: has the columns {', '.join(schema.names)}, expected {', '.join(wanted.names)}")
        return False
    wrong = [name for name in wanted.names if _plain(schema.field(name).type) != _plain(wanted.field(name).type)]
    for name in wrong:
        seen.problems.append(f"{path}: column {name} is {schema.field(name).type}, expected {wanted.field(name).type}")
    return not wrong


def _plain(data_type: pa.DataType) -> str:
    """A type without what Parquet writers may differ in: large offsets, names of list items, nullability."""
    if pa.types.is_list(data_type) or pa.types.is_large_list(data_type):
        return f"list<{_plain(data_type.value_type)}>"
    if pa.types.is_struct(data_type):
        return f"struct<{', '.join(sorted(f'{item.name}: {_plain(item.type)}' for item in data_type))}>"
    return str(data_type).removeprefix("large_")


def _check_groups(path: str, metadata: Any, seen: _Seen) -> None:
    client_bounds(metadata)
    largest = max((metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)), default=0)
    if largest > MAX_GROUP_ROWS:
        seen.problems.append(
            f"{path}: has a row group of {largest} rows, at most {MAX_GROUP_ROWS} let one client be read alone"
        )


def _check_rows(path: str, position: int, rows: list[dict[str, Any]], split: str, previous: str, seen: _Seen) -> str:
    assert seen.task is not None
    for number, row in enumerate(rows, start=position):
        problem = row_problem(row, seen.task)
        if problem is None and not (row["row_id"] and row["language"]):
            problem = "row_id and language: must not be empty"
        if problem is None and (row["client_id"] == PUBLIC_CLIENT) != (split == "public"):
            problem = f"client_id: {PUBLIC_CLIENT!r} is for the public split alone, and no other id belongs there"
        if problem is not None:
            seen.problems.append(f"{path}, row {number}: {problem}")
            continue
        client_id, row_id = row["client_id"], row["row_id"]
        if client_id < previous:
            seen.problems.append(
                f"{path}, row {number}: client {client_id!r} comes after {previous!r}; sort by client_id"
            )
        previous = client_id
        if row_id in seen.row_ids[split]:
            seen.problems.append(f"{path}, row {number}: row_id {row_id!r} repeats within the split")
        seen.row_ids[split].add(row_id)
        seen.num_rows[split][client_id] += 1
        seen.languages[client_id][row["language"]] += 1
    return previous


def _check_splits(seen: _Seen) -> None:
    splits = list(seen.row_ids)
    for index, one in enumerate(splits):
        for other in splits[index + 1 :]:
            shared = seen.row_ids[one] & seen.row_ids[other]
            if shared:
                seen.problems.append(
                    f"{one} and {other}: share {len(shared)} rows, among them row_id {min(shared)!r}; build again"
                )
            if "unseen" in (one, other):
                clients = set(seen.num_rows[one]) & set(seen.num_rows[other])
                if clients:
                    seen.problems.append(
                        f"{one} and {other}: share {len(clients)} clients, among them {min(clients)!r}; build again"
                    )


def _check_clients(repo: ClientRepo, seen: _Seen) -> None:
    """Compare the clients config with the rows."""
    try:
        table = repo.client_table()
    except (SchemaError, pa.ArrowException, OSError) as error:
        seen.problems.append(f"{CLIENTS_FILE}: cannot be read ({str(error)[:200]})")
        return
    missing = [name for name in CLIENTS_SCHEMA.names if name not in table.column_names]
    if missing:
        seen.problems.append(f"{CLIENTS_FILE}: lacks the columns {', '.join(missing)}; build again")
        return
    stated = {row["client_id"]: row for row in table.to_pylist()}
    if list(stated) != sorted(stated) or len(stated) < table.num_rows:
        seen.problems.append(f"{CLIENTS_FILE}: is not sorted by client_id, or names a client twice; build again")
    counts = {split: seen.num_rows.get(split, Counter()) for split in ("train", "test", "unseen")}
    present = set().union(*counts.values())
    for client_id in sorted(present ^ set(stated)):
        place = "has no rows" if client_id in stated else f"is missing from {CLIENTS_FILE}"
        seen.problems.append(f"client {client_id!r}: {place}; build again")
    for client_id in sorted(present & set(stated)):
        expected: dict[str, Any] = {f"num_{split}_rows": counts[split][client_id] for split in counts}
        expected["num_rows"] = sum(expected.values())
        expected["split"] = "unseen" if expected["num_rows"] == expected["num_unseen_rows"] else "train"
        by_rows = sorted(seen.languages[client_id].items(), key=lambda item: (-item[1], item[0]))
        expected["languages"] = [{"language": language, "num_rows": num_rows} for language, num_rows in by_rows]
        expected["main_language"] = by_rows[0][0]
        for name, value in expected.items():
            if stated[client_id][name] != value:
                found = stated[client_id][name]
                seen.problems.append(
                    f"{CLIENTS_FILE}: {name} of client {client_id!r} is {found}, the rows say {value}; build again"
                )
