"""Held-out scores of clients whose rows lie at sites: computed there, one line a client, put together here.

The sample of clients is that of a run on one machine. Batches are padded otherwise where clients are scored apart, so
that scores agree with those of one machine up to rounding. A site withholds clients with fewer rows than its minimum
and says how many.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fedllm_data.errors import MetricError
from fedllm_eval.per_client import sample_positions
from fedllm_eval.scores import SCORES, ClientScores
from fedllm_train.adapters.arithmetic import Parts
from fedllm_train.adapters.base_shift import PART
from fedllm_train.config import FederatedConfig
from fedllm_train.engines.remote.messages import Result, ScoreJob
from fedllm_train.engines.remote.remote_engine import RemoteEngine
from fedllm_train.engines.remote.site_clients import SiteClients
from fedllm_train.messages import codec
from fedllm_train.monitoring.held_out import HeldOut, shown_scores
from fedllm_train.monitoring.observer import Record, Step

__all__ = ["SiteHeldOut", "score_finished", "scores_at_sites"]

logger = logging.getLogger(__name__)

_COUNTS = ("num_rows", "num_tokens", "num_skipped", "num_truncated")


def scores_at_sites(
    engine: RemoteEngine,
    clients: SiteClients,
    server: Parts,
    *,
    split: str,
    step: int,
    seed: int,
    limits: tuple[int | None, int | None] = (None, None),
    name: str = "global adapter",
) -> ClientScores:
    """Let the sites score a server's state on their own held-out rows.

    Args:
        engine: with nothing that waits for an answer.
        clients: of the sites.
        server: the server's state.
        split: which rows.
        step: of the server.
        seed: seeds both samples.
        limits: score at most so many clients, and so many rows of each.
        name: of what is scored.

    Raises:
        MetricError: if no site gave a score.
    """
    sizes = clients.rows_of(split)
    ids = list(sizes)
    chosen = [ids[position] for position in sample_positions(ids, limits[0], seed, "clients")]
    owner = {
        client_id: site
        for site, facts in clients.facts.items()
        if split in facts.splits
        for client_id in facts.splits[split].rows
    }
    state = codec.encode({part: server[part] for part in ("adapter", PART) if part in server})
    by_site: dict[str, list[str]] = {}
    for client_id in chosen:
        by_site.setdefault(owner[client_id], []).append(client_id)
    jobs = {
        site: [(ScoreJob(step=step, split=split, clients=own, max_rows_per_client=limits[1], seed=seed), state)]
        for site, own in by_site.items()
    }
    rows: dict[str, dict[str, Any]] = {}
    withheld, silent = 0, []
    for site, result, _, reason in engine.results_of(jobs):
        if result is None or reason is not None:
            silent.append(f"{site} ({reason})")
            continue
        withheld += result.num_withheld
        rows |= _rows_of(result, by_site[site], site, split)
    if not rows:
        raise MetricError(f"no site gave a score; {'; '.join(silent) or 'all were withheld'}")
    notes = []
    if withheld:
        notes.append(f"scores of {withheld} clients were withheld: they have fewer rows than their site's minimum")
    notes += [f"no scores came from {each}" for each in silent]
    if len(chosen) < len(ids):
        notes.append(f"{len(chosen)} of {len(ids)} clients were sampled (seed {seed})")
    return ClientScores(
        task=clients.task,
        split=split,
        table=_table(rows, split),
        policy={"name": name},
        reference=None,
        dataset={
            "name": clients.name,
            "revision": clients.revision,
            "num_clients": len(ids),
            "num_rows": sum(sizes.values()),
        },
        settings={"max_clients": limits[0], "max_rows_per_client": limits[1], "seed": seed},
        notes=tuple(notes),
    )


def _rows_of(result: Result, asked: Sequence[str], site: str, split: str) -> dict[str, dict[str, Any]]:
    """What a site says of its clients, one entry a client; refused where it is no table of those that were asked."""
    columns = result.scores or {}
    ids = columns.get("client_id", [])
    if any(len(column) != len(ids) for column in columns.values()) or not set(ids) <= set(asked):
        raise MetricError(f"site {site!r} sent scores that are no table of the clients it was asked for")
    found: dict[str, dict[str, Any]] = {}
    for position, client_id in enumerate(ids):
        entry = {name: columns[name][position] for name in columns if name in _COUNTS or name in SCORES}
        for name, value in entry.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not is_number and not (name in SCORES and value is None):
                raise MetricError(f"site {site!r} sent {value!r} as {name} of a client in {split}")
            if name in _COUNTS and (not isinstance(value, int) or value < 0):
                raise MetricError(f"site {site!r} sent {value!r} as {name} of a client in {split}")
        if missing := [name for name in _COUNTS if name not in entry]:
            raise MetricError(f"site {site!r} sent scores without {missing[0]}")
        found[str(client_id)] = entry
    return found


def _table(rows: Mapping[str, Mapping[str, Any]], split: str) -> pa.Table:
    ids = sorted(rows)
    names = [name for name in SCORES if any(name in rows[client_id] for client_id in ids)]
    columns: dict[str, Any] = {
        "client_id": pa.array(ids, pa.string()),
        "split": pa.array([split] * len(ids), pa.string()),
        **{name: pa.array([rows[client_id][name] for client_id in ids], pa.int64()) for name in _COUNTS},
        **{name: pa.array([rows[client_id].get(name) for client_id in ids], pa.float64()) for name in names},
    }
    return pa.table(columns)


class SiteHeldOut(HeldOut):
    """Scores the server's state every `eval_every` rounds, at the sites."""

    def __init__(
        self,
        config: FederatedConfig,
        clients: SiteClients,
        engine: RemoteEngine,
        *,
        start: Parts,
        save: Callable[[Parts, Path], None],
        run: Path,
    ) -> None:
        """Prepare to score; see `HeldOut`.

        Args:
            config: the settings of the federation.
            clients: of the sites.
            engine: that leads there.
            start: the server's state before round 0.
            save: writes a server's adapter into a folder as PEFT does.
            run: the run folder.
        """
        super().__init__(config, clients, None, None, start=start, save=save, run=run)  # type: ignore[arg-type]
        self._sites, self._engine, self._step = clients, engine, 0

    def stepped(self, step: Step) -> Record:
        """Score the adapter of a round, if that is due, and keep the best one."""
        self._step = step.index
        return super().stepped(step)

    def score(self, server: Parts) -> dict[str, Any]:
        """Return the scores of a server's adapter: mean over clients with its interval, worst decile, counts."""
        config = self._config
        try:
            scores = scores_at_sites(
                self._engine,
                self._sites,
                server,
                split=config.eval_split,
                step=self._step,
                seed=config.seed,
                limits=(config.eval_clients, config.eval_rows_per_client),
            )
            return {"split": config.eval_split, **shown_scores(scores.summary()), **_note(scores)}
        except MetricError as error:
            return {"split": config.eval_split, "problem": str(error)}


def _note(scores: ClientScores) -> dict[str, Any]:
    """What a reader of the record must know of clients that were not scored."""
    told = [note for note in scores.notes if "sampled" not in note]
    return {"notes": told} if told else {}


def score_finished(
    engine: RemoteEngine, clients: SiteClients, states: Mapping[str, tuple[Parts, Path]], config: FederatedConfig
) -> None:
    """Let the sites score states on every held-out split they have, and write a results folder of each.

    Args:
        engine: that leads to the sites.
        clients: of the sites.
        states: name -> the server's state and the folder of its results, which `fedllm-eval` reads.
        config: the settings of the federation, with the limits of scoring.
    """
    from fedllm_eval.reporting.results_folder import write_results
    from fedllm_eval.running.assemble import make_results

    limits = (None, config.eval_rows_per_client)
    for name, (state, folder) in states.items():
        tables = []
        for split in ("test", "unseen"):
            if not clients.rows_of(split):
                continue
            try:
                scores = scores_at_sites(
                    engine,
                    clients,
                    state,
                    split=split,
                    step=config.num_rounds,
                    seed=config.seed,
                    limits=limits,
                    name=name,
                )
            except MetricError as error:
                logger.warning("split %s of %s was not scored at the sites: %s", split, name, error)
                continue
            tables.append(scores)
        if tables:
            write_results(make_results(tables, seed=config.seed), folder)
