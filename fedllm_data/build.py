"""From a source to a client repo: read, validate, filter, de-duplicate, limit sizes, split, write, put in place.

Rows stream in batches into a DuckDB file inside the folder being made; sorting, counting and de-duplicating are
DuckDB's, which spills to disk, so memory does not grow with the corpus. What is removed is counted in `build.json`,
and every row that could not be used is a line of `rejected.jsonl` with file, line and reason.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from fedllm_data.build_settings import BuildSettings, resolve_settings
from fedllm_data.cards.croissant import write_croissant
from fedllm_data.cards.notice import write_notice
from fedllm_data.errors import ConfigError, SourceError
from fedllm_data.in_place import fill_folder
from fedllm_data.pipeline.conservation import Counted, check_conservation
from fedllm_data.pipeline.filters import (
    count,
    limit_sizes,
    remove_duplicates,
    remove_ties,
    remove_unwanted,
)
from fedllm_data.pipeline.load import Loaded, LoadSettings, load_rows
from fedllm_data.pipeline.record import (
    describe_clients,
    describe_file,
    describe_languages,
    describe_source,
    describe_source_files,
    describe_versions,
)
from fedllm_data.pipeline.replacing import Remake, check_replaceable
from fedllm_data.pipeline.salt import salt_fingerprint
from fedllm_data.pipeline.split import (
    GROUP_RULE,
    SPLIT_RULE,
    SPLIT_RULE_OF_ALL,
    TEST_FRACTION,
    UNSEEN_FRACTION,
    assign_splits,
)
from fedllm_data.pipeline.write import readme_text, write_clients, write_split
from fedllm_data.schema import SCHEMAS, SPLITS
from fedllm_data.source import Filters, Source
from fedllm_data.upstream.read_counts import count_reads
from fedllm_data.upstream.upstream_files import COMMIT

__all__ = ["BUILD_FILE", "BuildResult", "build"]

BUILD_FILE = "build.json"


@dataclass(frozen=True, kw_only=True)
class BuildResult:
    """Where a client repo was written, and the facts of `build.json`."""

    folder: Path
    facts: dict[str, Any]

    @property
    def num_rows(self) -> dict[str, int]:
        """Rows of each split that is not empty."""
        return {split: counts["num_rows"] for split, counts in self.facts["splits"].items()}

    @property
    def num_rejected(self) -> int:
        """Rows listed in `rejected.jsonl`."""
        return int(self.facts["counts"]["num_rejected"])


def build(
    source: Source,
    out: Path,
    settings: BuildSettings | None = None,
    *,
    progress: Callable[[str, int], None] = lambda step, count: None,
    look_at: Callable[[Loaded, int], dict[str, Any]] = lambda loaded, num_valid: {},
    finish: Callable[[Path, dict[str, Any]], None] | None = None,
    **single: Any,
) -> BuildResult:
    """Build a client repo; equal arguments and versions give a byte-identical folder.

    Args:
        source: the corpus.
        out: the folder to make. An earlier folder of the same dataset is replaced when the new one is complete.
        settings: how to build; None takes the presets.
        progress: called with the step and a count of rows while the build goes on.
        look_at: called with what was met while all rows were read and the number that can be used; raises to stop
            before anything is made of them, and returns facts for `build.json`.
        finish: called with the complete folder and the facts before the folder is put in place, to add what belongs
            to it, such as the report: a kill leaves all of it or nothing. Without it an earlier report at `out` would
            be lost, which `overwrite` must allow.
        single: fields of `BuildSettings` by name, which replace those of `settings`: `build(source, out, seed=3)`.

    Returns:
        The folder and the facts of its `build.json`.

    Raises:
        ConfigError: if an option is unknown, settings contradict one another, a salt is missing, the memory is too
            small, or `out` cannot be written or replaced.
        SourceError: if the source cannot be read, or no rows are left.

    >>> from tempfile import TemporaryDirectory
    >>> from fedllm_data.source import SourceRow
    >>> turns = lambda i: [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": f"{i}!"}]
    >>> rows = [SourceRow({"client_id": "ann", "row_id": str(i), "messages": turns(i)}, "memory", i) for i in range(8)]
    >>> source = Source(name="tiny", task="sft", summary="", client="a name", licence="cc0-1.0", licence_url="",
    ...     attribution="", upstream="generated", revision="", citation="", read=lambda *_: iter(rows), options={})
    >>> with TemporaryDirectory() as place:
    ...     build(source, Path(place, "repo")).num_rows
    {'train': 6, 'test': 2}
    """
    settings, filters = resolve_settings(source, settings or BuildSettings(), **single)
    upstream, revision, options = _upstream_of(source, settings)
    loading = LoadSettings(
        seed=settings.seed,
        salt=settings.salt,
        is_scrubbed=settings.scrub,
        is_detected=source.upstream != "generated",
        near_duplicates=filters.near_duplicates,
    )
    remake = Remake(
        name=source.name,
        task=source.task,
        upstream=upstream,
        client=source.client,
        source_files=(*([settings.source_path] if settings.source_path else []), *settings.source_files),
        is_copy=settings.source_path is not None,
        has_report=finish is not None,
        overwrite=settings.overwrite,
    )
    with (
        fill_folder(out, check=partial(check_replaceable, mark=BUILD_FILE, remake=remake)) as folder,
        _memory_errors(settings.memory_limit),
        duckdb.connect(str(folder / "work.duckdb")) as connection,
    ):
        _limit_memory(connection, settings.memory_limit)
        # One thread: every thread of a sort holds its own share of pinned blocks, and reading in Python takes longer.
        connection.execute("SET threads = 1")
        connection.execute("SET preserve_insertion_order = false")
        # Every checkpoint compresses the last group of rows again; at DuckDB's 16 MB that is most of loading.
        connection.execute("SET checkpoint_threshold = '64MB'")
        # Compressing text costs a third of reading, and the file lives as long as the build: it takes twice the disk.
        connection.execute("SET force_compression = 'uncompressed'")
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        connection.execute(f"SET temp_directory = '{str(folder / 'work.tmp').replace(chr(39), chr(39) * 2)}'")

        items = Counted(source.read(settings.source_path, settings.seed, options))
        with count_reads() as reads:
            loaded = load_rows(connection, source, iter(items), loading, folder / "rejected.jsonl", progress)
        counts = {"num_rejected": loaded.reasons.total(), "num_valid": count(connection, "facts")}
        _check_any_left(source, folder, counts, "could be used; look at the source, its format and its options")
        looked = look_at(loaded, counts["num_valid"])

        counts |= _reduce(connection, source, filters, progress)
        _check_any_left(
            source,
            folder,
            counts,
            f"are left after the filters, of clients with at least {filters.min_rows}; loosen them (--min-rows, "
            "--languages, ...) or use --unfiltered",
        )
        split_counts = assign_splits(connection, "kept", "assigned", keep_all=settings.unfiltered)
        progress("split", counts["num_kept"])

        splits, files = _write_rows(connection, source, folder, progress)
        check_conservation(
            source.name,
            reads,
            items.num_items,
            counts,
            split_counts,
            sum(split["num_rows"] for split in splits.values()),
            rejected_path=folder / "rejected.jsonl",
            is_row_per_record=source.is_row_per_record,
        )
        # The public rows belong to no client and count nowhere below.
        written = "assigned USING (ordinal) WHERE assigned.split IS NOT NULL AND assigned.split != 'public'"
        written_rows = f"(SELECT rows.*, assigned.split FROM rows JOIN {written})"
        written_facts = f"(SELECT kept.* FROM kept JOIN {written})"
        files.append(write_clients(connection, written_rows, folder, source.task))
        salt = settings.salt
        facts = {
            "made_by": "fedllm-data",
            **describe_source(source),
            "upstream": upstream,
            "revision": revision,
            "source_files": describe_source_files(remake.source_files),
            "seed": settings.seed,
            "options": options,
            "filters": {"unfiltered": settings.unfiltered, **asdict(filters), "languages": list(filters.languages)},
            "is_preset": filters == source.filters,
            "filter_reasons": source.filter_reasons,
            "clients_share_items": source.clients_share_items,
            "client_ids": {"hashed": salt is not None, "salt_fingerprint": salt and salt_fingerprint(salt)},
            "scrubbed": dict(sorted(loaded.scrubbed.items())) if settings.scrub else None,
            "languages": describe_languages(connection, written_facts, loading.is_detected),
            "partition": None,
            "reading": source.notes or None,
            "counts": counts,
            "rejected_reasons": dict(sorted(loaded.reasons.items(), key=lambda item: (-item[1], item[0]))),
            **looked,
            "split_rule": _split_rule(split_counts.pop("is_grouped", 0) > 0, "num_groups" in split_counts),
            "split_fractions": {"unseen_clients": UNSEEN_FRACTION, "test_conversations": TEST_FRACTION},
            "split_counts": split_counts,
            "splits": splits,
            "clients": describe_clients(connection, written_rows),
            "files": {name: describe_file(folder / name) for name in files},
            "versions": describe_versions(),
        }
        connection.close()
        for left in folder.glob("work.*"):
            left.unlink() if left.is_file() else left.rmdir()
        write_notice(folder, facts)
        write_croissant(folder, facts)
        (folder / "README.md").write_text(readme_text(source, list(splits)), encoding="utf-8")
        (folder / BUILD_FILE).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if finish is not None:
            finish(folder, facts)
    return BuildResult(folder=out, facts=facts)


def _split_rule(is_of_all: bool, has_groups: bool) -> str:
    return "; ".join([SPLIT_RULE_OF_ALL if is_of_all else SPLIT_RULE, *([GROUP_RULE] if has_groups else [])])


def _limit_memory(connection: duckdb.DuckDBPyConnection, memory_limit: str) -> None:
    if not re.fullmatch(r"\d+(\.\d+)? ?(MB|GB|MiB|GiB)", memory_limit):
        raise ConfigError(f"{memory_limit[:40]!r} is no amount of memory; write it like 512MB or 2GB")
    connection.execute(f"SET memory_limit = '{memory_limit}'")


@contextmanager
def _memory_errors(memory_limit: str) -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise ConfigError(
            f"sorting this corpus needs more than {memory_limit} of memory or disk; give more with --memory"
        ) from error


def _upstream_of(source: Source, settings: BuildSettings) -> tuple[str, str, dict[str, str]]:
    """Where the rows come from, for the record, and the options that say so to the source.

    A local copy is known by its digest, the Hub by a commit: a branch or a tag is resolved here, and the source reads
    the commit that is recorded.
    """
    options = dict(settings.options)
    upstream = options.get("hub_id", source.upstream)
    if settings.source_path is not None:
        return upstream, options.get("revision", "local copy, see source_files in build.json"), options
    if "hub_id" not in source.options:
        return upstream, source.revision, options
    revision = options.get("revision", source.revision if upstream == source.upstream else "main")
    if not COMMIT.fullmatch(revision):
        from fedllm_data.hub.push import resolve_revision

        revision = resolve_revision(upstream, revision)
        options["revision"] = revision
    return upstream, revision, options


def _reduce(
    connection: duckdb.DuckDBPyConnection, source: Source, filters: Filters, progress: Callable[[str, int], None]
) -> dict[str, int]:
    """Make `kept` of `facts`: without unwanted rows and duplicates, and with clients within the limits."""
    counts = remove_unwanted(connection, filters)
    counts |= remove_ties(connection, filters.keep_duplicates)
    counts |= remove_duplicates(connection, filters.keep_duplicates, source.clients_share_items)
    if filters.near_duplicates is not None:
        from fedllm_data.pipeline.near_duplicates import remove_near_duplicates

        progress("removed exact duplicates", count(connection, "distinct_rows"))
        counts |= remove_near_duplicates(
            connection, filters.near_duplicates, source.task, across_clients=not source.clients_share_items
        )
    progress("removed duplicates", count(connection, "distinct_rows"))
    counts |= limit_sizes(connection, filters)
    return counts | {"num_kept": count(connection, "kept")}


def _check_any_left(source: Source, folder: Path, counts: dict[str, int], remedy: str) -> None:
    if counts.get("num_kept", counts["num_valid"]):
        return
    first = ""
    with (folder / "rejected.jsonl").open(encoding="utf-8") as file:
        if line := file.readline():
            place = json.loads(line)
            first = f" (the first at {place['file']}:{place['line']}: {place['reason']})"
    raise SourceError(
        f"{source.name}: of {counts['num_valid'] + counts['num_rejected']} rows read, {counts['num_rejected']} were "
        f"rejected{first} and none {remedy}"
    )


def _write_rows(
    connection: duckdb.DuckDBPyConnection, source: Source, folder: Path, progress: Callable[[str, int], None]
) -> tuple[dict[str, Any], list[str]]:
    """Write every split, sorted by client and row id; rows that share an id upstream are numbered apart."""
    splits: dict[str, Any] = {}
    files: list[str] = []
    columns = ", ".join(name for name in SCHEMAS[source.task].names if name not in ("client_id", "row_id"))
    connection.execute("""
        CREATE TABLE placed AS
        SELECT ordinal, split, num_bytes, client_id,
               row_id || if(copy > 1, '-' || copy, '') AS row_id
        FROM (SELECT kept.*, assigned.split, row_number() OVER (PARTITION BY row_id ORDER BY kept.ordinal) AS copy
              FROM kept JOIN assigned USING (ordinal) WHERE assigned.split IS NOT NULL)
    """)
    for split in SPLITS:
        where = f"placed WHERE split = '{split}'"
        num_rows, num_bytes, num_clients = connection.execute(
            f"SELECT count(*), coalesce(sum(num_bytes), 0), count(DISTINCT client_id) FROM {where}"
        ).fetchall()[0]
        if num_rows == 0:
            continue
        query = f"""SELECT placed.client_id, placed.row_id, {columns} FROM placed JOIN rows USING (ordinal)
                    WHERE split = '{split}' ORDER BY placed.client_id, placed.row_id"""
        files += write_split(connection, query, folder, split, source.task, num_rows, int(num_bytes))
        splits[split] = {"num_rows": num_rows, "num_clients": num_clients, "num_text_bytes": int(num_bytes)}
        progress(f"wrote {split}", num_rows)
    return splits, files
