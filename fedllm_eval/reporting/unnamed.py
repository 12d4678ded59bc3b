"""A results folder as it may be shown to anybody: what it says of clients as a group, and nobody's name.

Tables with a line per client, row or item stay behind, and so do the page, whose figures mark single clients, and the
other policies' folders. `results.json` loses the parts that name clients, and `results.md` is written from the rest.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedllm_eval.results import Results, read_results
from fedllm_eval.texts import json_text

__all__ = ["NAMES_CLIENTS", "copy_unnamed", "without_clients"]

NAMES_CLIENTS = ("never_trained", "took_no_part", "worst_served")
"""Keys of results.json, at any depth, under which clients are named."""
_AS_THEY_ARE = ("model-index.yaml", ".eval_results")


def copy_unnamed(folder: Path, out: Path) -> None:
    """Copy the parts of a results folder that name no client.

    Args:
        folder: as `write_results` left it.
        out: a folder that does not exist yet.

    Raises:
        ConfigError: if the folder holds no results.

    >>> copy_unnamed(Path("no/such/folder"), Path("out"))
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: no/such/folder holds no results; make them by `fedllm-eval run ... --out no/suc...
    """
    results = read_results(folder)
    unnamed = Results(without_clients(results.summary), results.per_client)
    out.mkdir()
    (out / "results.json").write_text(json_text(unnamed.summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (out / "results.md").write_text(unnamed.markdown(), encoding="utf-8")
    for name in _AS_THEY_ARE:
        if (folder / name).is_dir():
            shutil.copytree(folder / name, out / name)
        elif (folder / name).is_file():
            shutil.copy(folder / name, out / name)


def without_clients(value: Any) -> Any:
    """Return a summary without the parts that name clients.

    >>> without_clients({"splits": {"test": {"num_clients": 2, "never_trained": ["ann"]}}, "worst_served": []})
    {'splits': {'test': {'num_clients': 2}}}
    """
    if isinstance(value, Mapping):
        return {name: without_clients(item) for name, item in value.items() if name not in NAMES_CLIENTS}
    if isinstance(value, list):
        return [without_clients(item) for item in value]
    return value
