"""What a scenario template holds, and how one is read and checked. Imports no torch.

A template is a YAML file: one that comes along, by its name, or one of the user's own, by its path. Nothing in it is
optional but prices and limits that the case does not have, and a key that is not known is refused.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fedllm_data.did_you_mean import did_you_mean
from fedllm_data.errors import ConfigError
from fedllm_eval.decide_command import DEFAULTS as DECIDE_DEFAULTS

__all__ = ["Limits", "Prices", "Scenario", "ScenarioCandidate", "read_scenario", "shipped_scenarios"]

PRICED = ("per_gb", "per_hour", "per_kwh")
_OWN_FLAGS = ("data", "model", "adapter", "output_dir", "seed", "resume", "config", "overwrite_output_dir")
"""Settings that a scenario has of its own."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_LEAST, _MOST = 2, 4

Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True)
class ScenarioCandidate:
    """One run that the case could choose."""

    name: str
    """What its run's folder is called: small letters, digits and dashes."""
    title: str
    why: str
    """Why it is worth trying here."""
    settings: Mapping[str, Any]
    """Its own, beside those of all candidates; names as in a `config.yaml`."""


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What one unit costs, each with its source or the word "assumption"."""

    currency: str
    sources: Mapping[str, str]
    per_gb: float | None = None
    """Price of one GB sent, either way."""
    per_hour: float | None = None
    """Price of one hour of a client's device in training."""
    per_kwh: float | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the case cannot go beyond, whatever a candidate gains; None for no limit."""

    hours: float | None = None
    """Hours that the whole run may take, on the clock of the clients' machines."""
    visit_mb: float | None = None
    """Megabytes (10^6 bytes) that one visit downloads and uploads together, on average."""
    epsilon: float | None = None
    """The largest epsilon of its guarantee; a candidate without one is beyond the limit."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A case."""

    name: str
    title: str
    question: str
    """What has to be decided."""
    clients: str
    """Who the clients are."""
    machines: str
    """Which machines they have; the numbers are those of the client table, with their sources."""
    bad: Sequence[str]
    """What would be bad, as sentences."""
    corpus: Mapping[str, Any]
    """Options of the generated corpus `fed-synth`."""
    settings: Mapping[str, Any]
    """Settings of every candidate's run, by the names of a `config.yaml`."""
    candidates: Sequence[ScenarioCandidate]
    prices: Prices
    rules: Mapping[str, float]
    """Thresholds of `fedllm-eval decide`."""
    limits: Limits = field(default_factory=Limits)

    def settings_of(self, candidate: ScenarioCandidate) -> dict[str, Any]:
        """Return all settings of one candidate's run; what a candidate sets to null is left out."""
        both = {**self.settings, **candidate.settings}
        return {name: value for name, value in both.items() if value is not None}


def shipped_scenarios() -> list[str]:
    """Return the names of the templates that come along.

    >>> "hospitals" in shipped_scenarios()
    True
    """
    return sorted(
        Path(each.name).stem for each in files("fedllm_train.scenarios").iterdir() if each.name.endswith(".yaml")
    )


def read_scenario(name: str) -> Scenario:
    """Return a scenario by the name of its template, or by the path of one of the user's own.

    Raises:
        ConfigError: if there is no such template, or something in it is wrong.

    >>> read_scenario("bank").name
    'bank'
    """
    own = Path(name)
    if own.suffix in (".yaml", ".yml"):
        where, stem = str(own), own.stem
        try:
            text = own.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"{own} cannot be read ({error}); name a template or the path of one") from error
    else:
        known = shipped_scenarios()
        if name not in known:
            raise ConfigError(
                f"scenario {name!r} is unknown; {did_you_mean(name, known)}choose from {', '.join(known)}, or give "
                "the path of a template, NAME.yaml"
            )
        where, stem = f"{name}.yaml", name
        text = files("fedllm_train.scenarios").joinpath(where).read_text(encoding="utf-8")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is no YAML: {' '.join(str(error).split())}") from error
    return _scenario(content, where, stem)


def _scenario(content: Any, where: str, stem: str) -> Scenario:
    given = _mapping(content, where)
    listed = given.get("candidates")
    if not isinstance(listed, list) or not _LEAST <= len(listed) <= _MOST:
        raise ConfigError(f"{where}: candidates is no list of {_LEAST} to {_MOST} runs; give that many to choose from")
    candidates = [_part(ScenarioCandidate, each, f"{where}: candidate {n}") for n, each in enumerate(listed, start=1)]
    made: dict[str, Any] = {
        **given,
        "name": stem,
        "candidates": candidates,
        "prices": _part(Prices, given.get("prices", {}), f"{where}: prices"),
        "limits": _part(Limits, given.get("limits", {}), f"{where}: limits"),
    }
    scenario = _part(Scenario, made, where)
    _check(scenario, where)
    return scenario


def _check(scenario: Scenario, where: str) -> None:
    names = [each.name for each in scenario.candidates]
    for name in (scenario.name, *names):
        if not _NAME.fullmatch(str(name)) or names.count(name) > 1:
            raise ConfigError(f"{where}: the name {name!r} is taken or not of small letters, digits and dashes")
    for settings in (scenario.settings, *(each.settings for each in scenario.candidates)):
        if taken := sorted(set(_mapping(settings, f"{where}: settings")) & set(_OWN_FLAGS)):
            raise ConfigError(f"{where}: settings have {taken[0]}, which the scenario chooses itself; leave it out")
    if unknown := sorted(set(scenario.rules) - set(DECIDE_DEFAULTS)):
        hint = did_you_mean(unknown[0], DECIDE_DEFAULTS)
        raise ConfigError(f"{where}: rules have {unknown[0]!r}; {hint}choose from {', '.join(DECIDE_DEFAULTS)}")
    _check_numbers(scenario.rules, f"{where}: rules")
    amounts = {name: value for name in PRICED if (value := getattr(scenario.prices, name)) is not None}
    _check_numbers(amounts, f"{where}: prices")
    if lacking := sorted(set(amounts) - set(scenario.prices.sources)):
        raise ConfigError(f"{where}: prices.sources lacks {lacking[0]}; name its source, or write assumption")
    limits = {
        each.name: value for each in fields(Limits) if (value := getattr(scenario.limits, each.name)) is not None
    }
    _check_numbers(limits, f"{where}: limits")
    if not isinstance(scenario.bad, list) or not scenario.bad:
        raise ConfigError(f"{where}: bad is no list of sentences; say what would be bad")


def _check_numbers(values: Mapping[str, Any], where: str) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise ConfigError(f"{where} have {name}: {value!r}; give a number that is not negative")


def _part(kind: type[Part], content: Any, where: str) -> Part:
    """A dataclass of a mapping with its fields and no others."""
    given = _mapping(content, where)
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(given) - set(known)):
        hint = did_you_mean(unknown[0], known)
        raise ConfigError(f"{where} has {unknown[0]!r}; {hint}it holds {', '.join(known)}")
    needed = [name for name, each in known.items() if each.default is MISSING and each.default_factory is MISSING]
    if lacking := [name for name in needed if name not in given]:
        raise ConfigError(f"{where} lacks {lacking[0]}; it holds {', '.join(known)}")
    for name, each in known.items():
        if each.type is str and name in given and not isinstance(given[name], str):
            raise ConfigError(f"{where}: {name} is {given[name]!r}, which is no text; put it in quotes")
    return kind(**{name: value.strip() if isinstance(value, str) else value for name, value in given.items()})


def _mapping(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"{where} is no mapping of names to values; look at a template that comes along")
    return content
