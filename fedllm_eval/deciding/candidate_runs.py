"""What the run folders of a decision tell beside the scores: price, date, rows, and how training alone is measured."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fedllm_data.errors import ConfigError
from fedllm_data.repo import CLIENTS_FILE
from fedllm_eval.deciding.partner_costs import RunPrice, price_of_runs
from fedllm_eval.deciding.scored_candidates import Candidate, Given
from fedllm_eval.deciding.stated_lines import StatedPrices
from fedllm_eval.plain_json import without_nan
from fedllm_eval.policy.run_folder import CONFIG_FILE, ROUNDS_FILE, find_config, is_private, section
from fedllm_eval.running.run_left_behind import clients_table_of, left_behind_of_run

__all__ = [
    "NUM_ALONE",
    "alone_commands",
    "left_behind_of_candidate",
    "price_of_candidate",
    "run_at_hand",
    "run_dates",
    "train_rows",
]

NUM_ALONE = 12
"""Partners that are to train alone: with fewer than six held-out scores no difference can be shown, and some have no
held-out rows."""
_SCORE_FLAGS = {"max_length": "--max-length", "max_clients": "--max-clients", "max_rows_per_client": "--max-rows"}


def price_of_candidate(
    given: Given, candidate: Candidate, also: Sequence[Path], prices: StatedPrices
) -> RunPrice | None:
    """Return what one run of a candidate took, with the runs that it started from, back to what was before.

    Args:
        given: all that is decided about; a run that another started from is found among it.
        candidate: whose price; None is returned where its run folder is not at hand, nor named by `also`.
        also: further run folders that count; of a single candidate whose run is not at hand, the run itself.
        prices: lines and prices.

    Raises:
        ConfigError: if one of `also` is no run folder, or rounds cannot be read.
    """
    run = run_at_hand(candidate)
    for place in also:
        if not (place / ROUNDS_FILE).is_file():
            raise ConfigError(f"--also-cost {place} has no {ROUNDS_FILE}; name a run folder")
    if run is None:
        # Scores whose run lies elsewhere now: the runs that are named are all of it, for one candidate alone.
        return price_of_runs(also, prices) if also and len(given.candidates) == 1 else None
    by_adapter = {
        one.results.summary["policy"].get("adapter_sha256"): place
        for other in given.candidates
        for one, place in zip(other.method.runs, other.runs, strict=True)
        if place is not None
    }
    origin = given.before.runs[0].results.summary["policy"].get("adapter_sha256")
    chain, now = [run], run
    while (config := find_config(now)) is not None:
        start = config.get("start_adapter")
        now_next = None if start is None or start == origin else by_adapter.get(start)
        if now_next is None or now_next in chain:
            break
        chain.append(now := now_next)
    return price_of_runs([*chain, *(place for place in also if place not in chain)], prices)


def run_at_hand(candidate: Candidate) -> Path | None:
    """Return the first run of a candidate whose folder with its rounds is at hand, if there is one."""
    return next((run for run in candidate.runs if run is not None and (run / ROUNDS_FILE).is_file()), None)


def left_behind_of_candidate(given: Given, candidate: Candidate, seed: int) -> dict[str, Any] | None:
    """Return what each group of clients gave to a candidate's first run and how it is served; None if not told.

    Raises:
        ConfigError: if its rounds or its client table cannot be read.
    """
    run = run_at_hand(candidate)
    if run is None:
        return None
    results = candidate.method.runs[candidate.runs.index(run)].results
    try:
        table = pq.read_table(Path(str(given.first.results.summary["dataset"]["name"])) / CLIENTS_FILE)
    except (OSError, pa.ArrowInvalid):
        table = clients_table_of(run)
    found: dict[str, Any] | None = without_nan(left_behind_of_run(run, table, results, seed=seed))
    return found


def alone_commands(given: Given, candidate: Candidate) -> tuple[str, ...]:
    """Return the two commands that tell what going alone gives: train some clients alone, and score the run again.

    They train for as many steps as the common model made, on the rows and settings of the run. A run with differential
    privacy has none: its settings refuse to be those of one client.
    """
    at = next((at for at, run in enumerate(candidate.runs) if run is not None), None)
    run = None if at is None else candidate.runs[at]
    config = None if run is None else find_config(run)
    if run is None or at is None or config is None or is_private(config):
        return ()
    federated = config.get("federated", {})
    steps = (federated.get("local_steps") or 0) * (federated.get("num_rounds") or 0)
    if not steps or config.get("task") not in ("sft", "dpo", "kto"):
        return ()
    num_alone = min(NUM_ALONE, section(config, "data").get("num_clients") or NUM_ALONE)
    scored = candidate.method.runs[at]
    summary = scored.results.summary
    alone = f"{run}-alone"
    flags = [
        word
        for name, flag in _SCORE_FLAGS.items()
        if summary["settings"].get(name) is not None
        for word in (flag, str(summary["settings"][name]))
    ]
    train = ["fedllm-train", str(config["task"]), "--config", str(run / CONFIG_FILE), "--strategy", "local"]
    train += ["--num-rounds", "1", "--cohort-size", str(num_alone), "--local-steps", str(steps), "--out", alone]
    score = ["fedllm-eval", "run", str(run), "--data", str(summary["dataset"]["name"]), *flags, "--base-too"]
    return shlex.join(train), shlex.join([*score, "--alone", alone, "--out", f"{alone}/scores"])


def train_rows(given: Given) -> dict[str, int] | None:
    """Return client -> its rows for training, from the corpus where its folder is at hand; None where it is not."""
    table = Path(str(given.first.results.summary["dataset"]["name"])) / CLIENTS_FILE
    try:
        found = pq.read_table(table, columns=["client_id", "num_train_rows"])
    except (OSError, pa.ArrowInvalid):
        return None
    return dict(zip(found["client_id"].to_pylist(), found["num_train_rows"].to_pylist(), strict=True))


def run_dates(given: Given) -> tuple[tuple[str, str], ...]:
    """Return each run folder at hand with the day (UTC) on which its last round was written, as the file has it."""
    runs = [run for candidate in given.candidates for run in candidate.runs if run is not None]
    return tuple(
        (str(run), datetime.fromtimestamp((run / ROUNDS_FILE).stat().st_mtime, UTC).date().isoformat())
        for run in runs
        if (run / ROUNDS_FILE).is_file()
    )
