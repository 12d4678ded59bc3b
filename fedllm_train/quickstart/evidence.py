"""What the quickstart left in its folder, read and checked: runs, scores, comparisons, how different the clients are.

Symbols: K clients, B resamples. Only the interval of the worst decile and the scores by language are computed here;
the rest is what the folders of the steps hold.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fedllm_data.clients import load_clients
from fedllm_data.errors import ConfigError
from fedllm_eval.compare import compare_results
from fedllm_eval.comparing.comparison_verdicts import OF_RUNS
from fedllm_eval.policy.run_folder import ADAPTER, CONFIG_FILE, ROUNDS_FILE, read_config, read_rounds
from fedllm_eval.policy.run_records import LedgerRecord, RoundRecord, RunConfig, Visit
from fedllm_eval.results import Results, read_results
from fedllm_eval.scores import SCORES
from fedllm_eval.scoring.intervals import mean_interval
from fedllm_eval.scoring.spread import worst_decile

__all__ = [
    "DATASETS",
    "POLICIES",
    "Evidence",
    "Run",
    "languages",
    "paired_clients",
    "read_evidence",
    "read_scores",
    "summary_of",
]

POLICIES = ("base", "sft", "dpo")
DATASETS = {"loss": "fed-synth", "preference": "fed-synth-pa"}
"""Kind of score -> the folder of the dataset it was taken on."""
COMPARED = (
    ("loss", "heldout_loss", "base", "sft"),
    ("preference", "ranking_accuracy", "sft", "dpo"),
    ("loss", "heldout_loss", "sft", "dpo"),
)
MAX_LANGUAGES = 10
NUM_RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished federated run."""

    config: RunConfig
    rounds: list[RoundRecord]

    @property
    def ledger(self) -> LedgerRecord:
        """What the run cost in all."""
        return self.rounds[-1]["ledger"]

    @property
    def seconds(self) -> float:
        """Time of all rounds on the machine that ran them."""
        return float(sum(record["seconds"] for record in self.rounds))

    @property
    def visits(self) -> list[Visit]:
        """Every client's part in every round."""
        return [visit for record in self.rounds for visit in record["clients"]]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that the page is made from."""

    folder: Path
    heterogeneity: dict[str, Any]
    runs: dict[str, Run]
    """Keyed `sft` and `dpo`."""
    scores: dict[tuple[str, str], Results]
    """Keyed by kind (`loss` or `preference`) and policy."""
    comparisons: list[dict[str, Any]]
    """As `compare_results` gives them, with `kind` and `baseline` added; the outcome is that of the run at hand."""
    model_bytes: int
    """Of the base model's weights."""

    def compared(self, score: str, other: str, split: str) -> dict[str, Any] | None:
        """Return the comparison that ends at a policy, or None if the data have no such split.

        SFT is compared with the base and DPO with SFT.
        """
        for item in self.comparisons:
            if (item["score"], item["other"], item["split"]) == (score, other, split):
                return item
        return None


def read_evidence(folder: Path) -> Evidence:
    """Read a finished quickstart folder.

    Raises:
        ConfigError: if a step's output is missing or cannot be read; the message names the file.

    >>> read_evidence(Path("no-such-folder"))
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: no-such-folder/report/heterogeneity.json is missing: ...
    """
    heterogeneity = _read_json(folder / "report" / "heterogeneity.json", folder)
    for path in (folder / "base" / "config.json", *(folder / name / "README.md" for name in DATASETS.values())):
        _check_there(path, folder)
    weights = list((folder / "base").glob("*.safetensors"))
    if not weights:
        raise _missing(folder / "base" / "model.safetensors", folder)
    scores = read_scores(folder)
    return Evidence(
        folder=folder,
        heterogeneity=heterogeneity,
        runs={name: _read_run(folder / "runs" / name, folder) for name in ("sft", "dpo")},
        scores=scores,
        comparisons=_compare(folder),
        model_bytes=sum(path.stat().st_size for path in weights),
    )


def read_scores(folder: Path) -> dict[tuple[str, str], Results]:
    """Return the scores of the three policies on both datasets, keyed by kind and policy.

    Raises:
        ConfigError: if one is missing or cannot be read.

    >>> read_scores(Path("no-such-folder"))
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: no-such-folder/scores/loss/base/results.json is missing: ...
    """
    scores = {}
    for kind in DATASETS:
        for policy in POLICIES:
            path = folder / "scores" / kind / policy
            _check_there(path / "results.json", folder)
            _check_there(path / "per_client.parquet", folder)
            scores[kind, policy] = read_results(path)
            if "test" not in scores[kind, policy].summary["splits"]:
                raise ConfigError(f"{path / 'results.json'} has no scores for split test; score the policy again")
    return scores


def summary_of(results: Results, split: str, score: str, *, worst: bool = False) -> dict[str, Any] | None:
    """Return a score's `value`, `low`, `high` and `num_clients`, or None if it was not taken.

    Args:
        results: one policy's results.
        split: `test` or `unseen`.
        score: a name from `fedllm_eval.scores.SCORES`.
        worst: return the mean of the worst-served tenth of the clients instead of the mean over all.

    >>> score = {"mean": 0.5, "ci_low": 0.4, "ci_high": 0.6, "num_clients": 9}
    >>> results = Results({"splits": {"test": {"scores": {"ranking_accuracy": score}}}}, pa.table({}))
    >>> summary_of(results, "test", "ranking_accuracy")
    {'value': 0.5, 'low': 0.4, 'high': 0.6, 'num_clients': 9}
    >>> summary_of(results, "unseen", "ranking_accuracy")
    """
    found = results.summary["splits"].get(split, {}).get("scores", {}).get(score)
    if found is None:
        return None
    if not worst:
        bounds = {"low": found["ci_low"], "high": found["ci_high"]}
        return {"value": found["mean"], **bounds, "num_clients": found["num_clients"]}
    x_K = np.array([client["score"] for client in _clients(results.per_client, split, score)])
    low, high = _worst_decile_interval(x_K, higher_is_better=SCORES[score].higher_is_better)
    return {"value": found["worst_decile"], "low": low, "high": high, "num_clients": found["num_clients"]}


def paired_clients(before: Results, after: Results, split: str, score: str) -> list[dict[str, Any]]:
    """Return the clients scored in both: `client_id`, `num_rows`, `before`, `after`, `gain` (above 0: better off).

    >>> def scored(value):
    ...     columns = {"client_id": ["ann"], "split": ["test"], "num_rows": [3], "heldout_loss": [value]}
    ...     return Results({}, pa.table(columns))
    >>> paired_clients(scored(2.0), scored(1.5), "test", "heldout_loss")
    [{'client_id': 'ann', 'num_rows': 3, 'before': 2.0, 'after': 1.5, 'gain': 0.5}]
    """
    old = {client["client_id"]: client["score"] for client in _clients(before.per_client, split, score)}
    sign = 1 if SCORES[score].higher_is_better else -1
    return [
        {
            "client_id": client["client_id"],
            "num_rows": client["num_rows"],
            "before": old[client["client_id"]],
            "after": client["score"],
            "gain": sign * (client["score"] - old[client["client_id"]]),
        }
        for client in _clients(after.per_client, split, score)
        if client["client_id"] in old
    ]


def languages(folder: Path, kind: str, pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the scores of test clients by their main language, the language of most clients first.

    Args:
        folder: the quickstart's folder.
        kind: `loss` or `preference`.
        pairs: from `paired_clients`.

    Returns:
        `language`, and `before` and `after` as `Interval`; at most ten languages.

    >>> languages(Path("no-such-folder"), "loss", [])
    Traceback (most recent call last):
    fedllm_data.errors.HubError: no folder no-such-folder/fed-synth here, ...
    """
    table = load_clients(folder / DATASETS[kind], "test").table
    main = dict(zip(table["client_id"].to_pylist(), table["main_language"].to_pylist(), strict=True))
    groups: dict[str, list[dict[str, Any]]] = {}
    for pair in pairs:
        groups.setdefault(main[pair["client_id"]] or "und", []).append(pair)
    order = sorted(groups, key=lambda language: (-len(groups[language]), language))[:MAX_LANGUAGES]
    return [
        {"language": language}
        | {when: mean_interval([pair[when] for pair in groups[language]]) for when in ("before", "after")}
        for language in order
    ]


def _compare(folder: Path) -> list[dict[str, Any]]:
    comparisons = []
    for kind, score, baseline, other in COMPARED:
        root = folder / "scores" / kind
        for item in compare_results([root / baseline, root / other])["comparisons"]:
            if item["score"] == score:
                # The page tells what happened in this run, and claims nothing about another seed.
                outcome = OF_RUNS.get(item["outcome"], item["outcome"])
                comparisons.append(item | {"kind": kind, "baseline": baseline, "outcome": outcome})
    return comparisons


def _clients(table: pa.Table, split: str, score: str) -> list[dict[str, Any]]:
    columns = (table[name].to_pylist() for name in ("client_id", "split", "num_rows", score))
    return [
        {"client_id": client_id, "num_rows": num_rows, "score": value}
        for client_id, of_split, num_rows, value in zip(*columns, strict=True)
        if of_split == split and value is not None and np.isfinite(value)
    ]


def _worst_decile_interval(x_K: np.ndarray, *, higher_is_better: bool) -> tuple[float | None, float | None]:
    """95 % percentile interval over resampled clients; None for a single client."""
    if x_K.size < 2:
        return None, None
    index_BK = np.random.default_rng(0).integers(x_K.size, size=(NUM_RESAMPLES, x_K.size))
    worst_B = [worst_decile(x_K[index_K], higher_is_better=higher_is_better) for index_K in index_BK]
    low, high = np.quantile(worst_B, [0.025, 0.975])
    return float(low), float(high)


def _read_run(run: Path, folder: Path) -> Run:
    for name in (CONFIG_FILE, ROUNDS_FILE, f"{ADAPTER}/adapter_config.json"):
        _check_there(run / name, folder)
    try:
        return Run(config=read_config(run), rounds=read_rounds(run))
    except ConfigError as error:
        raise ConfigError(f"{error}; or {_again(folder)}") from error


def _read_json(path: Path, folder: Path) -> dict[str, Any]:
    _check_there(path, folder)
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read ({error}): {_again(folder)}") from error


def _check_there(path: Path, folder: Path) -> None:
    if not path.is_file():
        raise _missing(path, folder)


def _missing(path: Path, folder: Path) -> ConfigError:
    return ConfigError(f"{path} is missing: {_again(folder)}")


def _again(folder: Path) -> str:
    return f"make the folder whole by `python -m fedllm_train.quickstart --out {folder}`"
