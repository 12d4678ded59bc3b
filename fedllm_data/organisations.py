"""Group the people of a client repo into organisations: another client repo of the same rows, one client a site.

A corpus of people is also one of the sites, companies or courts they belong to. Here every row keeps its id and its
texts, and its client becomes the organisation of the person who held it: the part before the first colon of an id such
as SITE:USER, or what a table of members says. The two repos are one corpus at two levels, cross-device and cross-silo,
and `fedllm-data report --compare` sets their reports side by side.

Splits: rows of `train`, `test` and `public` stay where they are. Rows of `unseen` people become `test` rows of an
organisation that also trains, which then holds out people it has never seen; an organisation all of whose people are
unseen stays in `unseen`. No two splits shared a prompt before, so none do afterwards.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import duckdb
import pyarrow as pa

from fedllm_data.build import BUILD_FILE, BuildResult
from fedllm_data.cards.croissant import write_croissant
from fedllm_data.cards.notice import write_notice
from fedllm_data.client_ids import SEPARATOR, canonical_id
from fedllm_data.errors import ConfigError, PartitionError, SchemaError
from fedllm_data.in_place import fill_folder
from fedllm_data.partition.parent_repo import (
    count_rows,
    paths_by_split,
    read_facts,
    rows_relation,
    source_of_facts,
)
from fedllm_data.pipeline.record import describe_clients, describe_file, describe_versions
from fedllm_data.pipeline.replacing import Remake, check_replaceable
from fedllm_data.pipeline.write import readme_text, write_clients, write_split
from fedllm_data.repo import FolderRepo, open_repo
from fedllm_data.schema import PUBLIC_CLIENT, SCHEMAS, SPLITS, Task, client_id_problem
from fedllm_data.source import Rejected
from fedllm_data.upstream.records import read_records

__all__ = ["group_by_organisation", "organisation_of"]

_COLUMNS = ("client_id", "organisation")
_TEXTS: dict[Task, tuple[str, ...]] = {"sft": ("messages",), "preference": ("prompt", "chosen", "rejected")}
_SPLIT_RULE = (
    "the splits of the people's repo, and rows of unseen people are test rows of an organisation that also trains"
)


def group_by_organisation(
    repo: Path,
    out: Path,
    *,
    members: Path | None = None,
    overwrite: bool = False,
    memory_limit: str = "256MB",
    progress: Callable[[str, int], None] = lambda step, count: None,
    finish: Callable[[Path, dict[str, Any]], None] | None = None,
) -> BuildResult:
    """Make a client repo of the same rows whose clients are organisations; equal arguments give equal bytes.

    Args:
        repo: a client repo of people, made by `build` or `import`.
        out: the folder to make.
        members: a table with the columns `client_id` and `organisation`, in any format that `import` reads; None
            takes what stands before the first colon of a client's id.
        overwrite: replace a folder made here that holds another dataset, a report, or files beside the repo's own.
        memory_limit: what DuckDB may hold before it spills to disk.
        progress: called with the step and a count of rows while the work goes on.
        finish: called with the complete folder and the facts before the folder is put in place.

    Returns:
        The folder and the facts of its `build.json`.

    Raises:
        PartitionError: if a person has no organisation, or all have one.
        SchemaError: if the parent is no sound client repo.
        SourceError: if the table of members cannot be read.
        ConfigError: if `out` cannot be written or replaced, or the memory is too small.

    >>> group_by_organisation(Path("no/such/folder"), Path("out"))
    Traceback (most recent call last):
    fedllm_data.errors.SchemaError: no/such/folder is no folder; name a client repo, made by `fedllm-data build`
    """
    if not repo.is_dir():
        raise SchemaError(f"{repo} is no folder; name a client repo, made by `fedllm-data build`")
    if repo.resolve() == out.resolve():
        raise ConfigError(f"--out {out} is the client repo to be grouped; name another folder")
    parent = cast(FolderRepo, open_repo(repo))
    parent_facts = read_facts(parent)
    paths = paths_by_split(parent, parent_facts)
    if parent_facts.get("partition"):
        raise PartitionError(f"{repo} holds artificial clients, who belong to no organisation; name a repo of people")
    organisations = _organisations_of(_people(parent), members, parent_facts)
    name = f"{parent_facts['name']}-organisations"
    remake = Remake(
        name=name,
        task=parent_facts["task"],
        upstream=parent_facts["upstream"],
        client=_client_words(parent_facts),
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
                facts = _make(connection, parent, (parent_facts, paths), organisations, folder, progress)
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


def organisation_of(client_id: str) -> str | None:
    """Return the organisation in a client's id, or None if it names none.

    >>> organisation_of("beer.stackexchange.com:12"), organisation_of("ann"), organisation_of(":12")
    ('beer.stackexchange.com', None, None)
    """
    organisation, separator, _ = client_id.partition(SEPARATOR)
    return organisation.strip() or None if separator else None


def _people(parent: FolderRepo) -> list[str]:
    return [str(client_id) for client_id in parent.client_table()["client_id"].to_pylist()]


def _organisations_of(people: list[str], members: Path | None, facts: Mapping[str, Any]) -> dict[str, str]:
    """Person -> organisation, for every person.

    Raises:
        PartitionError: if somebody has none, or all have the same.
    """
    found: dict[str, str] = {}
    if members is not None:
        found = _read_members(members)
        remedy = f"; add a line to {members}"
    elif facts.get("client_ids", {}).get("hashed"):
        raise PartitionError(
            f"the client ids of {facts['name']} are hashed and name no organisation; give a table of client_id and "
            "organisation by --members"
        )
    else:
        found = {person: name for person in people if (name := organisation_of(person)) is not None}
        remedy = "; import with --columns organisation=COLUMN, or give a table by --members"
    without = [person for person in people if person not in found]
    if without:
        raise PartitionError(
            f"{len(without)} of {len(people)} clients have no organisation, among them {without[0][:60]!r}{remedy}"
        )
    found = {person: found[person] for person in people}
    if len(set(found.values())) < 2:
        raise PartitionError(
            f"all {len(people)} clients are of {next(iter(found.values()), 'no organisation')!r}; two organisations "
            "are the least that can be clients"
        )
    return found


def _read_members(path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in read_records(path):
        if isinstance(item, Rejected):
            raise PartitionError(f"{path}:{item.line}: {item.reason}; correct the table")
        missing = [name for name in _COLUMNS if name not in item.fields]
        if missing:
            raise PartitionError(f"{path} has no column {missing[0]}; it must have {' and '.join(_COLUMNS)}")
        person, organisation = (canonical_id(item.fields[name]) for name in _COLUMNS)
        for value, name in ((person, "client_id"), (organisation, "organisation")):
            if problem := client_id_problem(value):
                raise PartitionError(
                    f"{path}:{item.line}: {name}: {problem.removeprefix('client_id: ')}; correct the table"
                )
        if organisation == PUBLIC_CLIENT:
            raise PartitionError(f"{path}:{item.line}: {PUBLIC_CLIENT!r} is kept for rows of nobody; rename it")
        if found.setdefault(str(person), str(organisation)) != organisation:
            raise PartitionError(f"{path}:{item.line}: {person!r} is in two organisations; keep one")
    return found


def _client_words(facts: Mapping[str, Any]) -> str:
    return f"an organisation, with all its people; in {facts['name']} a client is {facts['client']}"


def _make(
    connection: duckdb.DuckDBPyConnection,
    parent: FolderRepo,
    held: tuple[dict[str, Any], dict[str, list[str]]],
    organisations: Mapping[str, str],
    folder: Path,
    progress: Callable[[str, int], None],
) -> dict[str, Any]:
    """Write the files, and return the facts."""
    parent_facts, paths = held
    task: Task = parent_facts["task"]
    table = pa.table({"client_id": list(organisations), "organisation": list(organisations.values())})
    connection.register("members", table)
    # A client without train rows of its own is one of unseen people alone.
    connection.execute(f"""
        CREATE TEMP VIEW grouped AS
        WITH training AS (SELECT DISTINCT organisation FROM members JOIN {rows_relation({"train": paths["train"]})}
                          USING (client_id))
        SELECT rows.* EXCLUDE (client_id, split), organisation AS client_id,
               if(split = 'unseen' AND organisation IN (SELECT organisation FROM training), 'test', split) AS split
        FROM {rows_relation(paths, but="public")} AS rows JOIN members USING (client_id)
    """)
    num_held = sum(counts["num_rows"] for split, counts in parent_facts["splits"].items() if split != "public")
    if (num_grouped := count_rows(connection, "grouped")) != num_held:
        raise SchemaError(
            f"{parent.name}: {num_held - num_grouped} rows are of clients that clients.parquet does not list; "
            "`fedllm-data check` tells more"
        )
    splits: dict[str, Any] = {}
    files: dict[str, list[str]] = {}
    columns = ", ".join(name for name in SCHEMAS[task].names if name != "client_id")
    for split in SPLITS:
        if split == "public" and split in paths:
            rows = rows_relation({split: paths[split]})
        else:
            rows = f"(SELECT * FROM grouped WHERE split = '{split}')"
        counted = connection.execute(
            f"SELECT count(*), coalesce(sum({_text_bytes(task)}), 0), count(DISTINCT client_id) FROM {rows}"
        ).fetchall()
        num_rows, num_bytes, num_clients = (int(number) for number in counted[0])
        if num_rows == 0:
            continue
        query = f"SELECT client_id, {columns} FROM {rows} ORDER BY client_id, row_id"
        files[split] = write_split(connection, query, folder, split, task, num_rows, num_bytes)
        splits[split] = {"num_rows": num_rows, "num_clients": num_clients, "num_text_bytes": num_bytes}
        progress(f"wrote {split}", num_rows)
    connection.unregister("members")
    new_paths = {split: [str(folder / name) for name in names] for split, names in files.items()}
    written = rows_relation(new_paths, but="public")
    files["clients"] = [write_clients(connection, written, folder, task)]
    num_unseen = [counts.get("unseen", {}).get("num_rows", 0) for counts in (parent_facts["splits"], splits)]
    num_moved = num_unseen[0] - num_unseen[1]
    record = {
        "parent": {"name": parent_facts["name"], "revision": parent.revision},
        "num_people": len(organisations),
        "num_organisations": len(set(organisations.values())),
        "num_unseen_rows_in_test": num_moved,
        "words": f"{len(organisations)} people of {parent_facts['name']} were grouped into "
        f"{len(set(organisations.values()))} organisations; {num_moved} rows of unseen people became test rows.",
    }
    return {
        **parent_facts,
        "name": f"{parent_facts['name']}-organisations",
        "summary": f"{parent_facts['summary']} Here these clients are grouped into organisations.".strip(),
        "client": _client_words(parent_facts),
        # Published sizes are those of the people.
        "sizes": [],
        "client_ids": {"hashed": False, "salt_fingerprint": None},
        "organisations": record,
        "limits": [*parent_facts["limits"], record["words"]],
        "split_rule": _SPLIT_RULE,
        "splits": splits,
        "clients": describe_clients(connection, written),
        "files": {name: describe_file(folder / name) for names in files.values() for name in names},
        "versions": describe_versions(),
    }


def _text_bytes(task: Task) -> str:
    """SQL for the bytes of a row's text as `build.json` counts them: column, role and content of every message."""
    parts = [
        f"list_sum([strlen(message.role) + strlen(message.content) + {len(column) + 3} for message in {column}])"
        for column in _TEXTS[task]
    ]
    return f"({' + '.join(parts)} - 1)"
