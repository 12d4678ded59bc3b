"""Plans of a scenario's candidates: what `fedllm-train plan` says of each, kept as JSON, and the table of all.

Imports no torch of its own.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedllm_data.in_place import write_file
from fedllm_train.planning.plan_all import plan_all
from fedllm_train.planning.plan_flags import plan_flags
from fedllm_train.scenarios.scenario_steps import LINES, plan_flags_of
from fedllm_train.scenarios.template import Scenario, ScenarioCandidate

__all__ = ["plan_candidate", "plan_rows", "read_plan", "write_lines"]

_LINE_COLUMNS = ("client_id", "download_mbit", "upload_mbit", "watts")


def plan_candidate(scenario: Scenario, candidate: ScenarioCandidate, out: Path, *, seed: int) -> dict[str, Any]:
    """Plan one candidate, and keep what the plan says in `plans/NAME/plan.json`.

    Args:
        scenario: the case.
        candidate: one of its candidates.
        out: the folder of the case, with clients and base.
        seed: of the run.

    Returns:
        The plan's record.

    Raises:
        FedLLMError: for whatever the run would refuse.
    """
    plan = plan_all(plan_flags(plan_flags_of(scenario, candidate, out, seed=seed)))
    folder = out / "plans" / candidate.name
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = json.loads(json.dumps(plan.as_record(), default=list))
    write_file(folder / "plan.json", (json.dumps(record, indent=2) + "\n").encode())
    return record


def read_plan(out: Path, name: str) -> dict[str, Any]:
    """Return what was planned of a candidate."""
    record: dict[str, Any] = json.loads((out / "plans" / name / "plan.json").read_text(encoding="utf-8"))
    return record


def plan_rows(scenario: Scenario, plans: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return a table of all candidates, with its head, as text.

    Args:
        scenario: the case.
        plans: by candidate, the plan's record.
    """
    rows = [["candidate", "down a visit", "up a visit", "all bytes", "hours", "epsilon", "GB of memory"]]
    for each in scenario.candidates:
        run = plans[each.name]["runs"][0]
        travel, time, privacy = run["travel"], run["time"], run["privacy"]
        memory = min((need["high_gb"] for need in run["memory"]), default=None)
        rows.append(
            [
                each.name,
                _bytes(travel["down_visit"]),
                _bytes(travel["up_visit"]),
                ("about " if travel["why_estimate"] else "") + _bytes(travel["down"] + travel["up"]),
                "–" if time is None else f"{time['total_hours']:.3g}",
                "none" if privacy is None else _epsilon(privacy["epsilon"]),
                "–" if memory is None else f"{memory:.2g}",
            ]
        )
    return rows


def write_lines(scenario: Scenario, out: Path, *, seed: int) -> None:
    """Write every client's line for the decision, from the client table of the runs."""
    from fedllm_data.clients import load_clients
    from fedllm_eval.machines.client_table import client_table

    clients = load_clients(out / "clients", split="train")
    text = str(scenario.settings["client_table"])
    table = client_table(text, list(clients), clients.table, seed=seed)
    rows: list[Sequence[Any]] = [_LINE_COLUMNS]
    for client_id in clients:
        machine = table.machine(client_id)
        numbers = (getattr(machine, name) for name in _LINE_COLUMNS[1:])
        rows.append([client_id, *("" if number is None else number for number in numbers)])
    with (out / LINES).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def _bytes(amount: float) -> str:
    return f"{amount:,.0f}"


def _epsilon(epsilon: float | None) -> str:
    return "without noise" if epsilon is None else f"{epsilon:.3g}"
