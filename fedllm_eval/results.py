"""What a scoring leaves behind: a folder with `results.json`, tables, a page, and what the Hub reads.

    results.json  results.md  results.html  per_client.parquet  per_row.parquet
    gains.parquet               gain of every client, where a baseline was scored as well
    policies/NAME/              the same for the base, the personal adapters, ...: folders that `compare` reads
    suites/NAME/SUITE.parquet   one row an item
    model-index.yaml  .eval_results/fedllm-commons.yaml

`results.json` says what was scored, against what, on which data and with which settings; every score stands with its
interval and the number of clients and items behind it, split by split. The folder appears whole or not at all; only
`.work`, where an evaluation keeps its finished parts, outlives it.
"""

import importlib.metadata
import json
import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from fedllm_data.errors import ConfigError, MetricError
from fedllm_eval.reporting.section import NO_ROUNDING
from fedllm_eval.running.folders import link_tree, replace_folder
from fedllm_eval.scores import ClientScores
from fedllm_eval.scoring.spread import num_worst
from fedllm_eval.texts import json_text, whole

if TYPE_CHECKING:
    from rich.table import Table

    from fedllm_eval.suites import SuiteResult

__all__ = [
    "FORMAT",
    "Results",
    "join_results",
    "make_results",
    "read_results",
    "without_nan",
    "write_results",
]

FORMAT = "fedllm-eval/1"
WORK = ".work"
"""Where finished parts are kept."""
FILES = (
    *("results.json", "per_client.parquet", "results.md", "results.html", "per_row.parquet", "gains.parquet"),
    *("policies", "suites", "model-index.yaml", ".eval_results", WORK),
)
LEGEND = (
    "Mean over clients with its 95 % interval (clients as the unit); pooled: over all rows or tokens; worst decile: "
    "mean of the tenth of the clients served worst, and how many those are."
)
PACKAGES = ("fedllm-commons", "torch", "transformers", "peft", "datasets", "numpy", "scipy")


@dataclass(frozen=True)
class Results:
    """The content of a results folder."""

    summary: Mapping[str, Any]
    """What `results.json` holds; undefined numbers are None."""
    per_client: pa.Table
    """One row per split and client."""
    per_row: pa.Table | None = None
    """One row a scored row, as in `ClientScores`."""
    policies: "Mapping[str, Results]" = field(default_factory=dict)
    """The other policies of the evaluation by label: base, personal, alone, ..."""
    gains: pa.Table | None = None
    """Gain of every client, as `client_tables.gain_table` gives it."""
    suite_items: Mapping[tuple[str, str], pa.Table] = field(default_factory=dict)
    """(policy, suite) -> one row an item."""
    reused: tuple[str, ...] = ()
    """Parts that an earlier run of the same command had finished."""
    changed: tuple[str, ...] = ()
    """Parts that were made again since their settings changed, a sentence each."""

    def markdown(self) -> str:
        """Return the scores as a Markdown document."""
        from fedllm_eval.reporting.section import all_notes, markdown_text
        from fedllm_eval.reporting.sections import markdown_sections

        policy, reference = self.summary["policy"]["name"], self.summary["reference"]
        lines = [f"# Scores of {markdown_text(policy)}", ""]
        if reference is not None:
            against, beta = markdown_text(reference["name"]), self.summary["settings"]["beta"]
            lines += [f"Implicit rewards against {against}, beta {beta:g}.", ""]
        header = _cells(self.summary)[0]
        lines += ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        lines += ["| " + " | ".join(cells) + " |" for cells in _cells(self.summary)[1:]]
        lines += ["", LEGEND, ""]
        lines += [f"- {markdown_text(f'{where}: {note}.')}" for where, note in all_notes(self.summary)]
        lines += ["", *markdown_sections(self.summary)]
        return "\n".join(lines).rstrip() + "\n"

    def table(self) -> "Table":
        """Return the scores as a table for the terminal."""
        from rich.table import Table

        header, *rows = _cells(self.summary)
        table = Table(title=f"{self.summary['policy']['name']} on {self.summary['dataset']['name']}")
        for position, name in enumerate(header):
            table.add_column(name, justify="left" if position < 2 else "right")
        for cells in rows:
            table.add_row(*cells)
        return table


def make_results(scores: Sequence[ClientScores], *, seed: int = 0) -> Results:
    """Gather the scores of one policy on several splits.

    Args:
        scores: one item a split; same policy, reference, dataset revision and settings.
        seed: of the bootstrap.

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
        "interval": {"confidence": 0.95, "method": "t", "unit": "client", "seed": seed},
        "splits": {
            item.split: {
                "num_clients": item.table.num_rows,
                "num_clients_in_split": item.dataset["num_clients"],
                "num_rows_in_split": item.dataset["num_rows"],
                **{
                    column: int(sum(item.table[column].to_pylist()))
                    for column in ("num_rows", "num_tokens", "num_skipped", "num_truncated")
                },
                "scores": _with_perplexity(item.summary(seed=seed)),
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


def join_results(
    results: Mapping[str, Results],
    *,
    alone_clients: Set[str] | None = None,
    suites: "Mapping[tuple[str, str], SuiteResult] | None" = None,
    cost: Mapping[str, Any] | None = None,
    seed: int = 0,
    **found: Any,
) -> Results:
    """Put everything that was found out about a policy into its results.

    Args:
        results: label -> results of one policy on all splits; `policy` is the one that is reported.
        alone_clients: clients with an adapter of their own in `alone`; the others do not count there.
        suites: (label, suite) -> result.
        cost: of the run, as `RunCost.as_record` gives it.
        seed: of intervals and sign flips.
        found: further JSON-ready findings by name: `kl`, `general_text`, `audit`.

    Returns:
        The policy's results; their summary also holds `policies`, `gains`, `worst_served`, `languages`, `transfer`,
        `suites`, `changes`, `cost` and what was `found`, as far as there is any.

    Raises:
        MetricError: if two policies were not scored alike.
    """
    from fedllm_eval.running.client_tables import gain_records, gain_table, language_records, transfer_records
    from fedllm_eval.running.suite_runs import suite_changes, suite_records
    from fedllm_eval.running.worst_served import worst_served_records

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
        extra["languages"] = language_records(main.per_row, seed=seed)
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


def write_results(results: Results, out: Path) -> None:
    """Write a results folder; an earlier results folder of that name is replaced in one step.

    Raises:
        ConfigError: if `out` is a file, or a folder that holds anything but earlier results.
    """

    def fill(folder: Path) -> None:
        _fill(results, folder)
        if (work := Path(out) / WORK).is_dir():
            # Finished parts outlive the swap of folders; as links they cost no space.
            link_tree(work, folder / WORK)

    replace_folder(out, fill, FILES)


def _fill(results: Results, folder: Path) -> None:
    from fedllm_eval.reporting.page import render_page
    from fedllm_eval.running.hub_results import write_hub_files

    pq.write_table(results.per_client, folder / "per_client.parquet")
    for name, table in (("per_row", results.per_row), ("gains", results.gains)):
        if table is not None:
            pq.write_table(table, folder / f"{name}.parquet")
    for (label, suite), table in results.suite_items.items():
        place = folder / "suites" / _folder_name(label)
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, place / f"{suite}.parquet")
    for label, other in results.policies.items():
        (place := folder / "policies" / _folder_name(label)).mkdir(parents=True)
        _fill(other, place)
    (folder / "results.md").write_text(whole(results.markdown()), encoding="utf-8")
    (folder / "results.html").write_text(whole(render_page(results)), encoding="utf-8")
    write_hub_files(results.summary, folder)
    text = json_text(results.summary, indent=2, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")


def _folder_name(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", label)


def read_results(folder: Path) -> Results:
    """Read what `write_results` wrote: the summary and the per-client table; the other files stay on disk.

    Raises:
        ConfigError: if the folder holds no results, or those of another format version.
    """
    path = Path(folder) / "results.json"
    if not path.is_file() or not path.with_name("per_client.parquet").is_file():
        raise ConfigError(f"{folder} holds no results; make them by `fedllm-eval run ... --out {folder}`")
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        table = pq.read_table(path.with_name("per_client.parquet"))
    except (json.JSONDecodeError, UnicodeDecodeError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{folder} cannot be read: {reason}; score the policy again") from error
    version = summary.get("format") if isinstance(summary, dict) else None
    if version != FORMAT:
        raise ConfigError(f"{path} has format {version!r}, this version reads {FORMAT!r}; score the policy again")
    return Results(summary, table)


def _with_perplexity(scores: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    from fedllm_eval.running.client_tables import perplexity

    for score in scores.values():
        if score["unit"] == "nats per token":
            score["perplexity"] = perplexity(score)
    return scores


def _cells(summary: Mapping[str, Any]) -> list[list[str]]:
    """Header and rows of the printed table."""
    rows = [["split", "score", "mean [95 %]", "pooled [95 %]", "worst decile", "std", "clients", "items", "unit"]]
    for split, part in summary["splits"].items():
        for name, score in part["scores"].items():
            rows.append(
                [
                    split,
                    f"{name} {'↑' if score['higher_is_better'] else '↓'}",
                    _with_interval(score["mean"], score["ci_low"], score["ci_high"]),
                    _with_interval(score["weighted_mean"], score["weighted_ci_low"], score["weighted_ci_high"]),
                    f"{_number(score['worst_decile'])} ({_people(num_worst(score['num_clients']))})",
                    _number(score["std"]),
                    f"{score['num_clients']:,}",
                    f"{score['num_items']:,} {'tokens' if score['weighted_by'] == 'tokens' else 'rows'}",
                    score["unit"],
                ]
            )
    return rows


def _with_interval(mean: float | None, low: float | None, high: float | None) -> str:
    return f"{_number(mean)} [{_number(low)}, {_number(high)}]"


def _people(num_clients: int) -> str:
    return f"{num_clients:,} client{'s' * (num_clients != 1)}"


def _number(value: float | None) -> str:
    if value is not None and NO_ROUNDING <= abs(value) < 0.5e-4:
        return f"{value:.1e}"
    return "n/a" if value is None else f"{value:.4f}" if abs(value) < 100 else f"{value:.1f}"


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def without_nan(value: Any) -> Any:
    """Return the value as JSON can hold it: what is undefined (NaN) becomes null.

    >>> without_nan({"ci_low": float("nan"), "notes": ("a",)})
    {'ci_low': None, 'notes': ['a']}
    """
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
