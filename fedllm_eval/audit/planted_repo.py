"""Another client repo with canaries in its training rows: to train on, audit and delete, never to publish."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from fedllm_data.clients import load_clients
from fedllm_data.errors import ConfigError
from fedllm_data.in_place import fill_folder
from fedllm_data.pipeline.write import write_clients, write_split
from fedllm_data.repo import FolderRepo, open_repo, split_of_file
from fedllm_data.schema import SCHEMAS, SPLITS, Task
from fedllm_eval.audit.canaries import Canary, make_canaries, planted_rows, write_secrets
from fedllm_eval.audit.coins import coin_canaries
from fedllm_eval.per_client import sample_positions
from fedllm_eval.scoring.epsilon_bound import Unit
from fedllm_eval.texts import whole

__all__ = ["CanarySettings", "plant_repo"]

README = """---
tags:
- federated-learning
- canaries
configs:
- config_name: default
  default: true
  data_files:
{files}- config_name: clients
  data_files:
  - split: train
    path: clients/clients-*.parquet
---

# {name} with canaries

The rows of `{name}` with {num} planted canaries (made-up access codes) in the split train, for a privacy audit.
Train on it, audit what was trained, and delete both. Never publish it: a model trained on it has learned made-up
facts.
"""


@dataclass(frozen=True, kw_only=True)
class CanarySettings:
    """Which canaries are planted."""

    num_canaries: int = 10
    """Clients that get one; which ones follows from the seed and the ids."""
    alphabet: str = "digits"
    """As in `make_canaries`."""
    length: int = 6
    """Letters of a secret."""
    copies: int = 1
    """Rows that hold it."""
    seed: int = 0
    """Seeds the choice of clients."""
    coins: Unit | None = None
    """Plant each canary or keep it out by a coin of its own, for a bound on epsilon (`coins.py`): what a coin decides
    about, a row of some client or a whole client of its own."""


def plant_repo(
    repo_or_dir: str | Path,
    out: Path,
    secrets_file: Path,
    *,
    salt: bytes,
    settings: CanarySettings | None = None,
) -> list[Canary]:
    """Write a client repo with canaries in some clients' training rows, and their secrets beside it, not in it.

    Args:
        repo_or_dir: the client repo to start from: folder or Hub id.
        out: folder of the new repo; must not hold anything.
        secrets_file: where the secrets go; outside `out`.
        salt: salt of handles and secrets.
        settings: how many canaries, and what they look like; the defaults where None.

    Returns:
        The canaries, with coins also those that were kept out.

    Raises:
        ConfigError: if a path or a setting cannot be used.
        SchemaError: if the repo has no training rows.
    """
    settings = settings or CanarySettings()
    out, secrets_file = Path(out), Path(secrets_file)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} holds something already; name a new folder")
    if out.resolve() in (secrets_file.resolve(), *secrets_file.resolve().parents):
        raise ConfigError(f"the secrets file {secrets_file} lies inside {out}; keep it outside, or it is published")
    repo = open_repo(repo_or_dir)
    pinned = None if isinstance(repo, FolderRepo) else repo.revision
    train = load_clients(repo_or_dir, "train", pinned)
    ids = list(train)
    canaries = _canaries(ids, salt, settings)
    with fill_folder(out) as folder:
        splits = _write(train.task, str(repo_or_dir), pinned, canaries, folder)
        files = "".join(f"  - split: {split}\n    path: data/{split}-*.parquet\n" for split in splits)
        text = README.format(files=files, name=Path(train.name).name, num=sum(canary.is_in for canary in canaries))
        (folder / "README.md").write_text(whole(text), encoding="utf-8")
        write_secrets(canaries, secrets_file)
    return canaries


def _canaries(ids: Sequence[str], salt: bytes, settings: CanarySettings) -> list[Canary]:
    num = settings.num_canaries
    if settings.coins is not None:
        order = [ids[position] for position in sample_positions(ids, min(num, len(ids)), settings.seed, "canaries")]
        return coin_canaries(
            ids if settings.coins == "client" else order,
            num,
            salt=salt,
            unit=settings.coins,
            alphabet=settings.alphabet,
            length=settings.length,
            copies=settings.copies,
        )
    if not 1 <= num <= len(ids):
        raise ConfigError(f"{num} canaries for {len(ids)} training clients; plant one per client at most")
    chosen = [ids[position] for position in sample_positions(ids, num, settings.seed, "canaries")]
    return make_canaries(chosen, salt=salt, alphabet=settings.alphabet, length=settings.length, copies=settings.copies)


def _write(task: Task, source: str, revision: str | None, canaries: Sequence[Canary], folder: Path) -> list[str]:
    columns = ", ".join(SCHEMAS[task].names)
    repo = open_repo(source, revision)
    present = {split_of_file(path) for path in repo.files()}
    splits = [split for split in SPLITS if split in present]
    with duckdb.connect() as connection:
        for split in splits:
            rows = _complete(load_clients(source, split, revision).rows.with_format("arrow")[:], task)
            connection.register("rows_of_split", rows)
            query = f"SELECT {columns} FROM rows_of_split"
            num_rows, num_bytes = rows.num_rows, rows.nbytes
            if split == "train":
                planted = planted_rows(canaries, task)
                connection.register("planted", planted)
                query += f" UNION ALL SELECT {columns} FROM planted"
                num_rows += planted.num_rows
            query = f"SELECT {columns} FROM ({query}) ORDER BY client_id, row_id"
            write_split(connection, query, folder, split, task, num_rows, num_bytes)
        parts = [
            f"SELECT *, '{split}' AS split FROM read_parquet('{folder}/data/{split}-*.parquet')"
            for split in splits
            if split != "public"
        ]
        write_clients(connection, f"({' UNION ALL '.join(parts)})", folder, task)
    return splits


def _complete(rows: pa.Table, task: Task) -> pa.Table:
    """Rows with every column of the schema: repos of an earlier version lack some that may be null."""
    for field in SCHEMAS[task]:
        if field.name not in rows.column_names:
            rows = rows.append_column(field.name, pa.nulls(rows.num_rows, field.type))
    return rows.select(SCHEMAS[task].names).cast(SCHEMAS[task])
