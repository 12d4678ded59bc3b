"""What is wrong with a client repo: the promises of `schema.py`, `repo.py` and `pipeline/split.py`, tried one by one.

Files are read row group by row group, from a folder or the Hub, and what is compared across rows lies on disk
(`pipeline/seen_rows.py`). Every problem is one sentence that names the place.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fedllm_data.cards.card_check import card_problems
from fedllm_data.errors import SchemaError
from fedllm_data.pipeline.client_table import CLIENTS_SCHEMA
from fedllm_data.pipeline.facts import prompt_of
from fedllm_data.pipeline.seen_rows import SeenRows, seen_rows
from fedllm_data.pipeline.write import MAX_GROUP_ROWS
from fedllm_data.repo import CLIENTS_FILE, ClientRepo, client_bounds, open_repo, split_of_file
from fedllm_data.schema import PUBLIC_CLIENT, SCHEMAS, SPLITS, Task, row_problem, task_of_columns

__all__ = ["check_repo"]

_MOST_PROBLEMS = 50


@dataclass
class _Seen:
    """What the files of a repo have shown so far."""

    rows: SeenRows
    task: Task | None = None
    problems: list[str] = field(default_factory=list)
    """The first of them."""
    num_problems: int = 0

    def add_problem(self, problem: str) -> None:
        self.num_problems += 1
        if self.num_problems <= _MOST_PROBLEMS:
            self.problems.append(problem)


def check_repo(repo_or_dir: str | Path, revision: str | None = None) -> list[str]:
    """Return what is wrong with a client repo: a sentence for each of its first fifty problems, none if it is sound.

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
    with seen_rows() as rows:
        seen = _Seen(rows)
        _check_files(repo, seen)
        for path, number, row_id in rows.repeated():
            seen.add_problem(f"{path}, row {number}: row_id {row_id!r} repeats within the split")
        _check_splits(seen)
        _check_clients(repo, seen)
        if seen.num_problems > _MOST_PROBLEMS:
            seen.problems.append(f"and {seen.num_problems - _MOST_PROBLEMS} problems more")
        return seen.problems


def _check_files(repo: ClientRepo, seen: _Seen) -> None:
    by_split: dict[str, list[str]] = defaultdict(list)
    for path in repo.files():
        split = split_of_file(path)
        if split is not None:
            by_split[split].append(path)
        elif path != CLIENTS_FILE:
            seen.add_problem(f"{path}: belongs to no split; name it data/<split>-00000-of-00001.parquet or remove it")
    if not by_split:
        raise SchemaError(
            f"{repo.name} is no client repo: it has no data/<split>-00000-of-0000N.parquet; "
            "make one with `fedllm-data build` or `fedllm-data import`"
        )
    _check_card(repo, seen)
    _check_record(repo, seen)
    if "train" not in by_split:
        seen.add_problem("data/: there is no train split")
    for split, paths in by_split.items():
        _check_numbering(split, paths, seen)
        previous = ""
        for path in paths:
            previous = _check_file(repo, path, split, previous, seen)


def _check_record(repo: ClientRepo, seen: _Seen) -> None:
    """A repo may lack build.json; one that cannot be read would take its licence and gate along unseen."""
    try:
        with repo.open("build.json") as file:
            is_record = isinstance(json.load(file), dict)
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        is_record = False
    if not is_record:
        seen.add_problem("build.json: is no JSON object, so nothing tells how the rows were made; build it again")


def _check_card(repo: ClientRepo, seen: _Seen) -> None:
    try:
        with repo.open("README.md") as file:
            card = file.read().decode("utf-8")
    except FileNotFoundError:
        seen.add_problem("README.md: is missing, and datasets.load_dataset cannot tell the configs without it")
        return
    except (OSError, UnicodeDecodeError) as error:
        seen.add_problem(f"README.md: cannot be read ({str(error)[:100]}); write the card again")
        return
    for problem in card_problems(card, repo.files()):
        seen.add_problem(f"README.md: {problem}")


def _check_numbering(split: str, paths: list[str], seen: _Seen) -> None:
    expected = [f"data/{split}-{index:05d}-of-{len(paths):05d}.parquet" for index in range(len(paths))]
    if paths != expected:
        seen.add_problem(f"data/{split}: has the files {', '.join(paths[:5])}, expected {', '.join(expected[:5])}")


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
        seen.add_problem(f"{path}: is no readable Parquet file ({str(error)[:100]})")
    except SchemaError as error:
        seen.add_problem(f"{path}: {error}")
    return previous


def _check_schema(path: str, schema: pa.Schema, seen: _Seen) -> bool:
    try:
        task = task_of_columns(schema.names, path)
    except SchemaError as error:
        seen.add_problem(str(error))
        return False
    if seen.task is not None and task != seen.task:
        seen.add_problem(f"{path}: holds {task} rows, other files {seen.task} rows")
        return False
    seen.task = task
    wanted = SCHEMAS[task]
    if schema.names != wanted.names:
        seen.add_problem(f"{path}: has the columns {', '.join(schema.names)}, expected {', '.join(wanted.names)}")
        return False
    wrong = [name for name in wanted.names if _plain(schema.field(name).type) != _plain(wanted.field(name).type)]
    for name in wrong:
        seen.add_problem(f"{path}: column {name} is {schema.field(name).type}, expected {wanted.field(name).type}")
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
        seen.add_problem(
            f"{path}: has a row group of {largest} rows, at most {MAX_GROUP_ROWS} let one client be read alone"
        )


def _check_rows(path: str, position: int, rows: list[dict[str, Any]], split: str, previous: str, seen: _Seen) -> str:
    assert seen.task is not None
    for number, row in enumerate(rows, start=position):
        problem = row_problem(row, seen.task)
        if problem is None and (not (row["row_id"] and row["language"]) or row["detected_language"] == ""):
            problem = "row_id, language and detected_language: must not be empty"
        if problem is None and (row["client_id"] == PUBLIC_CLIENT) != (split == "public"):
            problem = f"client_id: {PUBLIC_CLIENT!r} is for the public split alone, and no other id belongs there"
        if problem is not None:
            seen.add_problem(f"{path}, row {number}: {problem}")
            continue
        client_id = row["client_id"]
        if client_id < previous:
            seen.add_problem(f"{path}, row {number}: client {client_id!r} comes after {previous!r}; sort by client_id")
        previous = client_id
        prompt = blake2b(prompt_of(row, seen.task).encode(), digest_size=16).digest()
        seen.rows.add(split, path, number, row, prompt)
    return previous


def _check_splits(seen: _Seen) -> None:
    """Two splits share no row; `unseen` shares no client; `test` and `unseen` share no prompt with any other."""
    present = seen.rows.splits()
    for one, other in combinations([split for split in SPLITS if split in present], 2):
        num_rows, row_id, _ = seen.rows.shared("row_id", one, other)
        if num_rows:
            seen.add_problem(f"{one} and {other}: share {num_rows} rows, among them row_id {row_id!r}; build again")
        if "unseen" in (one, other):
            num_clients, client_id, _ = seen.rows.shared("client_id", one, other)
            if num_clients:
                seen.add_problem(
                    f"{one} and {other}: share {num_clients} clients, among them {client_id!r}; build again"
                )
        if {one, other} & {"test", "unseen"}:
            num_prompts, of_one, of_other = seen.rows.shared("prompt", one, other)
            if num_prompts:
                seen.add_problem(
                    f"{one} and {other}: share {num_prompts} prompts, among them that of the rows {of_one!r} in {one} "
                    f"and {of_other!r} in {other}; build again"
                )


def _check_clients(repo: ClientRepo, seen: _Seen) -> None:
    """Compare the clients config with the rows."""
    try:
        table = repo.client_table()
    except (SchemaError, pa.ArrowException, OSError) as error:
        seen.add_problem(f"{CLIENTS_FILE}: cannot be read ({str(error)[:200]})")
        return
    missing = [name for name in CLIENTS_SCHEMA.names if name not in table.column_names]
    if missing:
        seen.add_problem(f"{CLIENTS_FILE}: lacks the columns {', '.join(missing)}; build again")
        return
    wrong = [item.name for item in CLIENTS_SCHEMA if _plain(table.schema.field(item.name).type) != _plain(item.type)]
    for name in wrong:
        expected = CLIENTS_SCHEMA.field(name).type
        seen.add_problem(f"{CLIENTS_FILE}: column {name} is {table.schema.field(name).type}, expected {expected}")
    if wrong:
        return
    ids = table["client_id"].to_pylist()
    if None in ids or ids != sorted(set(ids)):
        seen.add_problem(f"{CLIENTS_FILE}: is not sorted by client_id, or names a client twice or none; build again")
        return
    for client_id, expected, stated in seen.rows.differing_clients(table):
        if expected is None or stated is None:
            place = "has no rows" if expected is None else f"is missing from {CLIENTS_FILE}"
            seen.add_problem(f"client {client_id!r}: {place}; build again")
            continue
        for name, value in expected.items():
            if stated[name] != value:
                seen.add_problem(
                    f"{CLIENTS_FILE}: {name} of client {client_id!r} is {stated[name]}, the rows say {value}; "
                    "build again"
                )
