"""A client repo as the parent of another one of the same rows: its facts, its files by split, and its rows in SQL."""

import json
from collections.abc import Mapping
from typing import Any, cast

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fedllm_data.build import BUILD_FILE
from fedllm_data.errors import SchemaError
from fedllm_data.repo import FolderRepo, split_of_file
from fedllm_data.schema import SCHEMAS, SPLITS
from fedllm_data.source import Source

__all__ = ["count_rows", "paths_by_split", "read_facts", "rows_relation", "source_of_facts"]


def read_facts(parent: FolderRepo) -> dict[str, Any]:
    """Return the content of a parent's build.json.

    Raises:
        SchemaError: if it is missing, broken, or lacks what a repo of the same rows needs.

    >>> from pathlib import Path
    >>> read_facts(FolderRepo("none", Path("no-such-folder")))
    Traceback (most recent call last):
    fedllm_data.errors.SchemaError: no-such-folder/build.json is missing or broken ...
    """
    path = parent.folder / BUILD_FILE
    try:
        facts = json.loads(path.read_bytes())
        if facts["task"] not in SCHEMAS:
            raise ValueError(f"task {facts['task']!r}")
        source_of_facts(facts)
        for counts in facts["splits"].values():
            if not all(isinstance(counts[name], int) for name in ("num_rows", "num_text_bytes")):
                raise ValueError("splits without counts")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SchemaError(
            f"{path} is missing or broken ({error}); partition a folder of `fedllm-data build`"
        ) from error
    return cast(dict[str, Any], facts)


def paths_by_split(parent: FolderRepo, facts: dict[str, Any]) -> dict[str, list[str]]:
    """Return the files of every split, after checking that they hold the rows that build.json states.

    Raises:
        SchemaError: if files are unreadable, of another format, or hold other numbers of rows.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     paths_by_split(FolderRepo("none", Path(place)), {"splits": {}, "task": "sft"})
    Traceback (most recent call last):
    fedllm_data.errors.SchemaError: none has no train split; partition a folder of `fedllm-data build`
    """
    paths: dict[str, list[str]] = {}
    for path in parent.files():
        split = split_of_file(path)
        if split is not None:
            try:
                names = pq.read_schema(parent.folder / path).names
            except (pa.ArrowException, OSError) as error:
                raise SchemaError(f"{parent.name}: {path} is no readable Parquet file; build again") from error
            if names != SCHEMAS[facts["task"]].names:
                raise SchemaError(f"{parent.name}: {path} has not the columns of {facts['task']} rows; build again")
            paths.setdefault(split, []).append(str(parent.folder / path))
    if "train" not in paths:
        raise SchemaError(f"{parent.name} has no train split; partition a folder of `fedllm-data build`")
    for split in SPLITS:
        stated = facts["splits"].get(split, {}).get("num_rows", 0)
        found = sum(pq.read_metadata(path).num_rows for path in paths.get(split, ()))
        if stated != found:
            raise SchemaError(
                f"{parent.name}: {BUILD_FILE} states {stated} rows of {split}, the files hold {found}; build again"
            )
    return paths


def rows_relation(paths: Mapping[str, list[str]], *, but: str = "") -> str:
    """Return SQL for the rows of some splits, all but one, each row with its split.

    >>> rows_relation({"train": ["a.parquet"]})
    "(SELECT *, 'train' AS split FROM read_parquet(['a.parquet']))"
    """
    quoted = {
        split: ", ".join("'" + name.replace("'", "''") + "'" for name in names)
        for split, names in paths.items()
        if split != but
    }
    parts = [f"SELECT *, '{split}' AS split FROM read_parquet([{names}])" for split, names in quoted.items()]
    return f"({' UNION ALL '.join(parts)})"


def count_rows(connection: duckdb.DuckDBPyConnection, relation: str) -> int:
    """Return the number of rows of a relation.

    >>> with duckdb.connect() as connection:
    ...     count_rows(connection, "range(3)")
    3
    """
    return int(connection.execute(f"SELECT count(*) FROM {relation}").fetchall()[0][0])


def source_of_facts(facts: dict[str, Any]) -> Source:
    """Return the source of a repo as far as its facts tell it; it cannot be read.

    >>> source_of_facts({})
    Traceback (most recent call last):
    KeyError: 'name'
    """
    names = ("name", "task", "summary", "client", "licence", "licence_url", "attribution", "upstream", "revision")
    return Source(**{name: facts[name] for name in names}, citation="", read=lambda *_: iter(()), options={})
