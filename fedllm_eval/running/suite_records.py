"""What `results.json` says of suites: their scores by policy, and what training changed on the same items.

Pure functions of `SuiteResult`; change is counted on the items that both the base and the trained policy have
(`change.suite_change`).
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fedllm_data.errors import MetricError
from fedllm_eval.running.change import suite_change
from fedllm_eval.suites import SuiteResult

__all__ = ["suite_changes", "suite_record", "suite_records"]

LOWER_ITEMS_ARE_BETTER = frozenset({"over_refusal"})
"""Suites whose item score is 1 for what should not happen; for advbench it is 1 for a refusal, which should."""


def suite_changes(results: Mapping[tuple[str, str], SuiteResult], before: str, after: str) -> list[dict[str, Any]]:
    """Return what training changed in each suite that both policies were put to, on the same items.

    A suite without an item that has a score under both carries a `reason` instead of a change.
    """
    changes: list[dict[str, Any]] = []
    for (label, name), trained in results.items():
        base = results.get((before, name))
        if label != after or base is None:
            continue
        try:
            found = suite_change(base, trained, higher_is_better=name not in LOWER_ITEMS_ARE_BETTER)
        except MetricError as error:
            changes.append({"suite": name, "reason": str(error)})
        else:
            changes.append({"suite": name, "reason": None, **asdict(found)})
    return changes


def suite_records(results: Mapping[tuple[str, str], SuiteResult]) -> dict[str, dict[str, Any]]:
    """Return what `results.json` holds of the suites: suite -> policy -> version, scores, settings and notes."""
    records: dict[str, dict[str, Any]] = {}
    for (label, name), result in results.items():
        records.setdefault(name, {})[label] = suite_record(result)
    return records


def suite_record(result: SuiteResult) -> dict[str, Any]:
    """Return the record of one policy's result in a suite."""
    return {
        "version": result.version,
        "scores": [asdict(score) for score in result.scores],
        "settings": dict(result.settings),
        "notes": list(result.notes),
    }
