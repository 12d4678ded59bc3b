"""The results folder of one evaluation: `results.json`, tables, a page, and what the Hub reads.

    results.json  results.md  results.html  per_client.parquet  per_row.parquet
    gains.parquet               gain of every client, where a baseline was scored as well
    policies/NAME/              the same for the base, the personal adapters, ...: folders that `compare` reads
    suites/NAME/SUITE.parquet   one row per item
    model-index.yaml  .eval_results/fedllm-commons.yaml

The folder appears whole or not at all; only `.work`, where an evaluation keeps its finished parts, outlives it.
"""

import re
from pathlib import Path

import pyarrow.parquet as pq

from fedllm_eval.reporting.hub_results import write_hub_files
from fedllm_eval.reporting.results_page import render_page
from fedllm_eval.reporting.results_text import results_markdown
from fedllm_eval.results import Results
from fedllm_eval.running.folders import link_tree, replace_folder
from fedllm_eval.texts import json_text, whole

__all__ = ["FILES", "WORK", "write_results"]

WORK = ".work"
"""Where finished parts are kept."""
FILES = (
    *("results.json", "per_client.parquet", "results.md", "results.html", "per_row.parquet", "gains.parquet"),
    *("policies", "suites", "model-index.yaml", ".eval_results", WORK),
)


def write_results(results: Results, out: Path, language: str | None = None) -> None:
    """Write a results folder; an earlier results folder of that name is replaced in one step.

    Args:
        results: what to write.
        out: the folder.
        language: of the page, `en` or `ja`; by default it carries both.

    Raises:
        ConfigError: if `out` is a file, or a folder that holds anything but earlier results.
    """

    def fill(folder: Path) -> None:
        _fill(results, folder, language)
        if (work := Path(out) / WORK).is_dir():
            # Finished parts outlive the swap of folders; as links they cost no space.
            link_tree(work, folder / WORK)

    replace_folder(out, fill, FILES)


def _fill(results: Results, folder: Path, language: str | None) -> None:
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
        _fill(other, place, language)
    (folder / "results.md").write_text(whole(results_markdown(results.summary)), encoding="utf-8")
    (folder / "results.html").write_text(whole(render_page(results, language)), encoding="utf-8")
    write_hub_files(results.summary, folder)
    text = json_text(results.summary, indent=2, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")


def _folder_name(label: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", label)
