"""Scores in the two forms that the Hub reads from a model repo: `.eval_results/*.yaml` and the card's `model-index`.

One function makes both. The newer form speaks of benchmark datasets on the Hub, so scores on a local folder and on
suites whose questions are the user's have no entry there; `model-index` takes them all. Numbers are means over clients
(suites: over items), and the interval with the counts behind it goes along in words or as arguments.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedllm_eval.texts import yaml_text

__all__ = ["HubResults", "hub_results", "write_hub_files"]

TASK = "text-generation"
COMMIT_LENGTH = 40
"""A folder's revision is a SHA-256 of 64 letters, a Hub commit a SHA-1."""

HubResults = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def hub_results(summary: Mapping[str, Any]) -> HubResults:
    """Return the entries of `.eval_results/*.yaml` and the `model-index` of a model card.

    Args:
        summary: the content of results.json.

    Returns:
        Two lists that YAML can hold; scores without a value are left out.

    >>> score = {"mean": 0.5, "ci_low": 0.4, "ci_high": 0.6, "num_clients": 9, "num_items": 99, "unit": "nats",
    ...          "weighted_by": "rows"}
    >>> summary = {"policy": {"name": "runs/a"}, "dataset": {"name": "org/fed", "revision": "a" * 40},
    ...            "splits": {"test": {"scores": {"loss": score}}}}
    >>> entries, index = hub_results(summary)
    >>> entries[0]["dataset"]["task_id"], entries[0]["value"], entries[0]["notes"]
    ('test_loss', 0.5, 'mean over 9 clients, 95 % interval 0.4 to 0.6, nats')
    >>> index[0]["results"][0]["metrics"][0]["value"]
    0.5
    """
    from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.repocard_data import eval_results_to_model_index

    dataset = summary["dataset"]
    revision, name = dataset.get("revision"), dataset["name"]
    on_hub = isinstance(revision, str) and len(revision) == COMMIT_LENGTH
    shown = name if on_hub else Path(name).name
    entries, results = [], []
    for split, part in summary["splits"].items():
        for metric, score in part["scores"].items():
            if score["mean"] is None:
                continue
            notes = _notes(score["ci_low"], score["ci_high"], f"{score['num_clients']} clients", score)
            if on_hub:
                entries.append(
                    EvalResultEntry(
                        dataset_id=name,
                        task_id=f"{split}_{metric}",
                        value=score["mean"],
                        dataset_revision=revision,
                        notes=notes,
                    )
                )
            results.append(
                EvalResult(
                    task_type=TASK,
                    dataset_type=shown,
                    dataset_name=shown,
                    dataset_split=split,
                    dataset_revision=revision if on_hub else None,
                    metric_type=metric,
                    metric_name=f"{metric}, mean over clients",
                    metric_value=score["mean"],
                    metric_args=_arguments(score),
                )
            )
    for suite, by_policy in summary.get("suites", {}).items():
        for score in by_policy.get("policy", {"scores": []})["scores"]:
            if score["value"] is None:
                continue
            results.append(
                EvalResult(
                    task_type=TASK,
                    dataset_type=suite,
                    dataset_name=f"{suite} (version {by_policy['policy']['version']})",
                    metric_type=score["name"],
                    metric_name=score["name"],
                    metric_value=score["value"],
                    metric_args={"ci_low": score["low"], "ci_high": score["high"], "num_items": score["num_items"]},
                )
            )
    index: list[dict[str, Any]] = eval_results_to_model_index(Path(summary["policy"]["name"]).name, results)
    return eval_result_entries_to_yaml(entries), index


def write_hub_files(summary: Mapping[str, Any], folder: Path) -> None:
    """Write `model-index.yaml` and, where there are entries, `.eval_results/fedllm-commons.yaml` into a folder."""
    entries, index = hub_results(summary)
    text = yaml_text({"model-index": index})
    (folder / "model-index.yaml").write_text(text, encoding="utf-8")
    if entries:
        (folder / ".eval_results").mkdir()
        text = yaml_text(entries)
        (folder / ".eval_results" / "fedllm-commons.yaml").write_text(text, encoding="utf-8")


def _notes(low: float | None, high: float | None, count: str, score: Mapping[str, Any]) -> str:
    interval = "" if low is None or high is None else f", 95 % interval {low:.4g} to {high:.4g}"
    return f"mean over {count}{interval}, {score['unit']}"


def _arguments(score: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ci_low": score["ci_low"],
        "ci_high": score["ci_high"],
        "num_clients": score["num_clients"],
        f"num_{score['weighted_by']}": score["num_items"],
        "unit": score["unit"],
    }
