"""IFD and IRA of a client repo's rows, written into a scores file for `fedllm-data report --scores`.

The scores are those of `ifd.py`. Rows are scored 256 at a time, and every such chunk is kept beside the file until the
last is done. Needs torch when something is scored.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fedllm_data.clients import ClientDataset, load_clients
from fedllm_data.errors import ConfigError, MetricError, ResumeError
from fedllm_data.heterogeneity.quality import ScorerInfo
from fedllm_data.in_place import write_file
from fedllm_data.rehearsal import end_of_checks
from fedllm_data.repo import FolderRepo, open_repo, split_of_file
from fedllm_data.scorers.score_file import write_scores
from fedllm_eval.ifd import difficulty
from fedllm_eval.per_client import sample_positions
from fedllm_eval.policy.early_checks import check_policies

if TYPE_CHECKING:
    from fedllm_eval.policy.policies import Policy

__all__ = ["RowScoreSettings", "score_rows"]

DEFAULT_SPLITS = ("train", "test", "unseen")
CHUNK_ROWS = 256
"""Rows that are scored, and saved, together: a run that was broken off loses no more than these."""


@dataclass(frozen=True, kw_only=True)
class RowScoreSettings:
    """Which rows are scored, and how."""

    splits: Sequence[str] | None = None
    """By default train, test and unseen, as far as the repo has them."""
    max_rows_per_client: int | None = None
    """Score at most this many rows of each client of each split."""
    batch_size: int = 8
    """Sequences that a batch holds at most; each row is two."""
    max_length: int | None = None
    """Tokens that a conversation may have; by default 1,024 or as many as the model holds."""
    seed: int = 0
    """Seeds the sample of rows."""
    revision: str | None = None
    """Revision of the model on the Hub."""
    data_revision: str | None = None
    """Revision of the client repo on the Hub."""


def score_rows(
    repo_or_dir: str | Path,
    model: "str | Path | Policy",
    out: Path,
    *,
    settings: RowScoreSettings | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Write IFD and IRA of a client repo's rows into a scores file, for `fedllm-data report --scores`.

    The file (see `fedllm_data.scorers.score_file`) has the columns `row_id`, `ifd`, `ira` and `num_tokens`. Rows are
    scored 256 at a time, and every such chunk is kept beside the file until the last is done: called again after a
    break, the same command goes on where it was.

    Args:
        repo_or_dir: client repo: folder or Hub id.
        model: what scores: run folder, adapter or model; folder or Hub id.
        out: the file to write; one that is there is replaced in the end.
        settings: which rows are scored, and how; the defaults where None.
        progress: called with (what, rows done, rows in all) after every chunk.

    Returns:
        `num_rows`, `num_scored`, the means of both scores, and the scorers' revision.

    Raises:
        ConfigError: if the model or a setting cannot be used.
        SchemaError: if the repo is no client repo or has no such split.
        ResumeError: if chunks beside the file were scored with other settings.
        HubError: if something cannot be fetched.
        MetricError: if no row can be scored.

    >>> score_rows("no/such/folder", "no/such/model", Path("scores.parquet"))
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no folder no/such/folder here, and it cannot be a Hub id, which is org/name; check ...
    """
    settings = settings or RowScoreSettings()
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; name the scores file, for instance {out / 'scores.parquet'}")
    splits, pinned = _splits(repo_or_dir, settings)
    check_policies([model])
    # All splits come from the commit that the revision stood for when the repo was opened.
    datasets = [load_clients(repo_or_dir, split, pinned) for split in splits]

    end_of_checks()
    from fedllm_eval.policy.models import Policy, load_policy, usable_length

    policy = model if isinstance(model, Policy) else load_policy(model, settings.revision)
    length = usable_length(policy.model, settings.max_length)
    positions = [_sample(dataset, settings.max_rows_per_client, settings.seed) for dataset in datasets]
    infos = _infos(policy, length)
    chunks = list(_chunks(positions))
    num_rows = sum(len(at) for at in positions)
    row_ids = [dataset.rows["row_id"][:] for dataset in datasets]
    ids = [row_ids[which][row] for which, at in enumerate(positions) for row in at]
    kept_under = {
        "scorers": [info.revision for info in infos],
        "batch_size": settings.batch_size,
        "chunk_rows": CHUNK_ROWS,
        "rows": blake2b("\n".join(ids).encode(), digest_size=16).hexdigest(),
    }
    parts = _parts_folder(out, kept_under)
    num_done = 0
    for number, (which, at) in enumerate(chunks):
        part = parts / f"{number:06d}.parquet"
        if not part.is_file():
            rows = datasets[which].rows.select(at)
            conversations = [_conversation(row) for row in rows]
            with policy.active() as active:
                scores = difficulty(
                    active, policy.tokenizer, conversations, batch_size=settings.batch_size, max_length=length
                )
            columns = {"ifd": scores.ifd_N, "ira": scores.ira_N, "num_tokens": scores.num_tokens_N}
            write_file(part, partial(pq.write_table, pa.table(columns)))
        num_done += len(at)
        if progress is not None:
            progress("rows", num_done, num_rows)
    table = pa.concat_tables([pq.read_table(parts / f"{number:06d}.parquet") for number in range(len(chunks))])
    ifd_N, ira_N = table["ifd"].to_numpy(), table["ira"].to_numpy()
    num_scored = int(np.isfinite(ifd_N).sum())
    if not num_scored:
        raise MetricError(
            f"none of {num_rows} rows could be scored: all are longer than {length} tokens or have an empty answer; "
            "raise --max-length"
        )
    write_scores(out, ids, {"ifd": ifd_N, "ira": ira_N}, infos, {"num_tokens": table["num_tokens"].to_numpy()})
    shutil.rmtree(parts)
    return {
        "num_rows": num_rows,
        "num_scored": num_scored,
        "ifd_mean": float(np.nanmean(ifd_N)),
        "ira_mean": float(np.nanmean(ira_N)),
        "ifd_above_one_fraction": float((ifd_N > 1).sum() / num_scored),
        "revision": infos[0].revision,
    }


def _conversation(row: Mapping[str, Any]) -> list[Mapping[str, str]]:
    return list(row["messages"]) if "messages" in row else [*row["prompt"], *row["chosen"]]


def _infos(policy: "Policy", max_length: int) -> tuple[ScorerInfo, ...]:
    facts = policy.describe()
    name = Path(policy.name).name if Path(policy.name).exists() else policy.name
    # A folder has no commit: the digest of the weights says which they are.
    pins = [facts["revision"] or (facts["base_digest"] or "in memory")[:12], (facts["adapter_sha256"] or "")[:12]]
    revision = f"{name}@{'+'.join(pin for pin in pins if pin)}, max_length {max_length}"
    return (
        ScorerInfo("ifd", revision, "ratio of losses", meaning="L(y|x) / L(y): harder, not nicer"),
        ScorerInfo("ira", revision, "nats a token", meaning="L(y) - L(y|x): what the instruction is worth"),
    )


def _splits(repo_or_dir: str | Path, settings: RowScoreSettings) -> tuple[list[str], str | None]:
    """The splits to score, and the commit that they are read from; None for a folder."""
    repo, splits = open_repo(repo_or_dir, settings.data_revision), settings.splits
    if splits is None:
        present = {split_of_file(path) for path in repo.files()}
        splits = [split for split in DEFAULT_SPLITS if split in present] or ["train"]
    return list(dict.fromkeys(splits)), None if isinstance(repo, FolderRepo) else repo.revision


def _sample(dataset: ClientDataset, limit: int | None, seed: int) -> list[int]:
    if limit is None:
        return list(range(dataset.rows.num_rows))
    row_ids = dataset.rows["row_id"][:]
    kept: list[int] = []
    begin = 0
    for size in dataset.sizes.values():
        kept += [begin + at for at in sample_positions(row_ids[begin : begin + size], limit, seed, "rows")]
        begin += size
    return kept


def _chunks(positions: Sequence[list[int]]) -> Iterator[tuple[int, list[int]]]:
    for which, at in enumerate(positions):
        for start in range(0, len(at), CHUNK_ROWS):
            yield which, at[start : start + CHUNK_ROWS]


def _parts_folder(out: Path, settings: Mapping[str, Any]) -> Path:
    parts = out.with_name(f".{out.name}.parts")
    note = parts / "settings.json"
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) != settings:
        raise ResumeError(
            f"{parts} holds rows scored with another model, other rows or other settings; remove it to start again, "
            "or name another --out"
        )
    parts.mkdir(parents=True, exist_ok=True)
    write_file(note, json.dumps(dict(settings)))
    return parts
