"""What the scores of several policies on the same clients say together: languages, gains, transfer, perplexity.

Pure functions of `Results` and per-row tables; no model. Intervals take clients as the unit throughout: a language's
score is the mean over the clients that have rows in it, each by its own rows of that language.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedllm_eval.results import Results
from fedllm_eval.running.gains import NoSharedClients, client_gains
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.collaboration import recovered_fraction
from fedllm_eval.scoring.comparisons import holm
from fedllm_eval.scoring.intervals import mean_interval
from fedllm_eval.scoring.transfer import transfer_matrix

__all__ = ["gain_records", "gain_table", "language_records", "perplexity", "transfer_records"]

PAIRS = (
    ("policy", "base"),
    ("policy", "alone"),
    ("policy", "centralised"),
    ("personal", "base"),
    ("personal", "policy"),
    ("personal", "alone"),
    ("personal", "centralised"),
)
"""Who is set against whom, as far as both were scored."""
EMPTY_AGAINST_BASE = ("implicit_reward_accuracy",)
"""The base's own rewards are all 0, and a tie is no hit: a gain over that says nothing."""


def perplexity(score: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the perplexity that a loss in nats per token stands for, by token and by client.

    Args:
        score: an item of `scores.summarise`; numbers may be None.

    Returns:
        `by_token` with `ci_low`, `ci_high`, and `by_client` (of the mean loss over clients) with
        `by_client_ci_low`, `by_client_ci_high`; None where the loss is undefined.

    >>> perplexity({"weighted_mean": 0.0, "weighted_ci_low": None, "weighted_ci_high": None,
    ...             "mean": 0.0, "ci_low": None, "ci_high": None})["by_token"]
    1.0
    """
    names = {
        "by_token": "weighted_mean",
        "ci_low": "weighted_ci_low",
        "ci_high": "weighted_ci_high",
        "by_client": "mean",
        "by_client_ci_low": "ci_low",
        "by_client_ci_high": "ci_high",
    }
    values = {name: score[of] for name, of in names.items()}
    # Beyond e^700 there is no number to show.
    return {name: None if value is None or value > 700 else math.exp(value) for name, value in values.items()}


def language_records(rows: pa.Table) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the scores by language of the rows.

    Args:
        rows: a per-row table, as `ClientScores.rows`.

    Returns:
        split -> score -> language -> `mean` over clients with `ci_low`, `ci_high` (NaN for one client), `num_clients`
        and `num_rows`; languages in the order of their rows, most first. A split whose rows all lack a language is
        left out.

    >>> table = pa.table({"split": ["test"] * 3, "client_id": ["a", "a", "b"], "row_id": ["1", "2", "3"],
    ...                   "language": ["de", "de", "de"], "num_tokens": [1, 3, 2], "heldout_loss": [1.0, 2.0, 3.0]})
    >>> found = language_records(table)["test"]["heldout_loss"]["de"]
    >>> found["mean"], found["num_clients"], found["num_rows"]  # a: (1 + 3 * 2) / 4 = 1.75
    (2.375, 2, 3)
    """
    records: dict[str, dict[str, dict[str, Any]]] = {}
    for split in rows["split"].unique().to_pylist():
        of_split = rows.filter(pc.equal(rows["split"], split))
        if set(of_split["language"].unique().to_pylist()) <= {"und", None}:
            continue
        for name in (name for name in SCORES if name in rows.column_names):
            cells = _cells(of_split, name)
            by_language: dict[str, list[tuple[float, int]]] = {}
            for (language, _), (value, num) in cells.items():
                by_language.setdefault(language, []).append((value, num))
            order = sorted(by_language, key=lambda code: (-sum(num for _, num in by_language[code]), code))
            for language in order:
                values = [value for value, _ in by_language[language]]
                interval = mean_interval(values, bounds=SCORES[name].bounds)
                records.setdefault(split, {}).setdefault(name, {})[language] = {
                    "mean": interval.mean,
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                    "num_clients": interval.num_clients,
                    "num_rows": sum(num for _, num in by_language[language]),
                }
    return records


def gain_records(policies: Mapping[str, Results], *, seed: int = 0) -> list[dict[str, Any]]:
    """Return what the clients gain, for every pair of policies that were both scored, split by split.

    Args:
        policies: label -> results; the labels of `PAIRS`. Of `alone` only clients with an adapter of their own.
        seed: seeds the sign flips.

    Returns:
        One item per pair, split and score: `policy`, `against`, `split`, `score`, `unit`, `higher_is_better`, what
        `gains.client_gains` gives (`gain` with interval, p-value, shares, `by_client`), and `p_holm`, corrected over
        all items. Under `alone`, where `centralised` is there as well, also `recovered_fraction`.

    Raises:
        MetricError: if two policies were not scored alike.
    """
    found = []
    for ours, theirs in PAIRS:
        if ours not in policies or theirs not in policies:
            continue
        own, other = policies[ours], policies[theirs]
        for split in own.summary["splits"]:
            if split not in other.summary["splits"]:
                continue
            for name in (name for name in SCORES if _has(own, name) and _has(other, name)):
                if theirs == "base" and name in EMPTY_AGAINST_BASE:
                    continue
                try:
                    record = client_gains(own, base=other, score=name, split=split, seed=seed)
                except NoSharedClients:
                    continue
                gain = record.pop("against")["base"]
                item = {"policy": ours, "against": theirs, **record, **gain}
                if theirs == "alone" and "centralised" in policies:
                    item["recovered_fraction"] = _recovered(own, other, policies["centralised"], name, split)
                found.append(item)
    p_values = [math.nan if item["p_value"] is None else item["p_value"] for item in found]
    for item, p_holm in zip(found, holm(p_values), strict=True):
        item["p_holm"] = None if math.isnan(p_holm) else p_holm
    return found


def gain_table(gains: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return the gain of every client as a table: client_id, split, score, policy, against, gain."""
    rows: dict[str, list[Any]] = {name: [] for name in ("client_id", "split", "score", "policy", "against", "gain")}
    for item in gains:
        for client_id, gain in item["by_client"].items():
            for name in ("split", "score", "policy", "against"):
                rows[name].append(item[name])
            rows["client_id"].append(client_id)
            rows["gain"].append(gain)
    types = {"gain": pa.float64()}
    return pa.table({name: pa.array(values, types.get(name, pa.string())) for name, values in rows.items()})


def transfer_records(rows: Mapping[str, pa.Table]) -> list[dict[str, Any]]:
    """Return the matrix of scores by language trained on and language tested on.

    Args:
        rows: language trained on -> per-row table of that policy.

    Returns:
        One item per split and score: `trained_on`, `tested_on`, `mean` and `num_items` (lists of rows; clients are the
        items), `in_language`, `out_of_language`, `transfer_gap`, `best_source`.
    """
    found = []
    first = next(iter(rows.values()))
    for split in first["split"].unique().to_pylist():
        for name in (name for name in SCORES if all(name in table.column_names for table in rows.values())):
            values: list[float] = []
            trained: list[str] = []
            tested: list[str] = []
            for language, table in rows.items():
                for (of, _), (value, _) in _cells(table.filter(pc.equal(table["split"], split)), name).items():
                    values.append(value)
                    trained.append(language)
                    tested.append(of)
            if not values:
                continue
            about = SCORES[name]
            matrix = transfer_matrix(
                values, trained, tested, higher_is_better=about.higher_is_better, rounding=about.rounding
            )
            found.append(
                {
                    "split": split,
                    "score": name,
                    "unit": SCORES[name].unit,
                    "higher_is_better": SCORES[name].higher_is_better,
                    "trained_on": list(matrix.trained_on),
                    "tested_on": list(matrix.tested_on),
                    "mean": matrix.mean_RC.tolist(),
                    "num_items": matrix.num_items_RC.tolist(),
                    "in_language": matrix.in_language,
                    "out_of_language": matrix.out_of_language,
                    "transfer_gap": matrix.transfer_gap,
                    "best_source": matrix.best_source,
                }
            )
    return found


def _cells(rows: pa.Table, name: str) -> dict[tuple[str, str], tuple[float, int]]:
    """(language, client) -> score over the client's rows of that language, and how many those are."""
    scored = rows.filter(pc.is_valid(rows[name]))
    weights = scored["num_tokens"] if SCORES[name].weight == "num_tokens" else pa.array(np.ones(scored.num_rows))
    weight_N: npt.NDArray[np.float64] = np.asarray(weights, dtype=np.float64)
    value_N: npt.NDArray[np.float64] = np.asarray(scored[name], dtype=np.float64)
    sums = pa.table(
        {
            "language": scored["language"].fill_null("und"),
            "client_id": scored["client_id"],
            "weighted": weight_N * value_N,
            "weight": weight_N,
        }
    ).group_by(["language", "client_id"])
    grouped = sums.aggregate([("weighted", "sum"), ("weight", "sum"), ("weight", "count")]).sort_by(
        [("language", "ascending"), ("client_id", "ascending")]
    )
    columns = (
        grouped[column].to_pylist()
        for column in ("language", "client_id", "weighted_sum", "weight_sum", "weight_count")
    )
    return {
        (language, client_id): (weighted / weight, num)
        for language, client_id, weighted, weight, num in zip(*columns, strict=True)
    }


def _has(results: Results, name: str) -> bool:
    return name in results.per_client.column_names


def _recovered(own: Results, alone: Results, centralised: Results, name: str, split: str) -> float | None:
    by_client = [_scores(results, name, split) for results in (own, alone, centralised)]
    shared = set.intersection(*map(set, by_client))
    if not shared:
        return None
    means = [math.fsum(scores[client] for client in sorted(shared)) / len(shared) for scores in by_client]
    fraction = recovered_fraction(*means)
    return fraction if math.isfinite(fraction) else None


def _scores(results: Results, name: str, split: str) -> dict[str, float]:
    if not _has(results, name):
        return {}
    columns = (results.per_client[column].to_pylist() for column in ("split", "client_id", name))
    return {
        client: value for where, client, value in zip(*columns, strict=True) if where == split and value is not None
    }
