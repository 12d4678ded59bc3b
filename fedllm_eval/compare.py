"""Whether one policy serves clients better than another: differences paired over the same clients.

Every results folder is set against the first. Only what was scored alike is compared: same task, dataset revision,
sample and `max_length`; implicit rewards also need the same reference and beta. A difference counts as shown when its
95 % interval excludes 0 and the sign-flip test gives p < 0.05; the second keeps a handful of clients from proving
anything. Otherwise the verdict says what the data cannot tell, and how large a difference would have gone unseen.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedllm_data.errors import MetricError
from fedllm_eval.results import Results, read_results, replace_folder, without_nan
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.intervals import PairedDifference, paired_difference

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["compare_results", "comparison_table", "verdict", "write_comparison"]

FORMAT = "fedllm-eval-compare/1"
ALPHA = 0.05
MIN_CLIENTS = 6
"""2^(1-5) = 0.0625: five clients cannot reach p < 0.05 by a two-sided sign-flip test."""


def compare_results(folders: Sequence[str | Path], *, seed: int = 0) -> dict[str, Any]:
    """Compare results folders with the first of them, client by client.

    Args:
        folders: two or more folders written by `write_results`.
        seed: of bootstrap and sign flips.

    Returns:
        What a comparison file holds: `baseline`, and under `comparisons` one item per other folder, split and score
        with means, `difference` (other - baseline), `ci_low`, `ci_high`, `p_value`, `better_fraction` and
        `worse_fraction` of clients, `num_clients`, `outcome` (better, worse or undecided) and a `verdict`; `notes`
        name what could not be compared.

    Raises:
        ConfigError: if a folder holds no results.
        MetricError: if fewer than two folders are given, or they were not scored alike.
    """
    if len(folders) < 2:
        raise MetricError(f"a comparison takes two or more results folders, got {len(folders)}")
    results = [read_results(Path(folder)) for folder in folders]
    labels = _labels(folders)
    baseline = results[0]
    comparisons: list[dict[str, Any]] = []
    notes: list[str] = []
    for label, other in zip(labels[1:], results[1:], strict=True):
        _check_alike(labels[0], baseline.summary, label, other.summary)
        for split in baseline.summary["splits"]:
            if split not in other.summary["splits"]:
                notes.append(f"{label} has no scores for split {split}")
                continue
            names = _comparable(labels[0], baseline.summary, label, other.summary, split, notes)
            comparisons += [_compare(labels[0], baseline, label, other, split, name, seed, notes) for name in names]
    if not comparisons:
        raise MetricError(f"{', '.join(labels)} have no split and score in common; score the same splits")
    summary = {
        "format": FORMAT,
        "task": baseline.summary["task"],
        "dataset": baseline.summary["dataset"],
        "settings": baseline.summary["settings"],
        "interval": {"confidence": 0.95, "method": "bca", "unit": "client", "seed": seed},
        "baseline": {"label": labels[0], "policy": baseline.summary["policy"]},
        "others": [
            {"label": label, "policy": other.summary["policy"]}
            for label, other in zip(labels[1:], results[1:], strict=True)
        ],
        "comparisons": comparisons,
        "notes": list(dict.fromkeys(notes)),
    }
    checked: dict[str, Any] = without_nan(summary)
    return checked


def verdict(other: str, baseline: str, score: str, split: str, paired: PairedDifference) -> tuple[str, str]:
    """Return the outcome (better, worse, undecided) and one sentence that says what the data can and cannot tell.

    >>> paired = PairedDifference(0.05, 0.03, 0.07, 0.001, 0.75, 0.25, 40)
    >>> outcome, sentence = verdict("dpo", "sft", "ranking_accuracy", "test", paired)
    >>> sentence[:94]
    'dpo is better than sft in ranking_accuracy on test clients: +0.0500 [+0.0300, +0.0700], p = 0.'
    >>> sentence[-36:]
    '40 clients, 75 % of them better off.'
    >>> verdict("dpo", "sft", "ranking_accuracy", "test", PairedDifference(0.01, -0.03, 0.05, 0.6, 0.5, 0.5, 40))[0]
    'undecided'
    """
    better_fraction = paired.higher_fraction if SCORES[score].higher_is_better else paired.lower_fraction
    where = f"in {score} on {split} clients"
    numbers = f"{paired.difference:+.4f} [{paired.low:+.4f}, {paired.high:+.4f}], p = {paired.p_value:.2g}"
    if paired.higher_fraction == paired.lower_fraction == 0:
        clients = f"all {paired.num_clients} {split} clients" if paired.num_clients > 1 else f"the one {split} client"
        return "undecided", f"{other} and {baseline} score the same in {score} for {clients}."
    if paired.num_clients < MIN_CLIENTS:
        return "undecided", (
            f"The data cannot tell {other} from {baseline} {where}: {paired.difference:+.4f} over "
            f"{paired.num_clients} clients, and fewer than {MIN_CLIENTS} cannot show any difference at p < {ALPHA}."
        )
    if paired.low <= 0 <= paired.high or paired.p_value >= ALPHA:
        return "undecided", (
            f"The data cannot tell {other} from {baseline} {where}: {numbers}, {paired.num_clients} clients; a "
            f"difference smaller than about {(paired.high - paired.low) / 2:.2g} would go unseen."
        )
    outcome = "better" if (paired.difference > 0) == SCORES[score].higher_is_better else "worse"
    return outcome, (
        f"{other} is {outcome} than {baseline} {where}: {numbers}, {paired.num_clients} clients, "
        f"{100 * better_fraction:.0f} % of them better off."
    )


def comparison_table(comparison: Mapping[str, Any]) -> "Table":
    """Return the comparison as a table for the terminal."""
    from rich.table import Table

    header, *rows = _cells(comparison)
    table = Table(title=f"against {comparison['baseline']['label']} on {comparison['dataset']['name']}")
    for position, name in enumerate(header):
        table.add_column(name, justify="left" if position < 3 else "right")
    for cells in rows:
        table.add_row(*cells)
    return table


def write_comparison(comparison: Mapping[str, Any], out: Path) -> None:
    """Write `comparison.json` and `comparison.md` into a folder, replacing an earlier comparison in one step.

    Raises:
        ConfigError: if `out` is a file, or a folder that holds anything but an earlier comparison.
    """

    def fill(folder: Path) -> None:
        text = json.dumps(comparison, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / "comparison.json").write_text(text + "\n", encoding="utf-8")
        header, *rows = _cells(comparison)
        lines = [f"# Against {comparison['baseline']['label']}", ""]
        lines += [f"- {item['verdict']}" for item in comparison["comparisons"]]
        lines += [f"- Not compared: {note}." for note in comparison["notes"]]
        lines += ["", "| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        lines += ["| " + " | ".join(cells) + " |" for cells in rows]
        (folder / "comparison.md").write_text("\n".join(lines) + "\n", encoding="utf-8")

    replace_folder(out, fill, ("comparison.json", "comparison.md"))


def _labels(folders: Sequence[str | Path]) -> list[str]:
    """Short names of the folders that tell them apart."""
    names = [Path(folder).name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _check_alike(label: str, a: Mapping[str, Any], other_label: str, b: Mapping[str, Any]) -> None:
    pairs = [
        ("task", a["task"], b["task"]),
        ("dataset revision", a["dataset"]["revision"], b["dataset"]["revision"]),
        *((key, a["settings"].get(key), b["settings"].get(key)) for key in _SAMPLING),
    ]
    for what, ours, theirs in pairs:
        if ours != theirs:
            raise MetricError(
                f"{label} and {other_label} differ in {what} ({ours} against {theirs}); score both alike, then compare"
            )


_SAMPLING = ("max_length", "max_clients", "max_rows_per_client", "seed")


def _comparable(
    label: str, a: Mapping[str, Any], other_label: str, b: Mapping[str, Any], split: str, notes: list[str]
) -> list[str]:
    """Scores that both have and that mean the same."""
    ours, theirs = a["splits"][split]["scores"], b["splits"][split]["scores"]
    same_reference = _identity(a["reference"]) == _identity(b["reference"]) and (
        a["settings"].get("beta") == b["settings"].get("beta")
    )
    names = []
    for name in (name for name in SCORES if name in ours or name in theirs):
        if name not in ours or name not in theirs:
            notes.append(f"only {label if name in ours else other_label} has {name}")
        elif SCORES[name].needs_reference and not same_reference:
            notes.append(f"{label} and {other_label} measure {name} against different references or betas")
        else:
            names.append(name)
    return names


def _identity(policy: Mapping[str, Any] | None) -> tuple[Any, ...] | None:
    """What a reference is, whatever it or its folder is called: base and adapter weights."""
    if policy is None:
        return None
    return policy.get("base_digest") or policy.get("base"), policy.get("adapter_sha256")


def _compare(
    label: str, a: Results, other_label: str, b: Results, split: str, name: str, seed: int, notes: list[str]
) -> dict[str, Any]:
    ours, theirs = _client_scores(a, split, name), _client_scores(b, split, name)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise MetricError(f"{label} and {other_label} share no scored client in split {split}; score the same clients")
    if len(common) < max(len(ours), len(theirs)):
        notes.append(f"{len(common)} clients of split {split} are scored in both {label} and {other_label}")
    a_K, b_K = np.array([ours[c] for c in common]), np.array([theirs[c] for c in common])
    paired = paired_difference(a_K, b_K, seed=seed)
    outcome, sentence = verdict(other_label, label, name, split, paired)
    higher_is_better = SCORES[name].higher_is_better
    return {
        "other": other_label,
        "split": split,
        "score": name,
        "baseline_mean": float(a_K.mean()),
        "other_mean": float(b_K.mean()),
        "difference": paired.difference,
        "ci_low": paired.low,
        "ci_high": paired.high,
        "p_value": paired.p_value,
        "better_fraction": paired.higher_fraction if higher_is_better else paired.lower_fraction,
        "worse_fraction": paired.lower_fraction if higher_is_better else paired.higher_fraction,
        "num_clients": paired.num_clients,
        "unit": SCORES[name].unit,
        "higher_is_better": higher_is_better,
        "outcome": outcome,
        "verdict": sentence,
    }


def _client_scores(results: Results, split: str, name: str) -> dict[str, float]:
    table = results.per_client
    columns = (table[column].to_pylist() for column in ("client_id", "split", name))
    return {
        client_id: score
        for client_id, of_split, score in zip(*columns, strict=True)
        if of_split == split and score is not None and math.isfinite(score)
    }


def _cells(comparison: Mapping[str, Any]) -> list[list[str]]:
    rows = [["split", "score", "run", "mean", "difference [95 %]", "p", "better off", "clients", "outcome"]]
    for item in comparison["comparisons"]:
        low, high = (item[key] for key in ("ci_low", "ci_high"))
        interval = "n/a" if low is None else f"[{low:+.4f}, {high:+.4f}]"
        rows.append(
            [
                item["split"],
                f"{item['score']} {'↑' if item['higher_is_better'] else '↓'}",
                item["other"],
                f"{item['baseline_mean']:.4f} → {item['other_mean']:.4f}",
                f"{item['difference']:+.4f} {interval}",
                "n/a" if item["p_value"] is None else f"{item['p_value']:.2g}",
                f"{item['better_fraction']:.2f}",
                f"{item['num_clients']:,}",
                item["outcome"],
            ]
        )
    return rows
