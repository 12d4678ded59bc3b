"""What a scenario does, as the commands a user would type. The page shows them, `case_running.py` runs them."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedllm_train.flag_names import flag_of
from fedllm_train.scenarios.template import PRICED, Scenario, ScenarioCandidate

__all__ = ["LINES", "Step", "plan_flags_of", "run_flags", "steps"]

LINES = "lines.csv"
"""Every client's line and watts, as `fedllm-eval decide` reads them."""
SCORE = "--batch-size 64 --max-length {max_length}"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command."""

    name: str
    """Under which it is remembered as done."""
    purpose: str
    command: str
    kind: Literal["command", "plan", "training"] = "command"


def steps(scenario: Scenario, out: Path, *, seed: int = 0) -> list[Step]:
    """Return the commands of a scenario in order, up to the decision.

    Args:
        scenario: the template.
        out: the folder of the case.
        seed: of the corpus and of every run.

    >>> from fedllm_train.scenarios.template import read_scenario
    >>> steps(read_scenario("bank"), Path("bank"))[1].command
    'fedllm-train tiny --shipped --out bank/base'
    """
    q = shlex.quote(str(out))
    score = SCORE.format(max_length=scenario.settings.get("max_length", 128))
    names = [each.name for each in scenario.candidates]
    options = " ".join(f"--set {name}={value}" for name, value in scenario.corpus.items())
    base = f"fedllm-train tiny --shipped --out {q}/base"
    if seed != 0:  # what the model that comes along has read may be held out here
        base = f"fedllm-train tiny --data {q}/clients --out {q}/base --seed {seed}"
    found = [
        Step(
            name="corpus",
            purpose="Build the clients",
            command=f"fedllm-data build fed-synth --seed {seed} --out {q}/clients --no-report {options}".rstrip(),
        ),
        Step(name="base", purpose="Take the small base model", command=base),
    ]
    for each in scenario.candidates:
        argv = plan_flags_of(scenario, each, out, seed=seed)
        command = shlex.join(["fedllm-train", "plan", *argv])
        found.append(Step(name=f"plan-{each.name}", purpose=f"Plan: {each.title}", command=command, kind="plan"))
    for each in scenario.candidates:
        argv = run_flags(scenario, each, out, seed=seed)
        command = shlex.join(["fedllm-train", "sft", *argv])
        found.append(Step(name=f"run-{each.name}", purpose=f"Run: {each.title}", command=command, kind="training"))
    for name, place in [("base", f"{q}/base"), *((name, f"{q}/runs/{name}") for name in names)]:
        command = f"fedllm-eval run {place} --data {q}/clients --out {q}/scores/{name} {score}"
        found.append(Step(name=f"score-{name}", purpose=f"Score {name} on every client", command=command))
    scored = " ".join(f"{q}/scores/{name}" for name in names)
    found.append(
        Step(
            name="compare",
            purpose="Compare, client by client",
            command=f"fedllm-eval compare {q}/scores/base {scored} --out {q}/compare",
        )
    )
    rules = " ".join(f"{flag_of(name)} {value}" for name, value in scenario.rules.items())
    found.append(
        Step(
            name="decide",
            purpose="Decide by the rules of the case",
            command=f"fedllm-eval decide {scored} --before {q}/scores/base --out {q}/decision --lines {q}/{LINES} "
            f"{rules} {_prices(scenario)}".rstrip(),
        )
    )
    return found


def run_flags(scenario: Scenario, candidate: ScenarioCandidate, out: Path, *, seed: int) -> list[str]:
    """Return the flags of a candidate's run."""
    own = {"data": out / "clients", "model": out / "base", "output_dir": out / "runs" / candidate.name, "seed": seed}
    return _as_flags({**own, **scenario.settings_of(candidate)})


def plan_flags_of(scenario: Scenario, candidate: ScenarioCandidate, out: Path, *, seed: int) -> list[str]:
    """Return the flags of its plan: those of the run, and where the plan's page goes."""
    own = {"data": out / "clients", "model": out / "base", "output_dir": out / "plans" / candidate.name, "seed": seed}
    return ["--task", "sft", *_as_flags({**own, **scenario.settings_of(candidate)})]


def _as_flags(settings: dict[str, Any]) -> list[str]:
    return [word for name, value in settings.items() for word in (flag_of(name), str(value))]


def _prices(scenario: Scenario) -> str:
    prices = scenario.prices
    given = [
        f"--price-{name.replace('_', '-')} {value}" for name in PRICED if (value := getattr(prices, name)) is not None
    ]
    return " ".join([*given, f"--currency {shlex.quote(prices.currency)}"]) if given else ""
