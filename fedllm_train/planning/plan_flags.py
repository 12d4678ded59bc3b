"""The flags of `fedllm-train plan`: what is compared, and every flag of the run that is planned.

`--strategy`, `--wire`, `--download-wire` and `--cohort-size` may name several values, by commas or by spaces; each
combination is a candidate, and its flags are those of a run (`flags.py`), so that a plan refuses what a run would
refuse, in the same words. Imports no torch.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import NoReturn

from fedllm_data.command_line.settings_file import read_settings
from fedllm_data.command_line.spelling import dashed
from fedllm_data.errors import ConfigError
from fedllm_train.flag_names import FORMER, flag_of, name_of
from fedllm_train.planning.plan_help import TASKS
from fedllm_train.strategies import users_of

__all__ = [
    "COMPARED",
    "MOST_CANDIDATES",
    "Candidate",
    "PlanFlags",
    "candidates",
    "flags_of_candidate",
    "plan_flags",
]

COMPARED = ("strategy", "wire", "download_wire", "cohort_size")
"""Settings that a plan takes several values of."""
MOST_CANDIDATES = 60


@dataclass(frozen=True)
class Candidate:
    """One combination of what is compared; None for what a run's own settings say."""

    chosen: tuple[tuple[str, str], ...]
    """(setting, value) of what was given."""

    @property
    def strategy(self) -> str:
        """The method, if it was given."""
        return dict(self.chosen).get("strategy", "")


@dataclass(frozen=True, kw_only=True)
class PlanFlags:
    """What a command line says."""

    task: str | None
    sizes: str | None
    compared: dict[str, list[str]]
    out: Path | None = None
    as_json: bool = False
    language: str | None = None
    is_dry: bool = False
    config: str | None = None
    rest: list[str] = field(default_factory=list)
    """The flags of the run."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see fedllm-train plan --help")


def plan_flags(argv: Sequence[str]) -> PlanFlags:
    """Return what a command line says.

    Args:
        argv: the flags after `plan`.

    Raises:
        ConfigError: for a flag without its value, or two that exclude one another.

    >>> flags = plan_flags(["--sizes", "4:10", "--wire", "none,int4", "drive", "--wire", "sign", "--lora-r", "4"])
    >>> flags.compared["wire"], flags.rest
    (['none', 'int4', 'drive', 'sign'], ['--lora-r', '4'])
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    for name in COMPARED:
        parser.add_argument(flag_of(name), dest=name, action="extend", nargs="+")
    for flag in ("--task", "--sizes", "--out", "--language", "--config"):
        parser.add_argument(flag)
    for flag in ("--json", "--dry-run"):
        parser.add_argument(flag, action="store_true")
    given, rest = parser.parse_known_args(dashed(argv, FORMER))
    if given.task is not None and given.task not in TASKS:
        raise ConfigError(f"--task is {given.task!r}; choose from {', '.join(TASKS)}")
    compared = {name: _several(name, getattr(given, name)) for name in COMPARED if getattr(given, name)}
    return PlanFlags(
        task=given.task or _task_of_config(given.config),
        sizes=given.sizes,
        compared=compared,
        out=None if given.out is None else Path(given.out),
        as_json=given.json,
        language=given.language,
        is_dry=given.dry_run,
        config=given.config,
        rest=rest + ([] if given.config is None else ["--config", given.config]),
    )


def candidates(flags: PlanFlags) -> list[Candidate]:
    """Return every combination of what is compared, in the order in which it was given.

    Raises:
        ConfigError: if there are too many.

    >>> flags = plan_flags(["--strategy", "fedavg,ffa_lora", "--wire", "none,drive"])
    >>> [dict(each.chosen) for each in candidates(flags)][:2]
    [{'strategy': 'fedavg', 'wire': 'none'}, {'strategy': 'fedavg', 'wire': 'drive'}]
    """
    lists = [[(name, value) for value in values] for name, values in flags.compared.items()]
    found = [Candidate(chosen) for chosen in product(*lists)]
    if len(found) > MOST_CANDIDATES:
        sizes = " x ".join(f"{len(values)} of {name}" for name, values in flags.compared.items())
        raise ConfigError(f"{sizes} make {len(found)} candidates; compare at most {MOST_CANDIDATES} at once")
    return found


def flags_of_candidate(candidate: Candidate, flags: PlanFlags, data: str) -> list[str]:
    """Return the command line of the run that a candidate stands for.

    Settings of single methods are left out where another of the compared methods reads them.

    Args:
        candidate: the combination.
        flags: what the command line says.
        data: the dataset's name.
    """
    strategies = flags.compared.get("strategy", [])
    argv: list[str] = []
    keep = True
    for word in flags.rest:
        if word.startswith("--"):
            users = users_of(name_of(word))
            of_another = users and candidate.strategy not in users and any(each in users for each in strategies)
            keep = not of_another
        if keep:
            argv.append(word)
    chosen = [word for name, value in candidate.chosen for word in (flag_of(name), value)]
    given = {name_of(word) for word in argv if word.startswith("--")}
    is_in_file = flags.config is not None and flags.sizes is None
    argv += [] if "data" in given or is_in_file else ["--data", data]
    return [*argv, *chosen, "--output-dir", "planned"]


def _several(name: str, given: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(_parts(name, given)))


def _parts(name: str, given: Sequence[str]) -> Iterator[str]:
    for text in given:
        parts = [each.strip() for each in text.split(",")]
        if not all(parts):
            raise ConfigError(f"{flag_of(name)} is {text!r}; join values by commas, such as a,b")
        yield from parts


def _task_of_config(path: str | None) -> str | None:
    """The task of a run whose own `config.yaml` is given."""
    content = {} if path is None else read_settings(path)
    return content["task"] if content.get("task") in TASKS and "federated" in content else None
