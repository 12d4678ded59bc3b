"""Artificial partitions: another client repo of the same rows, as a control for what natural clients do.

Every row keeps its id, its texts and its split; only `client_id` is new ("iid-0001"). Rows of `train` and `test` are
dealt out among the training clients, a client's test rows by the same rule as its training rows; rows of `unseen`
among the unseen clients; `public` rows stay as they are. Without a number of clients there are as many as in the
parent, with just their sizes in each split; with one, sizes are equal (but for the rule `quantity`, which sets them).

That is the control to train and evaluate on. It is not IID over the whole corpus: unseen clients share out what unseen
people wrote, which differs from what the others wrote as people differ. With `one_split` every row goes to `train`
and is dealt to all clients: the control for a report. Sizes of natural clients then still differ as they do; with
`random_sizes` each row goes to a client drawn at random, so that no axis is left out of the control.

The rules are in `rules.py`. Memory holds a few numbers a row; texts are joined and sorted by DuckDB.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedllm_data.build import BUILD_FILE, BuildResult
from fedllm_data.cards.croissant import write_croissant
from fedllm_data.cards.notice import write_notice
from fedllm_data.errors import ConfigError, PartitionError, SchemaError
from fedllm_data.in_place import fill_folder
from fedllm_data.partition.labels import cluster_rows, column_labels
from fedllm_data.partition.parent_repo import (
    count_rows,
    paths_by_split,
    read_facts,
    rows_relation,
    source_of_facts,
)
from fedllm_data.partition.rules import PartitionRule, deal_rows, random_stream
from fedllm_data.pipeline.record import describe_clients, describe_file, describe_versions
from fedllm_data.pipeline.replacing import Remake, check_replaceable
from fedllm_data.pipeline.write import readme_text, write_clients, write_split
from fedllm_data.repo import CLIENTS_FILE, FolderRepo, open_repo
from fedllm_data.schema import SCHEMAS, SPLITS, Task

__all__ = ["partition"]


class _Settings(NamedTuple):
    rule: PartitionRule
    num_clients: int | None
    one_split: bool
    random_sizes: bool
    seed: int

    @property
    def given(self) -> dict[str, Any]:
        """What was asked for beside the rule's own settings."""
        values = {name: getattr(self, name) for name in ("num_clients", "one_split", "random_sizes")}
        return {name: value for name, value in values.items() if value}


def partition(
    repo: Path,
    out: Path,
    rule: PartitionRule,
    *,
    num_clients: int | None = None,
    one_split: bool = False,
    random_sizes: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    memory_limit: str = "256MB",
    progress: Callable[[str, int], None] = lambda step, count: None,
    finish: Callable[[Path, dict[str, Any]], None] | None = None,
) -> BuildResult:
    """Make another client repo of the same rows; equal arguments and versions give a byte-identical folder.

    Args:
        repo: the parent, a folder made by `build`, `import` or this function.
        out: the folder to make. An earlier partition of this parent by this rule is replaced when the new one is
            complete.
        rule: how rows are dealt out.
        num_clients: training clients; None for as many as the parent has, of the same sizes. Unseen clients are
            as many in proportion.
        one_split: whether all rows of clients go to `train`, so that nothing is held out.
        random_sizes: whether each row goes to a client drawn at random; a client that gets no row is not there. Not
            for the rule `quantity`, which sets the sizes.
        seed: seeds all draws.
        overwrite: replace a folder made here that holds another dataset, a report, or files beside the repo's own.
        memory_limit: what DuckDB may hold before it spills to disk.
        progress: called with the step and a count of rows while the work goes on.
        finish: called with the complete folder and the facts before the folder is put in place.

    Returns:
        The folder and the facts of its `build.json`.

    Raises:
        PartitionError: if there are fewer rows than clients, a column is unknown or has too many values.
        SchemaError: if the parent is no sound client repo.
        ConfigError: if `out` cannot be written or replaced, or the memory is too small.

    >>> PartitionRule(name="dirichlet", alpha=0.5).parameters
    {'alpha': 0.5, 'column': 'language'}
    >>> partition(Path("no/such/folder"), Path("out"), PartitionRule(name="iid"))
    Traceback (most recent call last):
    fedllm_data.errors.SchemaError: no/such/folder is no folder; name a client repo, made by `fedllm-data build`
    """
    if not repo.is_dir():
        raise SchemaError(f"{repo} is no folder; name a client repo, made by `fedllm-data build`")
    if repo.resolve() == out.resolve():
        raise ConfigError(f"--out {out} is the client repo to be partitioned; name another folder")
    if num_clients is not None and num_clients < 1:
        raise PartitionError(f"num_clients is {num_clients}, but must be at least 1")
    if seed < 0:
        raise PartitionError(f"the seed is {seed}, but must be 0 or more")
    if random_sizes and rule.skew is not None:
        raise PartitionError(f"the rule {rule.name} sets the sizes by its skew: leave out random sizes, or take iid")
    parent = cast(FolderRepo, open_repo(repo))
    parent_facts = read_facts(parent)
    paths = paths_by_split(parent, parent_facts)
    remake = Remake(
        name=f"{parent_facts['name']}-{rule.name}",
        task=parent_facts["task"],
        upstream=parent_facts.get("upstream", ""),
        client=_client_words(rule),
        partition=(rule.name, parent_facts["name"]),
        has_report=finish is not None,
        overwrite=overwrite,
    )
    with fill_folder(out, check=partial(check_replaceable, mark=BUILD_FILE, remake=remake)) as folder:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "threads": 1,
            "preserve_insertion_order": False,
            "temp_directory": str(folder / "work.tmp"),
        }
        try:
            with duckdb.connect(str(folder / "work.duckdb"), config=config) as connection:
                if one_split:
                    parent_facts, paths = _into_train(parent_facts, paths)
                settings = _Settings(rule, num_clients, one_split, random_sizes, seed)
                facts = _make(connection, parent, parent_facts, paths, folder, settings, progress)
        except duckdb.OutOfMemoryException as error:
            raise ConfigError(f"sorting these rows needs more than {memory_limit} of memory or disk") from error
        for left in folder.glob("work.*"):
            left.unlink() if left.is_file() else left.rmdir()
        write_notice(folder, facts)
        write_croissant(folder, facts)
        if (repo / "rejected.jsonl").is_file():
            shutil.copyfile(repo / "rejected.jsonl", folder / "rejected.jsonl")
        readme = readme_text(source_of_facts(facts), list(facts["splits"]))
        (folder / "README.md").write_text(readme, encoding="utf-8")
        (folder / BUILD_FILE).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if finish is not None:
            finish(folder, facts)
    return BuildResult(folder=out, facts=facts)


def _make(
    connection: duckdb.DuckDBPyConnection,
    parent: FolderRepo,
    parent_facts: dict[str, Any],
    paths: dict[str, list[str]],
    folder: Path,
    settings: _Settings,
    progress: Callable[[str, int], None],
) -> dict[str, Any]:
    """Deal the rows out, write the files, and return the facts."""
    rule, seed = settings.rule, settings.seed
    task: Task = parent_facts["task"]
    _number_rows(connection, parent, paths)
    label_N = _read_labels(connection, parent, task, rule, seed, progress)
    _deal(connection, label_N, settings)
    progress("dealt out", len(label_N))
    splits, files = _write_rows(connection, parent_facts, paths, folder, task, progress)
    new_paths = {split: [str(folder / name) for name in names] for split, names in files.items()}
    written = rows_relation(new_paths, but="public")
    files["clients"] = [write_clients(connection, written, folder, task)]
    name = parent_facts["name"]
    record: dict[str, Any] = {"rule": rule.name, "parameters": rule.parameters | settings.given, "seed": seed}
    record["parent"] = {"name": name, "revision": parent.revision}
    if parent_facts.get("partition"):
        record["parent"]["partition"] = parent_facts["partition"]
    return {
        **parent_facts,
        "name": f"{name}-{rule.name}",
        "client": _client_words(rule),
        "client_ids": {"hashed": False, "salt_fingerprint": None, "artificial": True},
        # Published sizes are those of the natural clients.
        "sizes": [],
        "partition": record,
        "splits": splits,
        "clients": describe_clients(connection, written),
        "files": {name: describe_file(folder / name) for names in files.values() for name in names},
        "versions": {**describe_versions(), "numpy": np.__version__},
    }


def _client_words(rule: PartitionRule) -> str:
    return f"nobody: an artificial client of the rule {rule.name}"


def _into_train(facts: dict[str, Any], paths: dict[str, list[str]]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The same parent with the rows of all its clients in `train`."""
    held = [split for split in SPLITS if split in paths and split != "public"]
    counts = {
        name: sum(facts["splits"][split][name] for split in held if split in facts["splits"])
        for name in ("num_rows", "num_text_bytes")
    }
    kept = {split: counts for split, counts in facts["splits"].items() if split == "public"}
    merged = {"train": [path for split in held for path in paths[split]]}
    others = {split: names for split, names in paths.items() if split == "public"}
    dropped = {name: number for name, number in facts["split_counts"].items() if name.endswith("_dropped")}
    split = {"split_rule": "every row of a client is in train", "split_counts": dropped}
    return facts | split | {"splits": {"train": counts} | kept}, merged | others


def _number_rows(connection: duckdb.DuckDBPyConnection, parent: FolderRepo, paths: dict[str, list[str]]) -> None:
    """Make the view `parent_rows` and the table `numbered` of the rows that clients hold, by split and row id."""
    connection.execute(f"CREATE TEMP VIEW parent_rows AS SELECT * FROM {rows_relation(paths, but='public')}")
    connection.execute("""
        CREATE TABLE numbered AS
        SELECT row_number() OVER (ORDER BY split, row_id) - 1 AS ordinal, split, row_id, client_id FROM parent_rows
    """)
    repeated = connection.execute("SELECT row_id FROM numbered GROUP BY row_id, split HAVING count(*) > 1 LIMIT 1")
    if row := repeated.fetchone():
        raise SchemaError(f"{parent.name}: row_id {row[0]!r} repeats within a split; `fedllm-data check` tells more")


def _read_labels(
    connection: duckdb.DuckDBPyConnection,
    parent: FolderRepo,
    task: Task,
    rule: PartitionRule,
    seed: int,
    progress: Callable[[str, int], None],
) -> NDArray[np.int32]:
    """The label of every row that clients hold, by ordinal; all the same for rules that look at sizes alone."""
    if rule.column is None:
        return np.zeros(count_rows(connection, "numbered"), np.int32)
    if rule.num_clusters is not None:
        rng = random_stream(seed, "clusters")
        return cluster_rows(connection, task, rule.num_clusters, rule.encoder, rng, progress)
    return column_labels(connection, parent.folder / CLIENTS_FILE, task, rule.column)


def _deal(
    connection: duckdb.DuckDBPyConnection,
    label_N: NDArray[np.int32],
    settings: _Settings,
) -> None:
    """Make the table `dealt`: split, row_id and the new client_id."""
    found = connection.execute("""
        SELECT (dense_rank() OVER (ORDER BY client_id) - 1)::INTEGER AS client FROM numbered ORDER BY ordinal
    """)
    natural_N = np.asarray(found.fetchnumpy()["client"], np.int32)
    # Ordinals run through the splits one after another.
    spans = connection.execute("SELECT split, min(ordinal), max(ordinal) + 1 FROM numbered GROUP BY split").fetchall()
    rows_by_split = {split: (natural_N[start:stop], label_N[start:stop]) for split, start, stop in spans}
    dealt, num_made = deal_rows(
        rows_by_split,
        int(label_N.max()) + 1,
        settings.rule,
        settings.num_clients,
        settings.seed,
        random_sizes=settings.random_sizes,
    )
    client_N = np.empty(len(natural_N), np.int32)
    for split, start, stop in spans:
        client_N[start:stop] = dealt[split]
    width = max(4, len(str(num_made)))
    connection.register("client_numbers", pa.table({"ordinal": np.arange(len(client_N)), "number": client_N}))
    connection.execute(f"""
        CREATE TABLE dealt AS
        SELECT split, row_id, '{settings.rule.name}-' || lpad((number + 1)::VARCHAR, {width}, '0') AS client_id
        FROM numbered JOIN client_numbers USING (ordinal)
    """)
    connection.unregister("client_numbers")


def _write_rows(
    connection: duckdb.DuckDBPyConnection,
    parent_facts: dict[str, Any],
    paths: dict[str, list[str]],
    folder: Path,
    task: Task,
    progress: Callable[[str, int], None],
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Write every split, sorted by client and row id."""
    splits: dict[str, Any] = {}
    files: dict[str, list[str]] = {}
    columns = ", ".join(name for name in SCHEMAS[task].names if name != "client_id")
    for split in (name for name in SPLITS if name in paths):
        rows = rows_relation({split: paths[split]})
        query = f"SELECT client_id, {columns} FROM {rows} ORDER BY client_id, row_id"
        num_clients = 1
        if split != "public":
            query = f"""SELECT dealt.client_id, {columns} FROM (SELECT * EXCLUDE (client_id) FROM {rows}) AS parent
                        JOIN dealt USING (split, row_id) ORDER BY dealt.client_id, row_id"""
            num_clients = count_rows(connection, f"(SELECT DISTINCT client_id FROM dealt WHERE split = '{split}')")
        counts = parent_facts["splits"][split]
        num_rows, num_bytes = int(counts["num_rows"]), int(counts["num_text_bytes"])
        files[split] = write_split(connection, query, folder, split, task, num_rows, num_bytes)
        splits[split] = {"num_rows": num_rows, "num_clients": num_clients, "num_text_bytes": num_bytes}
        progress(f"wrote {split}", num_rows)
    return splits, files
