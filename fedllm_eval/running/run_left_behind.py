"""Who a run left behind, from its folder: rounds, client table, the corpus's clients table, and scores, if any.

Nobody is named: groups alone are told of, and no score of a group of fewer than five clients. Of a run with
differential privacy nothing is told at all, as with everything else about who took part: its guarantee does not cover
it (`running/participation.py`). Imports no torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedllm_data.errors import ConfigError
from fedllm_eval.policy.run_folder import ROUNDS_FILE, SCORES, find_config, is_private, read_rounds, section
from fedllm_eval.results import Results, read_results
from fedllm_eval.running.client_groups import LANGUAGE, SPEED, UNKNOWN, language_groups, speed_groups
from fedllm_eval.running.left_behind import left_behind
from fedllm_eval.running.round_costs import kept_machines
from fedllm_eval.running.worst_served import HEADLINES
from fedllm_eval.scores import SCORES as SCORE_TABLE

__all__ = ["clients_table_of", "left_behind_of_run", "rows_and_languages"]

OF_PARTICIPANTS = ("test", "train")
"""Splits whose clients can have taken part, the one whose scores are told first."""


def left_behind_of_run(
    run: Path, table: pa.Table | None = None, results: Results | None = None, *, seed: int = 0
) -> dict[str, Any] | None:
    """Return what each group of clients gave to a run and how it is served.

    Args:
        run: a run folder.
        table: the clients table of the corpus that it was trained on; without it languages and rows are not known.
        results: scores of the run's policy; by default those in its `scores/`, if there are any.
        seed: seeds the permutations.

    Returns:
        As `left_behind.left_behind`, with `score`, `unit` and `higher_is_better` (None where nothing was scored), and
        `num_unseen` (clients of the split that were never asked and are not at hand, so that no share counts them);
        None where the run has no rounds, nobody was asked, or it is private.

    Raises:
        ConfigError: if the rounds or the client table cannot be read.

    >>> left_behind_of_run(Path("no/such/run")) is None
    True
    """
    config = find_config(run)
    if config is None or is_private(config) or not (run / ROUNDS_FILE).is_file():
        return None
    rounds: list[Mapping[str, Any]] = [dict(record) for record in read_rounds(run)]
    asked = {one["client_id"] for record in rounds for one in (*record["clients"], *(record.get("left_out") or ()))}
    if not asked:
        return None
    machines = kept_machines(run)
    num_rows, languages = rows_and_languages(table, section(config, "data").get("split") or "train", asked)
    clients = sorted(asked | num_rows.keys() | machines.keys())
    score, scores = _scores(results if results is not None else _own_results(run))
    groups = {
        SPEED: speed_groups(machines, rounds, clients),
        LANGUAGE: language_groups(languages, clients),
    }
    found = left_behind(
        rounds,
        groups,
        num_rows=num_rows or None,
        scores=scores,
        higher_is_better=score is not None and SCORE_TABLE[score].higher_is_better,
        seed=seed,
    )
    in_split = section(config, "data").get("num_clients")
    return found | {
        "score": score,
        "unit": None if score is None else SCORE_TABLE[score].unit,
        "higher_is_better": None if score is None else SCORE_TABLE[score].higher_is_better,
        "num_unseen": max(0, in_split - len(clients)) if isinstance(in_split, int) else 0,
        "speed_is_known": set(groups[SPEED].values()) != {UNKNOWN},
        "language_is_known": set(groups[LANGUAGE].values()) != {UNKNOWN},
    }


def clients_table_of(run: Path) -> pa.Table | None:
    """Return the clients table of the corpus that a run was trained on, where it is a folder at hand; else None.

    >>> clients_table_of(Path("no/such/run")) is None
    True
    """
    from fedllm_data.errors import FedLLMError
    from fedllm_data.repo import FolderRepo, open_repo

    config = find_config(run)
    name = None if config is None else section(config, "data").get("name")
    if not isinstance(name, str) or not Path(name).is_dir():
        return None
    try:
        repo = open_repo(name)
        return repo.client_table() if isinstance(repo, FolderRepo) else None
    except FedLLMError:  # a corpus that has changed since, or is no corpus any more
        return None


def rows_and_languages(table: pa.Table | None, split: str, asked: set[str]) -> tuple[dict[str, int], dict[str, str]]:
    """Return rows and main languages of the clients that a split has; empty where the table is of other clients.

    Args:
        table: the clients table of a corpus.
        split: that was trained on.
        asked: clients of the run.
    """
    column = f"num_{split}_rows"
    if table is None or not {"client_id", "main_language", column} <= set(table.column_names):
        return {}, {}
    columns = (table[name].to_pylist() for name in ("client_id", column, "main_language"))
    lines = [(client, rows, language) for client, rows, language in zip(*columns, strict=True) if rows]
    if not asked & {client for client, _, _ in lines}:
        return {}, {}
    return {client: rows for client, rows, _ in lines}, {client: language for client, _, language in lines}


def _own_results(run: Path) -> Results | None:
    try:
        return read_results(run / SCORES)
    except ConfigError:
        return None


def _scores(results: Results | None) -> tuple[str | None, dict[str, float]]:
    """The headline score of the split whose clients took part, client by client."""
    if results is None or "split" not in results.per_client.column_names:
        return None, {}
    table = results.per_client
    name = next((name for name in HEADLINES if name in table.column_names), None)
    splits = table["split"].to_pylist()
    split = next((split for split in OF_PARTICIPANTS if split in splits), None)
    if name is None or split is None:
        return None, {}
    columns = zip(table["client_id"].to_pylist(), splits, table[name].to_pylist(), strict=True)
    return name, {client: value for client, of, value in columns if of == split and value is not None}
