"""Which results folders are the same method trained with other seeds, and what a method is called.

Two runs are one method where their `config.yaml` agrees in everything but seeds and places. A policy whose run folder
is not at hand is a method of its own, unless it is given as NAME=FOLDER: folders of one name are one method.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedllm_data.errors import MetricError
from fedllm_eval.policy.run_folder import CONFIG_FILE, ROUNDS_FILE, START_SCORES, find_config, section
from fedllm_eval.results import Results, read_results

__all__ = [
    "Method",
    "ScoredRun",
    "check_alike",
    "group_methods",
    "read_scored",
    "run_of",
    "split_name",
    "without_free",
]

FREE_KEYS = {
    "format",
    "seed",
    "data_seed",
    "output_dir",
    "logging_dir",
    "run_name",
    "logging_first_step",
    "client_ids",
    "earlier",
}
"""Keys in which two runs of one method may differ: the layout of their folders, seeds, places, and what follows from
other settings."""
SAMPLING = ("max_length", "max_clients", "max_rows_per_client", "seed")
"""Settings that say which rows were scored, and how much of each."""


@dataclass(frozen=True)
class ScoredRun:
    """One results folder."""

    label: str
    folder: Path
    results: Results
    name: str | None
    """The method's name, where the caller gave one."""
    config: str | None
    """Digest of the run's settings without seeds and places; None where they are not known."""
    seed: int | None

    @property
    def is_base(self) -> bool:
        """Whether nothing was trained: another seed would be the same policy.

        A run that trained all weights has no adapter either, but it has a configuration.
        """
        policy = self.results.summary["policy"]
        return "adapter_sha256" in policy and policy["adapter_sha256"] is None and self.config is None


@dataclass(frozen=True)
class Method:
    """One method with the results of all its seeds."""

    label: str
    runs: tuple[ScoredRun, ...]

    @property
    def is_fixed(self) -> bool:
        """Whether nothing was trained."""
        return all(run.is_base for run in self.runs)

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """Seeds of the runs, in their order."""
        return tuple(run.seed for run in self.runs)


def read_scored(places: Sequence[str | Path]) -> list[ScoredRun]:
    """Read results folders, given as FOLDER or NAME=FOLDER.

    Raises:
        ConfigError: if a folder holds no results.
        MetricError: if one folder is given twice.
    """
    split = [split_name(place) for place in places]
    folders = [folder for _, folder in split]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise MetricError(f"a results folder is given twice ({', '.join(map(str, folders))}); name each once")
    names = [folder.resolve().name for folder in folders]
    labels = names if len(set(names)) == len(names) else [str(folder) for folder in folders]
    found = []
    for (name, folder), label in zip(split, labels, strict=True):
        results = read_results(folder)
        config, seed = _config_of(results.summary["policy"]["name"])
        found.append(ScoredRun(label, folder, results, name, config, seed))
    return found


def check_alike(label: str, a: Mapping[str, Any], other_label: str, b: Mapping[str, Any]) -> None:
    """Refuse two results that were not scored alike: another task, dataset revision, length or sample.

    Args:
        label: what the first is called.
        a: its summary, the content of `results.json`.
        other_label: what the second is called.
        b: its summary.

    Raises:
        MetricError: if they differ; it names the first thing in which they do.

    >>> summary = {"task": "sft", "dataset": {"revision": "a1"}, "settings": {"max_length": 64}}
    >>> check_alike("base", summary, "sft", summary)
    """
    pairs = [
        ("task", a["task"], b["task"]),
        ("dataset revision", a["dataset"]["revision"], b["dataset"]["revision"]),
        *((key, a["settings"].get(key), b["settings"].get(key)) for key in SAMPLING),
    ]
    for what, ours, theirs in pairs:
        if ours != theirs:
            raise MetricError(
                f"{label} and {other_label} differ in {what} ({ours} against {theirs}); score both alike, then compare"
            )


def group_methods(scored: Sequence[ScoredRun]) -> list[Method]:
    """Return the methods in the order of their first run, each run under its method.

    Raises:
        MetricError: if a method holds one seed twice: that is no second seed.
    """
    groups: dict[Any, list[ScoredRun]] = {}
    for run in scored:
        key = ("name", run.name) if run.name else ("config", run.config) if run.config else ("folder", run.folder)
        groups.setdefault(key, []).append(run)
    methods = []
    for (kind, name), runs in groups.items():
        adapters = [run.results.summary["policy"].get("adapter_sha256") for run in runs]
        if len(runs) > 1 and None not in adapters and len(set(adapters)) < len(adapters):
            raise MetricError(
                f"{', '.join(run.label for run in runs)} are one method, and two of them are the same adapter; name "
                "each trained run once"
            )
        runs = sorted(runs, key=lambda run: (run.seed is None, run.seed or 0))
        methods.append(Method(name if kind == "name" else _common_label(runs), tuple(runs)))
    labels = [method.label for method in methods]
    if len(set(labels)) < len(labels):
        methods = [Method(method.runs[0].label, method.runs) for method in methods]
    return methods


def split_name(place: str | Path) -> tuple[str | None, Path]:
    """Return name and folder of NAME=FOLDER, or None and the folder.

    >>> split_name("fedavg=scores/a"), split_name("scores/a")
    (('fedavg', PosixPath('scores/a')), (None, PosixPath('scores/a')))
    """
    name, equals, folder = str(place).partition("=")
    # A folder may have an equals sign in its name.
    if equals and name and not Path(place).exists():
        return name, Path(folder)
    return None, Path(place)


def run_of(scored: ScoredRun) -> Path | None:
    """Return the run that a results folder is of, where it lies where it did, or around its own scores; else None."""
    if scored.folder.name == START_SCORES:  # in the folder of a run that cost it nothing
        return None
    named = Path(scored.results.summary["policy"]["name"])
    for place in (named, scored.folder.resolve().parent):
        if (place / CONFIG_FILE).is_file() and (place / ROUNDS_FILE).is_file():
            return place
    return None


def _common_label(runs: Sequence[ScoredRun]) -> str:
    """What the labels of several seeds have in common: `fedavg` for fedavg-s0 and fedavg-s1."""
    labels = [run.label for run in runs]
    if len(labels) == 1:
        return labels[0]
    shortest = min(len(label) for label in labels)
    alike = next((i for i in range(shortest) if len({label[i] for label in labels}) > 1), shortest)
    start = labels[0][:alike]
    return re.sub(r"([-_. ]+(seed|s)?|(?<=\W)seed)[-_. ]*$", "", start).rstrip("-_. /") or labels[0]


def _config_of(policy: str) -> tuple[str | None, int | None]:
    """Digest of a run's settings and its seed, where its folder is here."""
    config = find_config(Path(policy))
    if config is None:
        return None, None
    seed = section(config, "federated").get("seed")
    text = json.dumps(without_free(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest(), seed if isinstance(seed, int) else None


def without_free(value: Any) -> Any:
    """Return settings without seeds and places, which say nothing about a method.

    >>> without_free({"federated": {"strategy": "fedavg", "seed": 3}})
    {'federated': {'strategy': 'fedavg'}}
    """
    if isinstance(value, dict):
        return {str(key): without_free(item) for key, item in value.items() if key not in FREE_KEYS}
    return [without_free(item) for item in value] if isinstance(value, list) else value
