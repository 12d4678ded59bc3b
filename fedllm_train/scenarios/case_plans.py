"""Plans of a scenario's candidates: what `fedllm-train plan` said of each, and the lines of the clients."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedllm_train.scenarios.scenario_steps import LINES
from fedllm_train.scenarios.template import Scenario

__all__ = ["plan_rows", "read_plan", "time_text", "write_lines"]

_LINE_COLUMNS = ("client_id", "download_mbit", "upload_mbit", "watts")


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
    rows = [["candidate", "down a visit", "up a visit", "all bytes", "time", "epsilon", "GB of memory"]]
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
                "–" if time is None else time_text(time["total_hours"]),
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


def time_text(hours: float) -> str:
    """Return a time in the unit that suits it.

    >>> time_text(2.5), time_text(0.1), time_text(0.001)
    ('2.5 h', '6 min', '3.6 s')
    """
    if hours >= 1:
        return f"{hours:.3g} h"
    return f"{60 * hours:.3g} min" if hours >= 1 / 60 else f"{3600 * hours:.3g} s"


def _bytes(amount: float) -> str:
    return f"{amount:,.0f}"


def _epsilon(epsilon: float | None) -> str:
    return "without noise" if epsilon is None else f"{epsilon:.3g}"
