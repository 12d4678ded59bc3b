"""Runs a scenario's commands one after the other, remembers which are done, and goes on where it was stopped."""

import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from fedllm_data.errors import ConfigError, FedLLMError
from fedllm_train.scenarios.agreement import Agreement, agreement_of
from fedllm_train.scenarios.case_folder import check_folder, remember_steps
from fedllm_train.scenarios.case_page import write_case
from fedllm_train.scenarios.case_plans import plan_rows, read_plan, write_lines
from fedllm_train.scenarios.case_records import read_rounds
from fedllm_train.scenarios.scenario_steps import Step, steps
from fedllm_train.scenarios.template import Scenario

__all__ = ["PAGE", "PlanNotKept", "run_scenario"]

PAGE = "scenario.html"

Say = Callable[[str], None]
Program = Callable[[list[str]], int]


class PlanNotKept(FedLLMError, RuntimeError):
    """A run cost something else than its plan said."""


def run_scenario(
    scenario: Scenario, out: Path, programs: Mapping[str, Program], *, seed: int = 0, say: Say = print
) -> tuple[Path, str]:
    """Run all steps that are not done, and return the page and its recommendation.

    Args:
        scenario: the case.
        out: its folder; it goes on where it was stopped.
        programs: the commands by name; each takes its arguments and returns its exit code.
        seed: of corpus and runs.
        say: called with every line for the reader.

    Raises:
        ConfigError: if the folder is not the case's, or a step fails.
        PlanNotKept: if a run cost something else than was planned; the page is there and shows it.
    """
    done = check_folder(scenario, out, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    remember_steps(scenario, out, done, seed=seed)
    all_steps = steps(scenario, out, seed=seed)
    for number, step in enumerate(all_steps, start=1):
        if step.name in done:
            say(f"[{number}/{len(all_steps)}] {step.purpose}: done before")
            continue
        say(f"\n[{number}/{len(all_steps)}] {step.purpose}\n$ {step.command}")
        started = time.monotonic()
        _run(step, out, programs)
        say(f"({time.monotonic() - started:.0f} s)")
        if step.name == f"plan-{scenario.candidates[-1].name}":
            write_lines(scenario, out, seed=seed)
            plans = {each.name: read_plan(out, each.name) for each in scenario.candidates}
            say("\n" + "\n".join(_columns(plan_rows(scenario, plans))))
        done.append(step.name)
        remember_steps(scenario, out, done, seed=seed)
    agreements = {
        each.name: agreement_of(read_plan(out, each.name)["runs"][0], read_rounds(out / "runs" / each.name))
        for each in scenario.candidates
    }
    page, sentence = write_case(scenario, out, agreements, [(each.purpose, each.command) for each in all_steps], PAGE)
    for name, figures in agreements.items():
        for each in figures:
            say(f"{name}: {_said(each)}")
    _check_agreements(agreements, page)
    return page, sentence


def _run(step: Step, out: Path, programs: Mapping[str, Program]) -> None:
    program, *arguments = shlex.split(step.command)
    if step.is_training:
        from fedllm_train.run_files.open_run import is_begun

        if is_begun(out / "runs" / step.name.removeprefix("run-")):
            arguments.append("--resume")
    printed = StringIO()
    with redirect_stdout(printed):  # tables of single runs; the page has what they say
        code = programs[program](arguments)
    if code != 0:
        raise ConfigError(f"step {step.name} failed; the command above can be run on its own")


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    aligned = [
        [
            cell.ljust(width) if not n else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return ["  ".join(row).rstrip() for row in aligned]


def _said(each: Agreement) -> str:
    planned, run = each.figures
    if each.why_estimate:
        return f"{each.what} {run}, planned about {planned} ({each.why_estimate})"
    if each.is_kept:
        return f"{each.what} {run}, as planned"
    return f"{each.what} {run}, and {planned} was planned: they DIFFER"


def _check_agreements(agreements: dict[str, list[Agreement]], page: Path) -> None:
    broken = [f"{name}: {_said(each)}" for name, of in agreements.items() for each in of if not each.is_kept]
    if broken:
        raise PlanNotKept(
            f"plan and run do not agree ({'; '.join(broken)}); {page} shows both. Please report this with the output "
            "of fedllm-train env"
        )
