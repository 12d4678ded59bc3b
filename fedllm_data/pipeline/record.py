"""What build.json records of a client repo: source, clients, languages, files and versions.

The queries run over a relation of the rows that were written; the texts are read from disk, never held.
"""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb

from fedllm_data.schema import UNDETERMINED
from fedllm_data.source import Source
from fedllm_data.upstream.records import data_files

__all__ = [
    "describe_clients",
    "describe_file",
    "describe_languages",
    "describe_source",
    "describe_source_files",
    "describe_versions",
]


def describe_source(source: Source) -> dict[str, Any]:
    """Return what a source states about itself.

    >>> from fedllm_data.sources import SOURCES
    >>> describe_source(SOURCES["fed-oasst"])["licence"]
    'apache-2.0'
    """
    names = ("name", "task", "summary", "client", "licence", "licence_url", "terms", "gate", "attribution", "citation")
    return {
        **{name: getattr(source, name) for name in names},
        "limits": list(source.limits),
        "sizes": [asdict(size) for size in source.sizes],
    }


def describe_clients(connection: duckdb.DuckDBPyConnection, written: str) -> dict[str, Any]:
    """Return the number of clients, their sizes, and the rows of each language.

    Args:
        connection: where the rows are.
        written: relation with client_id and language, of all rows but the public ones.

    >>> with duckdb.connect() as connection:
    ...     describe_clients(connection, "(SELECT 'ann' AS client_id, 'en' AS language FROM range(3))")["median_rows"]
    3.0
    """
    languages = connection.execute(f"""
        SELECT language, count(*) AS num_rows FROM {written} GROUP BY language ORDER BY num_rows DESC, language
    """).fetchall()
    sizes = connection.execute(f"""
        SELECT count(*), min(num_rows), median(num_rows), max(num_rows)
        FROM (SELECT count(*) AS num_rows FROM {written} GROUP BY client_id)
    """).fetchall()[0]
    names = ("num_clients", "min_rows", "median_rows", "max_rows")
    return {**dict(zip(names, sizes, strict=True)), "num_rows_by_language": dict(languages)}


def describe_languages(connection: duckdb.DuckDBPyConnection, facts: str, is_detected: bool) -> dict[str, Any]:
    """Return how rows got their language, and how often upstream and the detector disagree.

    Args:
        connection: where the facts are.
        facts: relation with the columns of `facts.FACTS`, of all rows but the public ones.
        is_detected: whether the detector was asked.

    >>> row = "SELECT true AS is_upstream_language, false AS is_detected, false AS is_disagreement, 'en' AS language"
    >>> with duckdb.connect() as connection:
    ...     describe_languages(connection, f"({row})", is_detected=False)["num_from_upstream"]
    1
    """
    detector: str | None = None
    if is_detected:
        from fedllm_data.pipeline.language_detection import DETECTOR

        detector = DETECTOR
    names = ("num_from_upstream", "num_detected", "num_both", "num_disagreeing", "num_undetermined")
    numbers = connection.execute(f"""
        SELECT count(*) FILTER (is_upstream_language), count(*) FILTER (is_detected AND NOT is_upstream_language),
               count(*) FILTER (is_upstream_language AND is_detected), count(*) FILTER (is_disagreement),
               count(*) FILTER (language = '{UNDETERMINED}')
        FROM {facts}
    """).fetchall()[0]
    return {"detector": detector, **dict(zip(names, numbers, strict=True))}


def describe_source_files(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return name, size and digest of the local files read: not their folder, which tells about the machine.

    >>> describe_source_files([])
    []
    """
    files = [file for path in paths if path.exists() for file in data_files(path)]
    return [{"name": file.name, **describe_file(file)} for file in files]


def describe_file(path: Path) -> dict[str, Any]:
    """Return size and digest of a file.

    >>> describe_file(Path("/dev/null"))["num_bytes"]
    0
    """
    with path.open("rb") as file:
        return {"num_bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def describe_versions() -> dict[str, str]:
    """Return the versions that decide the bytes of a build.

    >>> sorted(describe_versions())
    ['duckdb', 'fedllm-commons', 'pyarrow', 'python']
    """
    return {
        "fedllm-commons": version("fedllm-commons"),
        "python": platform.python_version(),
        "duckdb": duckdb.__version__,
        "pyarrow": version("pyarrow"),
    }
