"""The subcommand `scenario` of `fedllm-train`: a whole case, planned, run and decided. The parser imports no torch."""

import argparse
import json
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedllm_data.command_line.dry_run import DryRun, folder_to_write
from fedllm_data.command_line.one_line_parser import add_command

__all__ = ["add_scenario_command"]


def add_scenario_command(commands: Any) -> None:
    """Add `scenario` to the subcommands."""
    scenario = add_command(
        commands,
        "scenario",
        does="run a whole case: plan its candidates, run, score and compare them, and recommend one",
        writes=True,
        shown=(
            ("What there is", "fedllm-train scenario"),
            ("Phones on 4G, in some minutes", "fedllm-train scenario phones --out phones"),
        ),
    )
    scenario.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="a template that comes along, or the path of one (NAME.yaml); without, all are listed",
    )
    scenario.add_argument("--out", type=Path, metavar="DIR", help="folder of the case; goes on where it was stopped")
    scenario.add_argument("--seed", type=int, default=0, metavar="N", help="seeds the clients and every run (0)")
    scenario.add_argument("--json", action="store_true", help="machine-readable")
    scenario.set_defaults(command=_scenario)


def _scenario(arguments: argparse.Namespace) -> None:
    from fedllm_data.errors import ConfigError
    from fedllm_train.scenarios.template import read_scenario, shipped_scenarios

    if arguments.name is None:
        if arguments.out is not None:
            raise ConfigError(
                f"--out {arguments.out} is given without a scenario; name one: fedllm-train scenario NAME"
            )
        _list([read_scenario(name) for name in shipped_scenarios()], as_json=arguments.json)
        return
    scenario = read_scenario(arguments.name)
    if arguments.seed < 0:
        raise ConfigError(f"--seed is {arguments.seed}; it must not be negative")
    if arguments.out is None:
        _tell(scenario, as_json=arguments.json)
        return
    from fedllm_train.scenarios.scenario_steps import steps

    if arguments.dry_run:
        from fedllm_train.scenarios.case_folder import check_folder

        done = check_folder(scenario, arguments.out, seed=arguments.seed)
        left = [each for each in steps(scenario, arguments.out, seed=arguments.seed) if each.name not in done]
        plan = DryRun(
            does=f"run the scenario {scenario.name}: {scenario.title}",
            reads=["nothing but what comes with the package"],
            writes=[folder_to_write(arguments.out, "clients, base, plans, runs, scores, comparison, decision, page")],
            settings={each.name: each.command for each in left},
        )
        print(plan.text(as_json=arguments.json))
        return
    from fedllm_data.terminal import quiet_libraries
    from fedllm_train.scenarios.case_running import run_scenario

    quiet_libraries()
    warnings.filterwarnings("ignore", category=FutureWarning)
    started = time.monotonic()
    page, sentence = run_scenario(
        scenario, arguments.out, seed=arguments.seed, say=lambda line: print(line, flush=True)
    )
    print(f"\n{sentence}\nDone in {time.monotonic() - started:.0f} s. Open {page}")


def _list(scenarios: list[Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(each) for each in scenarios], indent=2, ensure_ascii=False))
        return
    for each in scenarios:
        print(f"{each.name}: {each.title}")
        print(f"    {each.question}")
        print(f"    candidates: {', '.join(one.name for one in each.candidates)}")
    print("\nfedllm-train scenario NAME tells more; with --out DIR it runs.")


def _tell(scenario: Any, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(scenario), indent=2, ensure_ascii=False))
        return
    print(
        f"{scenario.title}\n\n{scenario.question}\n\n{scenario.clients}\n\n{scenario.machines}\n\nWhat would be bad:"
    )
    print("\n".join(f"  - {each}" for each in scenario.bad))
    print("\nCandidates:")
    for each in scenario.candidates:
        print(f"  {each.name}: {each.title}. {each.why}")
    print(f"\nfedllm-train scenario {scenario.name} --out DIR runs it.")
