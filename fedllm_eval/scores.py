"""What is measured of a policy on each client, and how those scores are summed up. No model here.

Symbols: K clients. `SCORES` is the whole list of scores: the table's columns, the results file's keys and the
directions of "better" come from it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedllm_data.errors import MetricError
from fedllm_data.schema import Task
from fedllm_data.wording.catalogue import plural_words, words
from fedllm_eval.scoring.intervals import mean_interval
from fedllm_eval.scoring.spread import client_spread

__all__ = ["SCORES", "ClientScores", "Score", "summarise", "warnings_about"]

FEW_CLIENTS = 10
NATS_ROUNDING = 1e-5
"""Five times the largest difference in nats per token that batches of another shape made to a 135M model's loss."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One column of the per-client table."""

    task: Task
    unit: str
    higher_is_better: bool
    weight: Literal["num_rows", "num_tokens"]
    """What a client counts by in the weighted mean, which is what the pooled rows would give."""
    needs_reference: bool = False
    bounds: tuple[float, float] = (-math.inf, math.inf)
    """Smallest and largest value; no interval reaches beyond."""
    rounding: float = 0.0
    """An absolute difference of two scores that is float32 arithmetic and none of the policies'."""
    summary: str


SCORES: dict[str, Score] = {
    "heldout_loss": Score(
        task="sft",
        unit="nats per token",
        bounds=(0.0, math.inf),
        higher_is_better=False,
        weight="num_tokens",
        rounding=NATS_ROUNDING,
        summary="negative log-likelihood of the assistant's tokens",
    ),
    "implicit_reward_accuracy": Score(
        task="preference",
        unit="fraction of pairs",
        bounds=(0.0, 1.0),
        higher_is_better=True,
        weight="num_rows",
        needs_reference=True,
        summary="share of pairs whose chosen answer gained more over the reference; ties do not count",
    ),
    "implicit_reward_margin": Score(
        task="preference",
        unit="beta x nats",
        higher_is_better=True,
        weight="num_rows",
        needs_reference=True,
        rounding=NATS_ROUNDING,
        summary="implicit reward of the chosen minus that of the rejected answer",
    ),
    "implicit_reward_loss": Score(
        task="preference",
        unit="nats",
        bounds=(0.0, math.inf),
        higher_is_better=False,
        weight="num_rows",
        needs_reference=True,
        rounding=NATS_ROUNDING,
        summary="DPO's loss; log 2 where policy and reference agree",
    ),
    "ranking_accuracy": Score(
        task="preference",
        unit="fraction of pairs",
        bounds=(0.0, 1.0),
        higher_is_better=True,
        weight="num_rows",
        summary="share of pairs whose chosen answer is the likelier one",
    ),
    "ranking_accuracy_per_token": Score(
        task="preference",
        unit="fraction of pairs",
        bounds=(0.0, 1.0),
        higher_is_better=True,
        weight="num_rows",
        summary="the same by mean log-probability per token, which does not favour short answers",
    ),
    "chosen_loss": Score(
        task="preference",
        unit="nats per token",
        bounds=(0.0, math.inf),
        higher_is_better=False,
        weight="num_tokens",
        rounding=NATS_ROUNDING,
        summary="negative log-likelihood of the chosen answer's tokens",
    ),
}


@dataclass(frozen=True)
class ClientScores:
    """The scores of one policy on the clients of one split.

    `table` has a row per client: client_id, split, num_rows (scored), num_tokens (of the scored answers; for pairs of
    the chosen ones), num_skipped (rows without an answer token within `max_length`), num_truncated (scored rows that
    were cut), and a column per score, null for a client of whom no row could be scored.
    """

    task: Task
    split: str
    table: pa.Table
    policy: Mapping[str, Any]
    reference: Mapping[str, Any] | None
    dataset: Mapping[str, Any]
    """name, revision, and how many clients and rows the split holds in all."""
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = field(default=())
    """What a reader must know before trusting the numbers, one sentence each; no client is named in them."""
    never_trained: tuple[str, ...] = ()
    """Clients whose own adapter is still what the run started from; of personal adapters alone."""
    took_no_part: tuple[str, ...] = ()
    """Clients of the split that took part in no round of the run, where others of it did."""
    rows: pa.Table | None = None
    """One row per scored row: split, client_id, row_id, language, num_tokens, and one column per score."""

    @property
    def score_names(self) -> list[str]:
        """The scores that could be computed."""
        return [name for name in SCORES if name in self.table.column_names]

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return every score's distribution over the clients, as `summarise` gives it."""
        return summarise(self.table)


def summarise(table: pa.Table) -> dict[str, dict[str, Any]]:
    """Return mean, interval, worst decile and spread over clients for every score of a per-client table.

    Args:
        table: as in `ClientScores`; clients without a score are left out.

    Returns:
        For each score: `mean` over clients with `ci_low`, `ci_high` (95 %); `weighted_mean` over rows or tokens
        (`weighted_by`) with its own interval; `worst_decile`, `worst`, `best`, `std`, `jain`,
        `gini`; `num_clients`, `num_items` (rows, or tokens where the unit is per token), `unit`, `higher_is_better`.
        Values that the data do not define are NaN.

    Raises:
        MetricError: if no client has a score.

    >>> table = pa.table({"num_rows": [1, 3], "num_tokens": [10, 30], "heldout_loss": [2.0, 1.0]})
    >>> summary = summarise(table)["heldout_loss"]
    >>> summary["mean"], summary["weighted_mean"], summary["worst_decile"], summary["num_items"]
    (1.5, 1.25, 2.0, 40)
    """
    summaries = {}
    for name, score in SCORES.items():
        if name not in table.column_names:
            continue
        x_K = _floats(table, name)
        scored_K = np.isfinite(x_K)
        if not scored_K.any():
            raise MetricError(
                f"{name}: none of the {table.num_rows} clients has a row that can be scored; raise max_length or "
                "check the split"
            )
        x_K, weight_K = x_K[scored_K], _floats(table, score.weight)[scored_K]
        over_clients = mean_interval(x_K, bounds=score.bounds)
        weighted = mean_interval(x_K, weight_K, bounds=score.bounds)
        spread = client_spread(x_K, higher_is_better=score.higher_is_better)
        summaries[name] = {
            "mean": over_clients.mean,
            "ci_low": over_clients.low,
            "ci_high": over_clients.high,
            "weighted_mean": weighted.mean,
            "weighted_ci_low": weighted.low,
            "weighted_ci_high": weighted.high,
            "weighted_by": score.weight.removeprefix("num_"),
            "worst_decile": spread.worst_decile,
            "worst": spread.worst,
            "best": spread.best,
            "std": spread.std,
            "jain": spread.jain,
            "gini": spread.gini,
            "num_clients": spread.num_clients,
            "num_items": int(weight_K.sum()),
            "unit": score.unit,
            "higher_is_better": score.higher_is_better,
        }
    return summaries


def warnings_about(table: pa.Table) -> list[str]:
    """Return what makes the numbers of a per-client table less certain than they look, one sentence each.

    >>> table = pa.table({"num_rows": [1, 0], "num_skipped": [0, 2], "num_truncated": [1, 0]})
    >>> for sentence in warnings_about(table):
    ...     print(sentence)
    2 of 3 rows keep no answer token within max_length and are left out
    1 of 1 scored rows were cut at max_length
    1 of 2 clients have no scored row and are left out
    only 1 client: an interval over so few holds only where scores are about normal
    """
    num_rows, num_skipped, num_truncated = (
        int(_floats(table, column).sum()) for column in ("num_rows", "num_skipped", "num_truncated")
    )
    num_scored = int((_floats(table, "num_rows") > 0).sum())
    sentences = []
    if num_skipped:
        num_asked = num_rows + num_skipped
        sentences.append(
            words(
                "{num} of {total} rows keep no answer token within max_length and are left out",
                num=num_skipped,
                total=num_asked,
            )
        )
    if num_truncated:
        sentences.append(
            words("{num} of {total} scored rows were cut at max_length", num=num_truncated, total=num_rows)
        )
    if num_scored < table.num_rows:
        sentences.append(
            words(
                "{num} of {total} clients have no scored row and are left out",
                num=table.num_rows - num_scored,
                total=table.num_rows,
            )
        )
    if num_scored < FEW_CLIENTS:
        sentences.append(
            plural_words(
                "only {num} client: an interval over so few holds only where scores are about normal",
                "only {num} clients: an interval over so few holds only where scores are about normal",
                num_scored,
            )
        )
    return sentences


def _floats(table: pa.Table, column: str) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = table[column].to_numpy().astype(np.float64)
    return values
