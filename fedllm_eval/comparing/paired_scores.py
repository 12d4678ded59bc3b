"""The scores of a method as arrays (seeds by clients, and rows where a results folder keeps them), and their test.

A results folder may hold `per_row.parquet` beside `per_client.parquet`: `split`, `client_id`, `row_id`, `num_tokens`
and one column per score, null where a row has none. A client's score is the mean over its rows, weighted by
`num_tokens` where the score is per token. Where both sides keep rows, rows are resampled within clients.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fedllm_data.errors import ConfigError
from fedllm_eval.comparing.compared_methods import Method, ScoredRun
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.comparisons import MethodDifference, method_difference, two_level_std_error
from fedllm_eval.scoring.intervals import NUM_SIGN_PATTERNS

__all__ = ["client_scores", "paired_difference", "paired_table", "rows_std_error"]

Array = npt.NDArray[np.float64]
ROWS_FILE = "per_row.parquet"
CONFIDENCE = 0.95
PATTERNS_PER_TEST = 100
"""The smallest p-value is then 1 / (100 tests), which no correction lifts above 0.01."""


def client_scores(run: ScoredRun, split: str, name: str) -> dict[str, float]:
    """Return the finite scores of one run's clients."""
    table = run.results.per_client
    columns = (table[column].to_pylist() for column in ("client_id", "split", name))
    return {
        client_id: score
        for client_id, of_split, score in zip(*columns, strict=True)
        if of_split == split and score is not None and math.isfinite(score)
    }


def paired_table(a: Method, b: Method, split: str, name: str) -> tuple[list[str], Array, Array, int]:
    """Return the clients that every seed of both methods scored, and their scores as (seeds, clients).

    The last value is how many clients any of the runs scored.
    """
    sides = [[client_scores(run, split, name) for run in method.runs] for method in (a, b)]
    every = [scores.keys() for side in sides for scores in side]
    common = sorted(set.intersection(*map(set, every)))
    tables = [np.array([[scores[client] for client in common] for scores in side]) for side in sides]
    return common, tables[0], tables[1], len(set.union(*map(set, every)))


def paired_difference(
    a: Method,
    b: Method,
    name: str,
    tables: tuple[Array, Array],
    *,
    std_error: float | None,
    num_tests: int,
    seed: int,
) -> MethodDifference:
    """Return the difference b - a in one score, with the test that every claim of a comparison rests on.

    Args:
        a: the one that is set against.
        b: the other.
        name: of the score.
        tables: (seeds, clients) of a and of b, as `paired_table` gives them.
        std_error: as `rows_std_error` gives it.
        num_tests: tests that are corrected together.
        seed: seeds the sign flips.
    """
    return method_difference(
        *tables,
        paired_seeds=None not in a.seeds and a.seeds == b.seeds and len(a.seeds) > 1,
        a_fixed=a.is_fixed,
        b_fixed=b.is_fixed,
        std_error=std_error,
        rounding=SCORES[name].rounding,
        confidence=CONFIDENCE,
        num_patterns=max(NUM_SIGN_PATTERNS, PATTERNS_PER_TEST * num_tests),
        seed=seed,
    )


def rows_std_error(a: Method, b: Method, split: str, name: str, clients: Sequence[str], seed: int) -> float | None:
    """Return the two-level standard error of the difference, or None where a run keeps no rows.

    Scores of a row are averaged over the seeds of a method first.

    Raises:
        ConfigError: if a rows file cannot be read.
    """
    sides = []
    for method in (a, b):
        found = [_rows(run, split, name) for run in method.runs]
        if any(rows is None for rows in found):
            return None
        sides.append([rows for rows in found if rows is not None])
    wanted = set(clients)
    keys = set.intersection(*(set(rows) for side in sides for rows in side))
    common = sorted(key for key in keys if key[0] in wanted)
    if {client for client, _ in common} != wanted:
        return None
    means = [np.mean([[rows[key][0] for key in common] for rows in side], axis=0) for side in sides]
    weights = [sides[0][0][key][1] for key in common]
    return two_level_std_error(means[0], means[1], weights, [client for client, _ in common], seed=seed)


def _rows(run: ScoredRun, split: str, name: str) -> Mapping[tuple[str, str], tuple[float, float]] | None:
    path = run.folder / ROWS_FILE
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())[:120]}; score again") from error
    if not {"split", "client_id", "row_id", name} <= set(table.column_names):
        return None
    per_token = name in SCORES and SCORES[name].weight == "num_tokens" and "num_tokens" in table.column_names
    weights: list[Any] = table["num_tokens"].to_pylist() if per_token else [1.0] * table.num_rows
    columns = (table[column].to_pylist() for column in ("split", "client_id", "row_id", name))
    return {
        (client_id, row_id): (score, float(weight))
        for (of_split, client_id, row_id, score), weight in zip(zip(*columns, strict=True), weights, strict=True)
        if of_split == split and score is not None and math.isfinite(score) and weight
    }
