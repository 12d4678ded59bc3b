"""The results of one evaluation, put together from what was scored: pure functions of tables and records.

`make_results` gathers the splits of one policy; `join_results` adds the other policies and everything that was found
out beside the scores.
"""

import importlib.metadata
from collections.abc import Mapping, Sequence, Set
from typing import Any

import pyarrow as pa

from fedllm_data.errors import MetricError
from fedllm_eval.plain_json import without_nan
from fedllm_eval.results import FORMAT, Results
from fedllm_eval.running.client_tables import (
    gain_records,
    gain_table,
    language_records,
    perplexity,
    transfer_records,
)
from fedllm_eval.running.suite_records import suite_changes, suite_records
from fedllm_eval.running.worst_served import worst_served_records
from fedllm_eval.scores import ClientScores
from fedllm_eval.scoring.intervals import interval_record
from fedllm_eval.suites import SuiteResult

__all__ = ["join_results", "make_results", "suites_alone"]

NO_DATASET = "suites alone, no clients"
"""Stands for the name of a dataset where only suites were run."""
PACKAGES = ("fedllm-commons", "torch", "transformers", "peft", "datasets", "numpy", "scipy")


def make_results(scores: Sequence[ClientScores], *, seed: int = 0) -> Results:
    """Gather the scores of one policy on several splits.

    Args:
        scores: one item per split, with the same policy, reference, dataset revision and settings.
        seed: the seed of the evaluation, for the record.

    Raises:
        MetricError: if there are no scores, a split comes twice, or the items differ in what was scored or how.
    """
    if not scores:
        raise MetricError("no split was scored; name at least one split that the dataset has")
    first = scores[0]
    for other in scores[1:]:
        for what in ("task", "policy", "reference", "settings"):
            if getattr(other, what) != getattr(first, what):
                raise MetricError(f"splits {first.split} and {other.split} differ in {what}; score them alike")
    if len({item.split for item in scores}) < len(scores):
        raise MetricError("a split was scored twice; name each split once")
    summary = {
        "format": FORMAT,
        "task": first.task,
        "policy": dict(first.policy),
        "reference": None if first.reference is None else dict(first.reference),
        "dataset": {"name": first.dataset["name"], "revision": first.dataset["revision"]},
        "settings": dict(first.settings),
        "interval": interval_record(seed),
        "splits": {
            item.split: {
                "num_clients": item.table.num_rows,
                "num_clients_in_split": item.dataset["num_clients"],
                "num_rows_in_split": item.dataset["num_rows"],
                **{
                    column: int(sum(item.table[column].to_pylist()))
                    for column in ("num_rows", "num_tokens", "num_skipped", "num_truncated")
                },
                "scores": _with_perplexity(item.summary()),
                "notes": list(item.notes),
                **{name: list(found) for name in ("never_trained", "took_no_part") if (found := getattr(item, name))},
            }
            for item in scores
        },
        "versions": _versions(),
    }
    rows = [item.rows for item in scores if item.rows is not None]
    return Results(
        without_nan(summary),
        pa.concat_tables([item.table for item in scores]),
        pa.concat_tables(rows) if len(rows) == len(scores) else None,
    )


def suites_alone(
    policy: Mapping[str, Any], suites: Mapping[tuple[str, str], SuiteResult], *, seed: int = 0
) -> Results:
    """Gather the suites of a policy that was not scored on any client's rows.

    Args:
        policy: what identifies it, as `describe` gives it.
        suites: (label, suite) -> result.
        seed: the seed of the evaluation, for the record.
    """
    summary = {
        "format": FORMAT,
        "task": None,
        "policy": dict(policy),
        "reference": None,
        "dataset": {"name": NO_DATASET, "revision": None},
        "settings": {"seed": seed, "suites_only": True},
        "interval": interval_record(seed),
        "splits": {},
        "versions": _versions(),
        "suites": suite_records(suites),
        "changes": suite_changes(suites, "base", "policy"),
    }
    no_clients = pa.table({"client_id": pa.array([], pa.string()), "split": pa.array([], pa.string())})
    return Results(
        without_nan({name: value for name, value in summary.items() if value != []}),
        no_clients,
        suite_items={key: result.items for key, result in suites.items()},
    )


def join_results(
    results: Mapping[str, Results],
    *,
    alone_clients: Set[str] | None = None,
    suites: Mapping[tuple[str, str], SuiteResult] | None = None,
    cost: Mapping[str, Any] | None = None,
    seed: int = 0,
    **found: Any,
) -> Results:
    """Put everything that was found out about a policy into its results.

    Args:
        results: label -> results of one policy on all splits; `policy` is the one that is reported.
        alone_clients: clients with an adapter of their own in `alone`; the others do not count there.
        suites: (label, suite) -> result.
        cost: what the run cost, as `RunCost.as_record` gives it.
        seed: seeds the sign flips.
        found: further JSON-ready findings by name: `kl`, `general_text`, `audit`.

    Returns:
        The policy's results; their summary also holds `policies`, `gains`, `worst_served`, `languages`, `transfer`,
        `suites`, `changes`, `cost` and what was `found`, as far as there is any.

    Raises:
        MetricError: if two policies were not scored alike.
    """
    main = results["policy"]
    others = {label: one for label, one in results.items() if label != "policy"}
    scored = dict(results)
    if alone_clients is not None and "alone" in scored:
        table = scored["alone"].per_client
        own = pa.array([client_id in alone_clients for client_id in table["client_id"].to_pylist()], pa.bool_())
        scored["alone"] = Results(scored["alone"].summary, table.filter(own))
    gains = gain_records(scored, seed=seed)
    extra: dict[str, Any] = {}
    if others:
        extra["policies"] = {
            label: {name: one.summary[name] for name in ("policy", "splits")} for label, one in others.items()
        }
    if gains:
        extra["gains"] = [{name: item[name] for name in item if name != "by_client"} for item in gains]
    extra["worst_served"] = worst_served_records(scored)
    if main.per_row is not None:
        extra["languages"] = language_records(main.per_row)
    trained = {
        label.removeprefix("language: "): one.per_row
        for label, one in others.items()
        if label.startswith("language: ") and one.per_row is not None
    }
    if len(trained) > 1:
        extra["transfer"] = transfer_records(trained)
    if suites:
        extra["suites"] = suite_records(suites)
        extra["changes"] = suite_changes(suites, "base", "policy")
    extra |= {"cost": cost, **found}
    summary = {**main.summary, **{name: value for name, value in extra.items() if value}}
    return Results(
        without_nan(summary),
        main.per_client,
        main.per_row,
        policies=others,
        gains=gain_table(gains) if gains else None,
        suite_items={key: result.items for key, result in (suites or {}).items()},
    )


def _with_perplexity(scores: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for score in scores.values():
        if score["unit"] == "nats per token":
            score["perplexity"] = perplexity(score)
    return scores


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
