"""What a decision is made from: the candidates with their runs, what was before them, and who trained alone.

A candidate is a results folder of `fedllm-eval run`, or a run folder, whose `scores/` is then read; seeds of one
method are one candidate, as in `compare`. "Before" is what the candidates started from: `policies/base` inside their
results (`--base-too`), or a results folder of its own. "Alone" are adapters trained on one client each:
`policies/alone` inside the results (`--alone RUN`), or a results folder of such a run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from fedllm_data.errors import ConfigError, MetricError
from fedllm_eval.comparing.compared_methods import (
    Method,
    ScoredRun,
    check_alike,
    group_methods,
    read_scored,
    run_of,
    split_name,
)
from fedllm_eval.policy.run_folder import CONFIG_FILE, SCORES
from fedllm_eval.results import read_results

__all__ = ["Candidate", "Given", "read_candidates"]

RESULTS_FILE = "results.json"


@dataclass(frozen=True)
class Candidate:
    """One method that could be released."""

    method: Method
    runs: tuple[Path | None, ...]
    """The run folder of each seed; None where it is not at hand."""

    @property
    def label(self) -> str:
        """What it is called."""
        return self.method.label


@dataclass(frozen=True)
class Given:
    """All that was given, read and checked to be comparable."""

    candidates: tuple[Candidate, ...]
    before: Method
    alone: Method | None
    """Scores of clients under the adapter that each trained on its own rows; None where there are none."""
    folders: tuple[Path, ...]
    """The results folders that were read, in the order given."""

    @property
    def first(self) -> ScoredRun:
        """The first run, for what all have in common: task, dataset and settings."""
        return self.candidates[0].method.runs[0]


def read_candidates(
    places: Sequence[str | Path], *, before: str | Path | None = None, alone: str | Path | None = None
) -> Given:
    """Read what a decision is made from.

    Args:
        places: results folders or run folders, each FOLDER or NAME=FOLDER.
        before: results of what the candidates started from; by default the base inside their own results, or the one
            given folder of a plain base model.
        alone: results of a run of `--strategy local`; by default those inside the candidates' results.

    Raises:
        ConfigError: if a folder holds no results, or none of clients, or nothing says what was before.
        MetricError: if folders were not scored alike, or the candidates started from different policies.

    >>> read_candidates(["no/such/folder"])
    Traceback (most recent call last):
    fedllm_data.errors.ConfigError: no/such/folder holds no results; make them by `fedllm-eval run ... --out no/suc...
    """
    scored = [_scored(place) for place in places]
    for one, _ in scored:
        if not one.results.summary["splits"]:
            raise ConfigError(
                f"{one.folder} holds suites alone, and a decision needs scores of clients; make them by `fedllm-eval "
                "run RUN --data DATA --base-too --out FOLDER`"
            )
    first_folder = None if before is None else _results_folder(split_name(before)[1]).resolve()
    scored = [one for one in scored if one[0].folder.resolve() != first_folder]
    folders = [one.folder.resolve() for one, _ in scored]
    if len(set(folders)) < len(folders):
        raise MetricError("a results folder is given twice; name each once")
    plain = [one for one, _ in scored if one.is_base]
    if before is not None:
        base = _scored(before)[0]
    elif len(plain) == 1 and len(scored) > 1:
        # `decide scores/*`: the base model among its own descendants is what was before them.
        base = plain[0]
        scored = [one for one in scored if one[0] is not base]
    else:
        base = _own_base([one for one, _ in scored])
    if not scored:
        raise MetricError("nothing is left to decide about; name a trained policy beside what was before it")
    methods = group_methods([one for one, _ in scored])
    folders_of = {one.folder: run for one, run in scored}
    candidates = tuple(Candidate(method, tuple(folders_of[one.folder] for one in method.runs)) for method in methods)
    others = _own_alone([one for one, _ in scored]) if alone is None else _alone_of(_results_folder(Path(alone)))
    for one, _ in scored:
        check_alike(base.label, base.results.summary, one.label, one.results.summary)
    if others is not None:
        check_alike(base.label, base.results.summary, others.label, others.results.summary)
    return Given(
        candidates,
        Method(base.label, (base,)),
        None if others is None else Method(others.label, (others,)),
        tuple(dict.fromkeys(one.folder for one, _ in scored)),
    )


def _results_folder(place: Path) -> Path:
    """The results of a place: itself, or `scores/` of a run folder."""
    if (place / RESULTS_FILE).is_file() or not (place / CONFIG_FILE).is_file():
        return place
    if not (place / SCORES / RESULTS_FILE).is_file():
        raise ConfigError(
            f"{place} is a run that was not scored; score it by `fedllm-eval run {place} --data DIR_OR_ID "
            f"--base-too --out {place / SCORES}`"
        )
    return place / SCORES


def _scored(place: str | Path) -> tuple[ScoredRun, Path | None]:
    name, given = split_name(place)
    folder = _results_folder(given)
    (found,) = read_scored([folder if name is None else f"{name}={folder}"])
    run = given if folder != given else run_of(found)
    label = name or (run or given).resolve().name
    return replace(found, label=label), run


def _identity(scored: ScoredRun) -> tuple[object, ...]:
    policy = scored.results.summary["policy"]
    return policy.get("base_digest") or policy.get("base") or policy["name"], policy.get("adapter_sha256")


def _inside(scored: ScoredRun, label: str) -> ScoredRun | None:
    """Another policy that was scored together with this one."""
    folder = scored.folder / "policies" / label
    if not folder.is_dir():
        return None
    return ScoredRun(label, folder, read_results(folder), label, None, None)


def _own_base(scored: Sequence[ScoredRun]) -> ScoredRun:
    found = [(one, base) for one in scored if (base := _inside(one, "base")) is not None]
    lacking = [one for one in scored if all(one is not having for having, _ in found)]
    if lacking:
        policy, data = (lacking[0].results.summary[key]["name"] for key in ("policy", "dataset"))
        raise ConfigError(
            f"{lacking[0].folder} says nothing about what was before {lacking[0].label}; score it again by "
            f"`fedllm-eval run {policy} --data {data} --base-too --out {lacking[0].folder}`, or name results of the "
            "start by --before FOLDER"
        )
    if len({_identity(base) for _, base in found}) > 1:
        raise MetricError(
            f"{found[0][0].label} and the others started from different policies; name one start for all by --before "
            "FOLDER"
        )
    return found[0][1]


def _own_alone(scored: Sequence[ScoredRun]) -> ScoredRun | None:
    found = (one for scored_run in scored if (one := _inside(scored_run, "alone")) is not None)
    first = next(found, None)
    return None if first is None else _trained(first)


def _alone_of(folder: Path) -> ScoredRun:
    """The scores of clients under their own adapters in the results of a run of `--strategy local`."""
    for label in ("alone", "personal"):
        if (folder / "policies" / label).is_dir():
            place = folder / "policies" / label
            return _trained(ScoredRun("alone", place, read_results(place), "alone", None, None))
    raise ConfigError(
        f"{folder} holds no scores of clients under adapters of their own; name the results of a run of --strategy "
        "local, or score with `fedllm-eval run ... --alone RUN`"
    )


def _trained(scored: ScoredRun) -> ScoredRun:
    """The same without clients whose own adapter is still what the run started from."""
    table, summary = scored.results.per_client, scored.results.summary
    never = {(split, client) for split, part in summary["splits"].items() for client in part.get("never_trained", ())}
    if not never:
        return scored
    keys = zip(table["split"].to_pylist(), table["client_id"].to_pylist(), strict=True)
    kept = table.filter(pa.array([key not in never for key in keys], pa.bool_()))
    return replace(scored, results=replace(scored.results, per_client=kept))
